//! The generator: one step of cached decoding for many sequences, as a list of dispatches.

use std::sync::Arc;

use engine::{Pool, SequenceModel, sequence::Step};
use files::safetensors::TensorFile;
use generator::{
    Condition, GenerateError, GeneratorConfig, NORM_EPSILON, Request, Rotary, SamplingConfig,
};
use tokens::TokenLayout;

use crate::{
    buffer::Buffer,
    device::{Device, GpuError},
    kernels::{
        Binding, Constants, Finish, Kernel, Product, ProductBuffers, ProductKernels, ProductShape,
        norm_kernel, uniform,
    },
    weights::{Matrix, Parameters, Precision},
};

/// Why a generator cannot be opened on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is damaged, or does not hold the architecture's weights.
    #[error(transparent)]
    Weights(#[from] engine::LoadError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl From<files::FileError> for LoadError {
    fn from(error: files::FileError) -> Self {
        Self::Weights(error.into())
    }
}

/// Most rows that go through the model at once; more go one part after the other.
const ROWS: usize = 256;

/// Positions of a block of the cache: as many as a workgroup of attention has threads.
const BLOCK: usize = 64;

/// Most positions of a sequence: their scores lie in workgroup memory, 4 bytes each.
const POSITIONS: usize = 3 * 1024;

/// Most numbers of a head: attention has a thread for four of them.
const HEAD: usize = 256;

/// A block of the transformer.
struct Layer {
    attention_norm: Buffer,
    query_key_value: Matrix,
    query_key_value_bias: Buffer,
    query_norm: Buffer,
    key_norm: Buffer,
    projection: Matrix,
    projection_bias: Buffer,
    feed_forward_norm: Buffer,
    gate_and_up: Matrix,
    down: Matrix,
}

/// The compiled products of a step, which all layers share.
struct Products {
    query_key_value: Arc<ProductKernels>,
    projection: Arc<ProductKernels>,
    gate_and_up: Arc<ProductKernels>,
    down: Arc<ProductKernels>,
    output: Arc<ProductKernels>,
}

/// The AliTok generator on a GPU (`engine::Generator` is its reference).
///
/// It is immutable; what it has seen of some sequences is in a [`Session`].
pub struct Generator {
    config: GeneratorConfig,
    precision: Precision,
    device: Device,
    pool: Arc<Pool>,
    embedding: Buffer,
    rotations: Buffer,
    layers: Vec<Layer>,
    norm: Buffer,
    output: Matrix,
    output_bias: Buffer,
    /// Zeros where a matrix has no bias.
    no_bias: Buffer,
    products: Products,
    embed: Kernel,
    gather_norm: Kernel,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, precision, device, .. } = self;
        write!(formatter, "Generator {{ {config:?}, {precision:?}, {device:?} }}")
    }
}

impl Generator {
    /// Brings the weights of a generator of this valid architecture to a GPU. `pool` chooses tokens.
    ///
    /// # Errors
    /// If the file is damaged, a tensor is missing, superfluous or mis-shaped, or the GPU has no memory
    /// or cannot compute with heads of this width.
    pub fn load(
        file: &TensorFile,
        config: &GeneratorConfig,
        precision: Precision,
        device: &Device,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        device.check_head(config.head(), HEAD)?;
        let mut parameters = Parameters::new(file, |_| true)?;
        let built = Self::build(&mut parameters, config, precision, device, pool)?;
        parameters.finish()?;
        Ok(built)
    }

