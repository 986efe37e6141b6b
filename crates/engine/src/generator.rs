//! The generator: one step of cached decoding for many sequences.

use std::{io, sync::Arc};

use generator::{
    Condition, GenerateError, GeneratorConfig, NORM_EPSILON, Request, Rotary, SamplingConfig,
};
use numerics::{from_bf16, to_bf16};
use tokens::TokenLayout;

use crate::{
    kernels::{BLOCK, Entries, HeadLayout, Kernels, Memory, Pair, RowKernels},
    matrix::{Activations, Finish, Matrix, Outputs, Precision, grow},
    memory::{Arena, Piece},
    parallel::Pool,
    sequence::{POSITIONS, SequenceModel, Step},
    tensors::{LoadError, Tensors, Weights},
};

/// Vectors of the codes and classes.
enum Table {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Table {
    fn new(values: Vec<f32>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values),
            _ => Self::Bf16(values.into_iter().map(to_bf16).collect()),
        }
    }

    fn copy(&self, id: usize, out: &mut [f32]) {
        let range = id * out.len()..(id + 1) * out.len();
        match self {
            Self::F32(values) => out.copy_from_slice(&values[range]),
            Self::Bf16(values) => {
                for (out, &value) in out.iter_mut().zip(&values[range]) {
                    *out = from_bf16(value);
                }
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
        }
    }
}

/// A transformer block.
struct Layer {
    attention_norm: Vec<f32>,
    query_key_value: Matrix,
    query_key_value_bias: Vec<f32>,
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
    projection: Matrix,
    projection_bias: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    gate_and_up: Matrix,
    down: Matrix,
}

/// The AliTok generator with packed weights (`generator::reference::Generator` is its reference).
///
/// It is immutable; what it has seen of some sequences is in a [`Session`].
pub struct Generator {
    config: GeneratorConfig,
    precision: Precision,
    kernels: &'static Kernels,
    pool: Arc<Pool>,
    embedding: Table,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    output: Matrix,
    output_bias: Vec<f32>,
    rotary: Rotary,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { config, precision, kernels, .. } = self;
        write!(formatter, "Generator {{ {config:?}, {precision:?}, {kernels:?} }}")
    }
}

impl Generator {
    /// Packs the weights of a generator of this valid architecture.
    ///
    /// # Errors
    /// If the file is damaged, a tensor is missing, superfluous or mis-shaped, or there is no memory.
    pub fn load(
        weights: impl Into<Weights>,
        config: &GeneratorConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        let packing = Arc::clone(&pool);
        weights.into().build(
            &packing,
            |_| true,
            |tensors| Self::build(tensors, config, precision, pool),
        )
    }

    fn build(
        tensors: &mut Tensors<'_>,
        config: &GeneratorConfig,
        precision: Precision,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        let kernels = tensors.kernels;
        let (width, hidden, head) = (config.width, config.hidden(), config.head());
        let mixed = width + 2 * config.key_value_width();
        let mut layers = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            // Rounding hurts the first and the last block most.
            let is_end = layer == 0 || layer + 1 == config.layers;
            let precision = if is_end { precision.at_least_int8() } else { precision };
            let mut matrix = |parts: &[&str], outputs, inputs| {
                let names: Vec<_> =
                    parts.iter().map(|part| name(&format!("{part}.weight"))).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                tensors.matrix(&names, [outputs, inputs], precision)
            };
            let query_key_value = matrix(&["attention.query_key_value"], mixed, width)?;
            let projection = matrix(&["attention.projection"], width, width)?;
            let gate_and_up = matrix(&["feed_forward.gate", "feed_forward.up"], hidden, width)?;
            let down = matrix(&["feed_forward.down"], width, hidden)?;
            let mut vector = |part: &str, length| tensors.tensor(&name(part), &[length]);
            layers.push(Layer {
                attention_norm: vector("attention_norm.weight", width),
                query_key_value,
                query_key_value_bias: vector("attention.query_key_value.bias", mixed),
                query_norm: vector("attention.query_norm.weight", head),
                key_norm: vector("attention.key_norm.weight", head),
                projection,
                projection_bias: vector("attention.projection.bias", width),
                feed_forward_norm: vector("feed_forward_norm.weight", width),
                gate_and_up,
                down,
            });
        }
        let softer = precision.at_least_bf16();
        let of_output = if precision == Precision::Int4 { Precision::Int8 } else { softer };
        let output = tensors.matrix(&["output.weight"], [config.codes, width], of_output)?;
        Ok(Self {
            embedding: Table::new(
                tensors.tensor("embedding.weight", &[config.vocabulary().len(), width]),
                softer,
            ),
            layers,
            norm: tensors.tensor("norm.weight", &[width]),
            output,
            output_bias: tensors.tensor("output.bias", &[config.codes]),
            rotary: Rotary::new(&config.layout, head),
            config: config.clone(),
            precision,
            kernels,
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

    /// The instruction set that was found.
    pub fn instruction_set(&self) -> &'static str {
        self.kernels.name
    }

    /// The threads that it computes on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers
            .iter()
            .flat_map(|layer| {
                [&layer.query_key_value, &layer.projection, &layer.gate_and_up, &layer.down]
            })
            .chain([&self.output])
    }

