//! The generator: one step of cached decoding for many sequences, as a list of dispatches.

use std::sync::Arc;

use engine::{
    Pool, SequenceModel,
    sequence::{Chooser, Choosing, Step},
};
use files::safetensors::TensorFile;
use generator::{
    Condition, GenerateError, GeneratorConfig, NORM_EPSILON, Request, Rotary, SamplingConfig,
    guidance,
};
use tokens::{
    CodebookIndex, TokenLayout,
    noise::{Noise, Purpose},
};

use crate::{
    buffer::Buffer,
    device::{Device, GpuError, Reading},
    kernels::{
        Binding, Constants, Finish, Kernel, Product, ProductBuffers, ProductKernels, ProductShape,
        norm_kernel, uniform,
    },
    weights::{Matrix, Parameters, Precision, packed},
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

/// Most tokens of a picture that are chosen in one submission.
const CHOICES: usize = 16;

/// Most bytes of noise in one submission.
const NOISE_BYTES: usize = 64 << 20;

/// What the shader writes where logits are not numbers.
const NO_CODE: u32 = u32::MAX;

/// A picture whose tokens are chosen, as the shader reads it.
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct ChosenPicture {
    /// Rows of the conditional and the unconditional logits; then of the sequences.
    logits: [u32; 2],
    slots: [u32; 2],
    /// Positions of the next token.
    positions: [u32; 2],
    /// Its rows of rotations.
    turns: [u32; 2],
    top_k: u32,
    top_p: f32,
    temperature: f32,
    guided: u32,
}

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
    choose: Kernel,
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
            choose: Kernel::new(
                device,
                "choose",
                &Constants::default().number("CODES", config.codes),
                &[include_str!("kernels/choose.wgsl")],
                &[
                    Binding::Read,
                    Binding::Read,
                    Binding::Read,
                    Binding::Write,
                    Binding::Write,
                    Binding::Write,
                ],
            )?,
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
        // Every sequence may be a picture of its own.
        let most_pictures = slots.min(ROWS);
        let choices = NOISE_BYTES / (4 * config.codes * most_pictures);
        let choices = choices.clamp(1, CHOICES);
        let each = most_pictures * choices;
        let pictures = Buffer::zeros(device, "pictures", 12 * most_pictures)?;
        let scales = Buffer::zeros(device, "scales of guidance", each)?;
        let noise = Buffer::zeros(device, "noise", each * config.codes)?;
        let chosen = Buffer::zeros(device, "chosen tokens", 2 + most_pictures + each)?;
        let in_order: Vec<u32> = (0..ROWS as u32).collect();
        Ok(Session {
            choose: self
                .choose
                .bind(device, &[&pictures, &scales, &noise, &logits, &rows, &chosen])?,
            readable_tokens: Buffer::readable(device, "tokens to read", each)?,
            in_order: Buffer::of(device, "rows in order", &in_order)?,
            pictures,
            scales,
            noise,
            chosen,
            choices,
            most_pictures,
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
            choosing: None,
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
        let (rows, wanted) = self.rows(session, steps);
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

    /// Slot, position, id and row of rotations of each position of some steps, and whether logits are
    /// wanted after it.
    fn rows(&self, session: &Session, steps: &[Step<'_>]) -> (Vec<[u32; 4]>, Vec<bool>) {
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
        (rows, wanted)
    }

    /// The dispatches of one step: `rows` rows through the model, and the logits of `wanted` of them.
    /// Returns how many there are.
    fn pass(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        session: &Session,
        rows: usize,
        wanted: usize,
    ) -> usize {
        self.embed.run(pass, &session.embed, rows, 1);
        let mut dispatches = 1;
        let (heads, all_heads) =
            (self.config.heads, self.config.heads + 2 * self.config.key_value_heads());
        for layer in &session.layers {
            dispatches += layer.query_key_value.run(pass, rows);
            session.remember.run(pass, &layer.remember, rows, all_heads);
            session.attention.run(pass, &layer.attention, rows, heads);
            dispatches += 2;
            dispatches += layer.projection.run(pass, rows);
            dispatches += layer.gate_and_up.run(pass, rows);
            dispatches += layer.down.run(pass, rows);
        }
        if wanted > 0 {
            self.gather_norm.run(pass, &session.gather, wanted, 1);
            dispatches += 1 + session.output.run(pass, wanted);
        }
        dispatches
    }

    /// Uploads what a step reads.
    ///
    /// # Errors
    /// If the GPU was lost.
    fn upload(&self, session: &Session, rows: &[[u32; 4]], wanted: &[u32]) -> Result<(), GpuError> {
        let device = &self.device;
        session.counts.write(device, &[rows.len() as u32, 0, 0, 0])?;
        session.wanted_counts.write(device, &[wanted.len() as u32, 0, 0, 0])?;
        session.rows.write(device, rows)?;
        if !wanted.is_empty() {
            session.wanted.write(device, wanted)?;
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
        self.upload(session, rows, wanted)?;
        let dispatches = device.checked("a step", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            let dispatches = {
                let pass = &mut encoder.begin_compute_pass(&Default::default());
                self.pass(pass, session, rows.len(), wanted.len())
            };
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

/// What a step costs a GPU that decodes one position of some sequences, beside the least that any
/// engine must read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCost {
    /// Dispatches, the choice included.
    pub dispatches: usize,
    /// Bytes of weights, keys and values that are read.
    pub bytes: u64,
    /// Bytes of those weights in their precision, and of keys and values in the same.
    pub least_bytes: u64,
}

impl StepCost {
    /// For a model of this architecture with so few sequences that each product is one pass over the
    /// weights, up to four, each of which has seen so many positions.
    pub fn new(
        config: &GeneratorConfig,
        precision: Precision,
        sequences: usize,
        positions: usize,
    ) -> Self {
        let (width, hidden) = (config.width, config.hidden());
        let matrices = [
            ([width + 2 * config.key_value_width(), width], 1),
            ([width, width], 1),
            ([hidden, width], 2),
            ([width, hidden], 1),
        ];
        let output = [([config.codes, width], 1)];
        let layers = std::iter::repeat_n(&matrices[..], config.layers).flatten();
        // Of a layer besides its products: rotation and cache, attention. Of a step: the embedding, the
        // last norm, the choice.
        let mut cost = Self { dispatches: 2 * config.layers + 3, bytes: 0, least_bytes: 0 };
        for &(shape, parts) in layers.chain(&output) {
            let (bytes, bands) = packed(shape, parts, precision);
            cost.dispatches += bands;
            cost.bytes += bytes;
            cost.least_bytes += (parts * shape[0] * shape[1] * precision.bytes()) as u64;
        }
        let seen = (2 * config.layers * config.key_value_width() * sequences * positions) as u64;
        cost.bytes += 4 * seen;
        cost.least_bytes += precision.bytes() as u64 * seen;
        cost
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
    choose: wgpu::BindGroup,
    /// What the shader that chooses reads: of each picture, and of each of its tokens.
    pictures: Buffer,
    scales: Buffer,
    noise: Buffer,
    chosen: Buffer,
    readable_tokens: Buffer,
    /// 0, 1, …: in steps after the first one logits are wanted of all rows.
    in_order: Buffer,
    /// Most tokens of a picture in one submission, and most pictures.
    choices: usize,
    most_pictures: usize,
    /// The wanted logits of the last step.
    read: Vec<f32>,
    /// Tokens that are being chosen.
    choosing: Option<Reading>,
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

impl Chooser<Session> for Generator {
    fn most_choices(&self, session: &Session, positions: usize, pictures: usize) -> usize {
        let fits = positions <= ROWS && pictures <= session.most_pictures;
        if fits { session.choices } else { 0 }
    }

    fn choose(
        &self,
        session: &mut Session,
        steps: &[Step<'_>],
        pictures: &[Choosing<'_>],
        choices: usize,
    ) -> Result<Option<Vec<Option<CodebookIndex>>>, GenerateError> {
        let reading = match session.choosing.take() {
            // An earlier call has submitted these steps.
            Some(reading) => reading,
            None => self.begin_choices(session, steps, pictures, choices)?,
        };
        let mut tokens = Vec::with_capacity(pictures.len() * choices);
        let is_done = reading.finish(&self.device, |bytes| {
            let codes = bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
            // Codes fit, the config was checked.
            let token = |code| (code != NO_CODE).then_some(code as CodebookIndex);
            tokens.extend(codes.into_iter().map(token));
        })?;
        if is_done {
            return Ok(Some(tokens));
        }
        session.choosing = Some(reading);
        Ok(None)
    }
}

impl Generator {
    /// Submits steps and choices, and asks for the tokens.
    ///
    /// # Errors
    /// If the GPU was lost or refused the work.
    fn begin_choices(
        &self,
        session: &mut Session,
        steps: &[Step<'_>],
        pictures: &[Choosing<'_>],
        choices: usize,
    ) -> Result<Reading, GpuError> {
        assert!((1..=session.choices).contains(&choices), "choices of one submission");
        assert!(pictures.len() <= session.most_pictures, "pictures of one submission");
        let device = &self.device;
        let (rows, wanted) = self.rows(session, steps);
        assert!(rows.len() <= ROWS, "positions of one submission");
        let wanted: Vec<u32> =
            (0..).zip(&wanted).filter(|(_, wanted)| **wanted).map(|(row, _)| row).collect();
        // After the first step every sequence has one row.
        let sequences: Vec<_> = steps.iter().filter(|step| step.logits > 0).collect();
        assert!(choices == 1 || wanted.len() == steps.len(), "logits of every sequence");
        self.upload(session, &rows, &wanted)?;
        self.upload_choices(session, &sequences, pictures, choices)?;
        let each = pictures.len() * choices;
        let dispatches = device.checked("steps", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            let step = |encoder: &mut wgpu::CommandEncoder, rows: usize, count: usize| {
                let pass = &mut encoder.begin_compute_pass(&Default::default());
                let mut dispatches = 0;
                for _ in 0..count {
                    dispatches += 1 + self.pass(pass, session, rows, wanted.len());
                    self.choose.run(pass, &session.choose, pictures.len(), 1);
                }
                dispatches
            };
            let mut dispatches = step(&mut encoder, rows.len(), 1);
            if choices > 1 {
                let copy = |encoder: &mut wgpu::CommandEncoder,
                            from: &Buffer,
                            to: &Buffer,
                            words| {
                    encoder.copy_buffer_to_buffer(from.wgpu(), 0, to.wgpu(), 0, 4 * words as u64);
                };
                copy(&mut encoder, &session.wanted_counts, &session.counts, 4);
                copy(&mut encoder, &session.in_order, &session.wanted, wanted.len());
                dispatches += step(&mut encoder, wanted.len(), choices - 1);
            }
            let (from, to) = (session.chosen.wgpu(), session.readable_tokens.wgpu());
            let place = 4 * (2 + pictures.len()) as u64;
            encoder.copy_buffer_to_buffer(from, place, to, 0, 4 * each as u64);
            device.queue().submit([encoder.finish()]);
            dispatches
        })?;
        session.dispatches = dispatches;
        session.read.clear();
        Ok(device.begin_read(session.readable_tokens.wgpu(), 4 * each as u64))
    }

    /// Uploads what the choice reads: pictures, scales of guidance, and the noise of their tokens.
    ///
    /// # Errors
    /// If the GPU was lost.
    fn upload_choices(
        &self,
        session: &Session,
        sequences: &[&Step<'_>],
        pictures: &[Choosing<'_>],
        choices: usize,
    ) -> Result<(), GpuError> {
        let (device, codes, length) = (&self.device, self.config.codes, self.config.layout.len());
        let mut descriptions = Vec::with_capacity(pictures.len());
        let mut scales = Vec::with_capacity(pictures.len() * choices);
        for picture in pictures {
            let sampling = picture.sampling;
            let halves = [picture.conditional, picture.unconditional.unwrap_or(0)];
            let of = |what: fn(&Step<'_>) -> usize| {
                // All are far below 2³².
                halves.map(|half| what(sequences[half]) as u32)
            };
            descriptions.push(ChosenPicture {
                logits: halves.map(|half| half as u32),
                slots: of(|step| step.slot),
                positions: of(|step| step.start + step.ids.len()),
                turns: of(|step| Rotary::row(step.condition, step.start + step.ids.len())),
                // More than there are codes keeps all.
                top_k: u32::try_from(sampling.top_k).unwrap_or(0),
                top_p: sampling.top_p as f32,
                temperature: sampling.temperature as f32,
                guided: u32::from(picture.unconditional.is_some()),
            });
            let scale = |token| {
                guidance::scale(sampling.guidance, sampling.guidance_power, token, length) as f32
            };
            scales.extend((picture.token..picture.token + choices).map(scale));
        }
        let mut noise = vec![0.0f32; pictures.len() * choices * codes];
        // A number of the noise costs some forty multiplications.
        let pool = self.pool.for_work(noise.len() * 40);
        let mut scratch = vec![(); self.pool.threads()];
        pool.pieces(&mut noise, codes, &mut scratch, |index, noise, ()| {
            let (picture, token) = (&pictures[index / choices], index % choices);
            if picture.sampling.temperature == 0.0 {
                return;
            }
            let Request { seed, index, .. } = *picture.request;
            let step = (picture.token + token) as u64;
            let mut numbers = Noise::new(seed, Purpose::Sampling, step, index);
            noise.iter_mut().for_each(|number| *number = numbers.gumbel() as f32);
        });
        let mut counts = vec![0u32; 2 + pictures.len()];
        counts[..2].copy_from_slice(&[choices as u32, pictures.len() as u32]);
        session.pictures.write(device, &descriptions)?;
        session.scales.write(device, &scales)?;
        session.noise.write(device, &noise)?;
        session.chosen.write(device, &counts)
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
        condition.halves(self.config.vocabulary())
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

    fn chooser(&self) -> Option<&dyn Chooser<Session>> {
        Some(self)
    }
}