    fn build(
        parameters: &mut Parameters<'_>,
        config: &GeneratorConfig,
        precision: Precision,
        device: &Device,
        pool: Arc<Pool>,
    ) -> Result<Self, GpuError> {
        let (width, hidden, head) = (config.width, config.hidden(), config.head());
        let mixed = width + 2 * config.key_value_width();
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            let mut matrix = |parts: &[&str], outputs, inputs| {
                let names: Vec<_> =
                    parts.iter().map(|part| name(&format!("{part}.weight"))).collect();
                parameters.matrix(device, &names, [outputs, inputs], precision)
            };
            let query_key_value = matrix(&["attention.query_key_value"], mixed, width)?;
            let projection = matrix(&["attention.projection"], width, width)?;
            let gate_and_up = matrix(&["feed_forward.gate", "feed_forward.up"], hidden, width)?;
            let down = matrix(&["feed_forward.down"], width, hidden)?;
            let mut vector = |part: &str, length| parameters.vector(device, &name(part), length);
            layers.push(Layer {
                attention_norm: vector("attention_norm.weight", width)?,
                query_key_value,
                query_key_value_bias: vector("attention.query_key_value.bias", mixed)?,
                query_norm: vector("attention.query_norm.weight", head)?,
                key_norm: vector("attention.key_norm.weight", head)?,
                projection,
                projection_bias: vector("attention.projection.bias", width)?,
                feed_forward_norm: vector("feed_forward_norm.weight", width)?,
                gate_and_up,
                down,
            });
        }
        let epsilon = NORM_EPSILON as f32;
        let product = |inputs, outputs, finish, norm| {
            ProductKernels::new(device, ProductShape { inputs, outputs, precision, finish, norm })
                .map(Arc::new)
        };
        let rotary = Rotary::new(&config.layout, head);
        let rotations: Vec<f32> = (0..=config.layout.len())
            .flat_map(|row| [rotary.cosines(row), rotary.sines(row)].concat())
            .collect();
        let embed = Constants::default().number("WIDTH4", width / 4);
        let bindings = [Binding::Read, Binding::Read, Binding::Write];
        Ok(Self {
            embedding: parameters.table(
                device,
                "embedding.weight",
                [config.vocabulary().len(), width],
                precision,
            )?,
            rotations: Buffer::of(device, "rotations", &rotations)?,
            layers,
            norm: parameters.vector(device, "norm.weight", width)?,
            output: parameters.matrix(
                device,
                &["output.weight".to_owned()],
                [config.codes, width],
                precision,
            )?,
            output_bias: parameters.vector(device, "output.bias", config.codes)?,
            no_bias: Buffer::zeros(device, "no bias", width.max(hidden))?,
            products: Products {
                query_key_value: product(width, mixed, Finish::Bias, Some(epsilon))?,
                projection: product(width, width, Finish::Add, None)?,
                gate_and_up: product(width, hidden, Finish::SiluGate, Some(epsilon))?,
                down: product(hidden, width, Finish::Add, None)?,
                output: product(width, config.codes, Finish::Bias, None)?,
            },
            embed: Kernel::new(
                device,
                "embed",
                &embed,
                &[include_str!("kernels/embed.wgsl")],
                &bindings,
            )?,
            gather_norm: norm_kernel(device, width, epsilon, true)?,
            config: config.clone(),
            precision,
            device: device.clone(),
            pool,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// The number format of the weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The GPU that it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of all weights that a step reads, without the embedding, of which it reads a row.
    pub fn streamed_bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.query_key_value, &layer.projection, &layer.gate_and_up, &layer.down]
        });
        layers.chain([&self.output]).map(Matrix::bytes).sum()
    }

    /// Bytes of the keys and values of a position.
    pub fn position_bytes(&self) -> usize {
        2 * 4 * self.config.layers * self.config.key_value_width()
    }

    /// Most sequences of a session: a shader sees the keys of all of them in one layer.
    pub fn most_slots(&self, condition: usize) -> usize {
        let positions = condition + self.config.layout.len() - 1;
        let words = positions.next_multiple_of(BLOCK) * self.config.key_value_width();
        usize::try_from(self.device.info().binding_bytes / (4 * words as u64)).unwrap_or(usize::MAX)
    }

    /// Room for this many sequences side by side, with conditions of up to `condition` ids.
    ///
    /// # Errors
    /// If the GPU has no memory for that.
    pub fn session(&self, condition: usize, slots: usize) -> Result<Session, GpuError> {
        let (config, device) = (&self.config, &self.device);
        let (width, hidden, head) = (config.width, config.hidden(), config.head());
        let (heads, key_heads) = (config.heads, config.key_value_heads());
        // The condition and all tokens but the last, which predicts nothing.
        let positions = condition + config.layout.len() - 1;
        if positions > POSITIONS {
            return Err(GpuError::Limit {
                adapter: device.info().name.clone(),
                limit: "positions of a sequence",
                needed: positions as u64,
                got: POSITIONS as u64,
            });
        }
        let blocks = positions.div_ceil(BLOCK);
        let slot_words = key_heads * blocks * BLOCK * head;
        let mixed_width = width + 2 * config.key_value_width();
        let constants = Constants::default()
            .number("HEAD", head)
            .number("HEADS", heads)
            .number("KEY_HEADS", key_heads)
            .number("BLOCKS", blocks)
            .float("EPSILON", NORM_EPSILON as f32)
            .float("SCALE", (head as f32).sqrt().recip());
        let remember = Kernel::new(
            device,
            "remember",
            &constants,
            &[include_str!("kernels/remember.wgsl")],
            &[
                Binding::Read,
                Binding::Read,
                Binding::Read,
                Binding::Read,
                Binding::Write,
                Binding::Write,
                Binding::Write,
            ],
        )?;
        let attention = Kernel::new(
            device,
            "attention",
            &constants,
            &[include_str!("kernels/attention.wgsl")],
            &[Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write],
        )?;
        let room = |what: &str, width: usize| Buffer::zeros(device, what, ROWS * width);
        let counts = uniform(device, [0; 4])?;
        let wanted_counts = uniform(device, [0; 4])?;
        let rows = room("rows", 4)?;
        let wanted = room("wanted rows", 1)?;
        let x = room("residual stream", width)?;
        let normed = room("rows after a norm", width)?;
        let mixed = room("queries, keys and values", mixed_width)?;
        let attended = room("mixed values", width)?;
        let between = room("hidden numbers", hidden)?;
        let logits = room("logits", config.codes)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        let products = &self.products;
        for layer in &self.layers {
            let keys = Buffer::zeros(device, "keys", slots * slot_words)?;
            let values = Buffer::zeros(device, "values", slots * slot_words)?;
            let product = |kernels, matrix, bias, norm, x, out| {
                let counts = &counts;
                let buffers = ProductBuffers { counts, bias, norm, x, normed: &normed, out };
                Product::new(device, kernels, matrix, &buffers)
            };
            layers.push(LayerWork {
                query_key_value: product(
                    &products.query_key_value,
                    &layer.query_key_value,
                    &layer.query_key_value_bias,
                    Some(&layer.attention_norm),
                    &x,
                    &mixed,
                )?,
                remember: remember.bind(
                    device,
                    &[
                        &rows,
                        &self.rotations,
                        &layer.query_norm,
                        &layer.key_norm,
                        &mixed,
                        &keys,
                        &values,
                    ],
                )?,
                attention: attention.bind(device, &[&rows, &mixed, &keys, &values, &attended])?,
                projection: product(
                    &products.projection,
                    &layer.projection,
                    &layer.projection_bias,
                    None,
                    &attended,
                    &x,
                )?,
                gate_and_up: product(
                    &products.gate_and_up,
                    &layer.gate_and_up,
                    &self.no_bias,
                    Some(&layer.feed_forward_norm),
                    &x,
                    &between,
                )?,
                down: product(&products.down, &layer.down, &self.no_bias, None, &between, &x)?,
                caches: [keys, values],
            });
        }
        let output = Product::new(
            device,
            &products.output,
            &self.output,
            &ProductBuffers {
                counts: &wanted_counts,
                bias: &self.output_bias,
                norm: None,
                x: &normed,
                normed: &normed,
                out: &logits,
            },
        )?;
        Ok(Session {
            embed: self.embed.bind(device, &[&rows, &self.embedding, &x])?,
            gather: self
                .gather_norm
                .bind(device, &[&wanted_counts, &wanted, &self.norm, &x, &normed])?,
            output,
            layers,
            remember,
            attention,
            share: Buffer::zeros(device, "a shared slot", slot_words)?,
            readable: Buffer::readable(device, "logits to read", ROWS * config.codes)?,
            device: device.clone(),
            slots,
            positions,
            slot_bytes: 4 * slot_words as u64,
            codes: config.codes,
            counts,
            wanted_counts,
            rows,
            wanted,
            logits,
            read: Vec::new(),
            dispatches: 0,
        })
    }

    /// Decodes the next positions of some sequences; the logits that are wanted are then in the session.
    ///
    /// # Errors
    /// If the GPU was lost or refused the work.
    ///
    /// # Panics
    /// If a slot or an identifier is out of range, a slot stands in two steps, or a step has no
    /// position or reaches beyond a whole sequence.
    pub fn step(&self, session: &mut Session, steps: &[Step<'_>]) -> Result<(), GpuError> {
        let vocabulary = self.config.vocabulary().len();
        let mut taken = vec![false; session.slots];
        let mut rows: Vec<[u32; 4]> = Vec::new();
        let mut wanted: Vec<bool> = Vec::new();
        for step in steps {
            let count = step.ids.len();
            assert!(count > 0, "a step has positions");
            assert!(step.start + count <= session.positions, "a session has an end");
            assert!(!std::mem::replace(&mut taken[step.slot], true), "one step a slot");
            for (offset, &id) in step.ids.iter().enumerate() {
                let position = step.start + offset;
                let turn = Rotary::row(step.condition, position);
                assert!(id < vocabulary, "id {id} of {vocabulary}");
                assert!(turn < self.config.layout.len(), "a sequence has an end");
                // All are far below 2³².
                rows.push([step.slot, position, id, turn].map(|value| value as u32));
                wanted.push(offset + step.logits >= count);
            }
        }
        session.read.clear();
        session.dispatches = 0;
        // A sequence's positions come in their order, so that each part finds those before it.
        for (rows, wanted) in rows.chunks(ROWS).zip(wanted.chunks(ROWS)) {
            let wanted: Vec<u32> =
                (0..).zip(wanted).filter(|(_, wanted)| **wanted).map(|(row, _)| row).collect();
            self.run(session, rows, &wanted)?;
        }
        Ok(())
    }

    /// One submission: these rows through the model, and the logits of those that are wanted back.
    fn run(
        &self,
        session: &mut Session,
        rows: &[[u32; 4]],
        wanted: &[u32],
    ) -> Result<(), GpuError> {
        let device = &self.device;
        let bytes = 4 * (wanted.len() * session.codes) as u64;
        session.counts.write(device, &[rows.len() as u32, 0, 0, 0])?;
        session.wanted_counts.write(device, &[wanted.len() as u32, 0, 0, 0])?;
        session.rows.write(device, rows)?;
        if !wanted.is_empty() {
            session.wanted.write(device, wanted)?;
        }
        let dispatches = device.checked("a step", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            let mut dispatches = 1;
            {
                let pass = &mut encoder.begin_compute_pass(&Default::default());
                self.embed.run(pass, &session.embed, rows.len(), 1);
                let (heads, all_heads) =
                    (self.config.heads, self.config.heads + 2 * self.config.key_value_heads());
                for layer in &session.layers {
                    dispatches += layer.query_key_value.run(pass, rows.len());
                    session.remember.run(pass, &layer.remember, rows.len(), all_heads);
                    session.attention.run(pass, &layer.attention, rows.len(), heads);
                    dispatches += 2;
                    dispatches += layer.projection.run(pass, rows.len());
                    dispatches += layer.gate_and_up.run(pass, rows.len());
                    dispatches += layer.down.run(pass, rows.len());
                }
                if !wanted.is_empty() {
                    self.gather_norm.run(pass, &session.gather, wanted.len(), 1);
                    dispatches += 1 + session.output.run(pass, wanted.len());
                }
            }
            if !wanted.is_empty() {
                encoder.copy_buffer_to_buffer(
                    session.logits.wgpu(),
                    0,
                    session.readable.wgpu(),
                    0,
                    bytes,
                );
            }
            device.queue().submit([encoder.finish()]);
            dispatches
        })?;
        session.dispatches += dispatches;
        if !wanted.is_empty() {
            let read = &mut session.read;
            device.read(session.readable.wgpu(), bytes, |bytes| {
                read.extend(bytemuck::pod_collect_to_vec::<u8, f32>(bytes));
            })?;
        }
        Ok(())
    }
}