    /// Bytes of all weights that a step reads, without the embedding, of which it reads a row.
    pub fn streamed_bytes(&self) -> usize {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.streamed_bytes() + self.embedding.bytes()
    }

    /// Multiplications of one row with all weights.
    pub fn multiplications(&self) -> usize {
        self.matrices().map(Matrix::multiplications).sum()
    }

    /// Bytes of keys and values of one position of one sequence.
    pub fn position_bytes(&self) -> usize {
        let precision = self.precision.at_least_int8();
        let numbers = precision.bytes(self.config.key_value_width());
        let heads = self.config.key_value_heads();
        let scales = if precision == Precision::Int8 { 4 * heads } else { 0 };
        2 * self.config.layers * (numbers + scales)
    }

    /// Room for this many sequences side by side, with conditions of one id: classes.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub fn session(&self, slots: usize) -> Result<Session, GenerateError> {
        self.session_after(1, slots)
    }

    /// Room for this many sequences side by side, with conditions of up to `condition` ids.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub fn session_after(&self, condition: usize, slots: usize) -> Result<Session, GenerateError> {
        let shape = HeadShape::new(&self.config, condition);
        let head = match self.precision {
            Precision::F32 => shape.bytes::<f32>(),
            Precision::Bf16 => shape.bytes::<Pair>(),
            Precision::Int8 | Precision::Int4 => shape.bytes::<i32>(),
        };
        let caches = Arena::default()
            .zeros(self.config.layers * slots * self.config.key_value_heads() * head)
            .map_err(|_| GenerateError::Memory { sequences: slots })?;
        Ok(Session {
            slots,
            shape,
            caches,
            rows: Vec::new(),
            firsts: vec![(0, 0); slots],
            wanted: Vec::new(),
            x: Vec::new(),
            activations: Activations::new(&self.pool),
            query_key_value: Outputs::default(),
            mixed: Vec::new(),
            out: Outputs::default(),
            hidden: Outputs::default(),
            logits: Outputs::default(),
            scratch: (0..self.pool.threads())
                .map(|_| Scratch::new(self.config.head(), shape.capacity))
                .collect(),
        })
    }

    /// Decodes the next positions of some sequences, all of them in one pass over the weights.
    /// Logits of those that want them are then in the session, in the order of `steps`.
    ///
    /// A sequence's logits are the same to the bit whatever other sequences there are, and
    /// whether its positions come one by one or several at a time.
    ///
    /// # Panics
    /// If a slot or an identifier is out of range, a slot stands in two steps, a step has no
    /// position or more than [`POSITIONS`], or reaches beyond a whole sequence.
    pub fn step(&self, session: &mut Session, steps: &[Step<'_>]) {
        let width = self.config.width;
        session.rows.clear();
        session.wanted.clear();
        session.firsts.fill((0, 0));
        for step in steps {
            let count = step.ids.len();
            assert!((1..=POSITIONS).contains(&count), "{count} positions in one step");
            let tokens = (step.start + count).saturating_sub(step.condition);
            assert!(tokens < self.config.layout.len(), "a sequence has an end");
            assert!(step.start + count <= session.shape.positions, "room for the condition");
            assert_eq!(session.firsts[step.slot].1, 0, "one step a slot");
            session.firsts[step.slot] = (session.rows.len(), count);
            for (offset, &id) in step.ids.iter().enumerate() {
                let position = step.start + offset;
                let rotation = Rotary::row(step.condition, position);
                session.rows.push(Row { slot: step.slot, offset, position, rotation });
                let at = (session.rows.len() - 1) * width;
                grow(&mut session.x, at + width, 0.0);
                self.embedding.copy(id, &mut session.x[at..at + width]);
                if offset + step.logits >= count {
                    session.wanted.push(session.rows.len() - 1);
                }
            }
        }
        match self.precision {
            Precision::F32 => self.layers::<f32>(session),
            Precision::Bf16 => self.layers::<Pair>(session),
            Precision::Int8 | Precision::Int4 => self.layers::<i32>(session),
        }
        let Session { x, wanted, activations, logits, .. } = session;
        let norm = self.kernels.rows.rms_norm;
        activations.set(&self.pool, &self.output, wanted.len(), |index, out| {
            let x = &x[wanted[index] * width..][..width];
            norm(x, &self.norm, NORM_EPSILON as f32, out);
        });
        let bias = Finish::Bias(&self.output_bias);
        self.output.product(&self.pool, activations, bias, logits);
    }

    fn layers<E: Entries>(&self, session: &mut Session) {
        let (width, heads, head) =
            (self.config.width, self.config.key_value_heads(), self.config.head());
        // Query heads that share a head of keys and values.
        let group = self.config.heads / heads;
        let Session { shape, rows, firsts, x, activations, query_key_value, mixed, .. } = session;
        let (out, hidden, scratch) = (&mut session.out, &mut session.hidden, &mut session.scratch);
        let (pool, count, epsilon) = (&*self.pool, rows.len(), NORM_EPSILON as f32);
        let x = &mut x[..count * width];
        let norm = self.kernels.rows.rms_norm;
        // Slots beyond the last one in use are not looked at.
        let slots = rows.iter().map(|row| row.slot + 1).max().unwrap_or(0);
        let most = firsts.iter().map(|&(_, count)| count).max().unwrap_or(0);
        let (units, unit_len) = (slots * heads, group * most * head);
        grow(mixed, units * unit_len, 0.0);
        let entries = shape.entries::<E>();
        let caches: &mut [E] = bytemuck::cast_slice_mut(&mut session.caches);
        let caches = caches.chunks_exact_mut(session.slots * heads * entries);
        for (index, (layer, cache)) in self.layers.iter().zip(caches).enumerate() {
            // What the layer before has made is added on the way into this one.
            activations.set_from(
                pool,
                &layer.query_key_value,
                count,
                (&mut *x, width),
                |row, x, normed| {
                    if index > 0 {
                        out.add_to(row, x);
                    }
                    norm(x, &layer.attention_norm, epsilon, normed);
                },
            );
            let bias = Finish::Bias(&layer.query_key_value_bias);
            layer.query_key_value.product(pool, activations, bias, query_key_value);

            let seen: usize = rows.iter().map(|row| row.position + 1).sum();
            pool.for_work(2 * seen * width).pieces_of_two(
                (&mut cache[..units * entries], entries),
                (&mut mixed[..units * unit_len], unit_len),
                scratch,
                |unit, memory, mixed, scratch| {
                    let (first, count) = firsts[unit / heads];
                    let rows = &rows[first..first + count];
                    let attention = HeadAttention {
                        kernels: &self.kernels.rows,
                        layer,
                        rotary: &self.rotary,
                        shape: *shape,
                        query_key_value,
                        index: unit % heads,
                        group,
                        width,
                        key_value_width: heads * head,
                    };
                    attention.run::<E>(first, rows, memory, (mixed, most), scratch);
                },
            );
            activations.set_pieces(pool, &layer.projection, count, |row, put| {
                let Row { slot, offset, .. } = rows[row];
                for part in 0..heads * group {
                    let at = ((slot * heads * group + part) * most + offset) * head;
                    put(part * head, &mixed[at..at + head]);
                }
            });
            let bias = Finish::Bias(&layer.projection_bias);
            layer.projection.product(pool, activations, bias, out);

            activations.set_from(
                pool,
                &layer.gate_and_up,
                count,
                (&mut *x, width),
                |row, x, normed| {
                    out.add_to(row, x);
                    norm(x, &layer.feed_forward_norm, epsilon, normed);
                },
            );
            layer.gate_and_up.product(pool, activations, Finish::SiluGate, hidden);
            activations.set_pieces(pool, &layer.down, count, |row, put| hidden.each(row, put));
            layer.down.product(pool, activations, Finish::Plain, out);
        }
        if !self.layers.is_empty() {
            out.add_to_all(pool, x, width);
        }
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
        self.session_after(condition, slots)
    }

    fn step(&self, session: &mut Session, steps: &[Step<'_>]) {
        Generator::step(self, session, steps);
    }

    fn logits(&self, session: &Session, index: usize, out: &mut [f32]) {
        session.logits(index, out);
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}

#[derive(Debug, Clone, Copy)]
struct Row {
    slot: usize,
    offset: usize,
    position: usize,
    /// Its row in the tables of rotary positions.
    rotation: usize,
}

/// What one head of one layer keeps of one sequence.
#[derive(Debug, Clone, Copy)]
struct HeadShape {
    layout: HeadLayout,
    /// Positions of a sequence.
    positions: usize,
    /// Positions there is room for, in whole blocks.
    capacity: usize,
}

impl HeadShape {
    fn new(config: &GeneratorConfig, condition: usize) -> Self {
        // The condition and all tokens but the last, which predicts nothing.
        let positions = condition + config.layout.len() - 1;
        Self {
            layout: HeadLayout { head: config.head() },
            positions,
            capacity: positions.next_multiple_of(BLOCK),
        }
    }

    fn entries<E: Entries>(&self) -> usize {
        self.capacity / BLOCK * self.layout.block::<E>()
    }

    fn bytes<E: Entries>(&self) -> usize {
        self.entries::<E>() * size_of::<E>()
    }
}

/// What a [`Generator`] has seen of some sequences, and the memory it works in. After the first
/// steps nothing is allocated any more.
pub struct Session {
    slots: usize,
    shape: HeadShape,
    /// For each layer, slot and head of keys and values, blocks of a [`HeadLayout`].
    caches: Piece,
    rows: Vec<Row>,
    /// For each slot its first row in this step, and how many it has.
    firsts: Vec<(usize, usize)>,
    /// Rows whose logits are wanted.
    wanted: Vec<usize>,
    /// The residual stream, `[rows, width]`.
    x: Vec<f32>,
    activations: Activations,
    query_key_value: Outputs,
    /// Mixed values, `[slots, heads, positions, head]`.
    mixed: Vec<f32>,
    out: Outputs,
    hidden: Outputs,
    logits: Outputs,
    scratch: Vec<Scratch>,
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

    /// Copies the `index`-th wanted logits of the last step, one a code.
    ///
    /// # Panics
    /// If there are fewer, or `out` is not as long as there are codes.
    pub fn logits(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.wanted.len(), "logits {index} of {}", self.wanted.len());
        self.logits.copy(index, 0, out);
    }
}

/// A thread's memory for one head.
struct Scratch {
    /// Of numbers that do not lie together.
    copy: Vec<f32>,
    /// A query or key after norm and rotation.
    ready: Vec<f32>,
    /// A key and a value as they are stored.
    rounded: [Vec<u32>; 2],
    scores: Vec<f32>,
}

impl Scratch {
    fn new(head: usize, capacity: usize) -> Self {
        let zeros = |length| vec![0.0; length];
        Self {
            copy: zeros(head),
            ready: zeros(head),
            rounded: [vec![0; head], vec![0; head]],
            scores: zeros(capacity),
        }
    }
}

/// Attention of the query heads that share one head of keys and values, for some positions of one
/// sequence.
struct HeadAttention<'a> {
    kernels: &'a RowKernels,
    layer: &'a Layer,
    rotary: &'a Rotary,
    shape: HeadShape,
    query_key_value: &'a Outputs,
    /// Number of the head of keys and values.
    index: usize,
    /// Query heads that share it.
    group: usize,
    /// Width of all queries.
    width: usize,
    /// Width of all keys, or all values.
    key_value_width: usize,
}