/// A layer's memory and the products on it.
#[derive(Debug)]
struct LayerWork {
    query_key_value: Product,
    remember: wgpu::BindGroup,
    attention: wgpu::BindGroup,
    projection: Product,
    gate_and_up: Product,
    down: Product,
    caches: [Buffer; 2],
}

/// What a generator has seen of some sequences, and the memory it works in, on its GPU.
pub struct Session {
    device: Device,
    slots: usize,
    positions: usize,
    /// Bytes of a slot in each of a layer's two caches.
    slot_bytes: u64,
    codes: usize,
    counts: Buffer,
    wanted_counts: Buffer,
    /// Slot, position, id and row of rotations of each row.
    rows: Buffer,
    wanted: Buffer,
    logits: Buffer,
    readable: Buffer,
    /// A buffer cannot be copied to itself: a shared slot goes through this one.
    share: Buffer,
    embed: wgpu::BindGroup,
    layers: Vec<LayerWork>,
    remember: Kernel,
    attention: Kernel,
    gather: wgpu::BindGroup,
    output: Product,
    /// The wanted logits of the last step.
    read: Vec<f32>,
    dispatches: usize,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Session of {} slots", self.slots)
    }
}

impl Session {
    /// Sequences there is room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Dispatches of the last step.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }

    /// Copies what slot `from` has seen to slot `to`.
    ///
    /// # Errors
    /// If the GPU was lost.
    ///
    /// # Panics
    /// If there are no such slots.
    pub fn share(&mut self, from: usize, to: usize) -> Result<(), GpuError> {
        assert!(from < self.slots && to < self.slots, "slots {from} and {to} of {}", self.slots);
        let (device, bytes) = (&self.device, self.slot_bytes);
        device.checked("sharing a slot", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            for cache in self.layers.iter().flat_map(|layer| &layer.caches) {
                let (cache, share) = (cache.wgpu(), self.share.wgpu());
                encoder.copy_buffer_to_buffer(cache, from as u64 * bytes, share, 0, bytes);
                encoder.copy_buffer_to_buffer(share, 0, cache, to as u64 * bytes, bytes);
            }
            device.queue().submit([encoder.finish()]);
        })
    }
}

impl SequenceModel for Generator {
    type Session = Session;

    fn layout(&self) -> TokenLayout {
        self.config.layout
    }

    fn codes(&self) -> usize {
        self.config.codes
    }

    fn condition_ids(&self, condition: &Condition) -> Result<[Vec<usize>; 2], GenerateError> {
        let vocabulary = self.config.vocabulary();
        condition.validate(vocabulary)?;
        Ok([condition.ids(vocabulary)?, condition.unconditional_ids(vocabulary)])
    }

    fn validate(&self, request: &Request, sampling: &SamplingConfig) -> Result<(), GenerateError> {
        request.validate(&self.config, sampling)
    }

    fn session(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        Ok(Generator::session(self, condition, slots)?)
    }

    fn step(&self, session: &mut Session, steps: &[Step<'_>]) -> Result<(), GenerateError> {
        Ok(Generator::step(self, session, steps)?)
    }

    fn logits(&self, session: &Session, index: usize, out: &mut [f32]) {
        out.copy_from_slice(&session.read[index * session.codes..][..session.codes]);
    }

    fn share(
        &self,
        session: &mut Session,
        from: usize,
        to: usize,
        _: usize,
    ) -> Result<(), GenerateError> {
        Ok(session.share(from, to)?)
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}