impl HeadAttention<'_> {
    /// Norm of a query or key, then its rotation.
    fn prepare(&self, weight: &[f32], rotation: usize, x: &[f32], out: &mut [f32]) {
        let (cosines, sines) = (self.rotary.cosines(rotation), self.rotary.sines(rotation));
        (self.kernels.norm_rotate)(x, weight, NORM_EPSILON as f32, cosines, sines, out);
    }

    fn run<E: Entries>(
        &self,
        first: usize,
        rows: &[Row],
        memory: &mut [E],
        (mixed, most): (&mut [f32], usize),
        scratch: &mut Scratch,
    ) {
        let layout = self.shape.layout;
        let ahead = memory.len();
        let Scratch { copy, ready, rounded, scores } = scratch;
        let rounded = rounded.each_mut().map(|numbers| -> &mut [E::Number] {
            &mut bytemuck::cast_slice_mut(numbers)[..layout.head]
        });
        // First all keys and values, then all queries: positions of one step see each other.
        let key_start = self.width + self.index * layout.head;
        for (row, &Row { position, rotation, .. }) in rows.iter().enumerate() {
            let key = self.query_key_value.get(first + row, key_start, copy);
            self.prepare(&self.layer.key_norm, rotation, key, ready);
            let key_scale = E::round(self.kernels, ready, rounded[0]);
            let value_start = key_start + self.key_value_width;
            let value = self.query_key_value.get(first + row, value_start, copy);
            let scales = [key_scale, E::round(self.kernels, value, rounded[1])];
            layout.keep(memory, position, [&*rounded[0], &*rounded[1]], scales);
        }
        let attend = E::attend(self.kernels);
        let heads = (self.index * self.group..).take(self.group);
        for (query_head, mixed) in heads.zip(mixed.chunks_exact_mut(most * layout.head)) {
            let outs = mixed.chunks_exact_mut(layout.head);
            for (row, (&Row { position, rotation, .. }, out)) in rows.iter().zip(outs).enumerate() {
                let query = query_head * layout.head;
                let query = self.query_key_value.get(first + row, query, copy);
                self.prepare(&self.layer.query_norm, rotation, query, ready);
                let memory = Memory { entries: memory, length: position + 1, ahead };
                attend(ready, memory, scores, out);
            }
        }
    }
}
