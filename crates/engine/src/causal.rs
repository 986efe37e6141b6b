//! Cached decoding of many sequences by a causal transformer, whose keys and values may be shared by
//! several query heads. The generator and the language model are built on it.

use std::io;

use generator::GenerateError;
use numerics::{from_bf16, to_bf16};

use crate::{
    kernels::{BLOCK, Entries, HeadLayout, Kernels, Memory, Pair, RowKernels},
    matrix::{Activations, Finish, Matrix, Outputs, Precision, grow},
    memory::{Arena, Piece},
    parallel::Pool,
    sequence::Step,
    tensors::Tensors,
};

/// Vectors by id.
pub(crate) enum Table {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Table {
    pub(crate) fn new(values: Vec<f32>, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(values),
            _ => Self::Bf16(values.into_iter().map(to_bf16).collect()),
        }
    }

    pub(crate) fn copy(&self, id: usize, out: &mut [f32]) {
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

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
        }
    }
}

/// The sizes of a causal transformer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) key_value_heads: usize,
    pub(crate) hidden: usize,
    pub(crate) norm_epsilon: f32,
    /// Whether queries and keys go through a norm before they are rotated.
    pub(crate) query_key_norms: bool,
    /// Whether the projection of what attention mixed has a bias.
    pub(crate) projection_bias: bool,
}

impl Shape {
    const fn head(&self) -> usize {
        self.width / self.heads
    }

    const fn key_value_width(&self) -> usize {
        self.key_value_heads * self.head()
    }
}

/// A transformer block.
struct Layer {
    attention_norm: Vec<f32>,
    query_key_value: Matrix,
    query_key_value_bias: Vec<f32>,
    /// Weights of the norms of queries and of keys.
    query_key_norms: Option<[Vec<f32>; 2]>,
    projection: Matrix,
    projection_bias: Option<Vec<f32>>,
    feed_forward_norm: Vec<f32>,
    gate_and_up: Matrix,
    down: Matrix,
}

/// The blocks of a transformer, with packed weights, and the norm after them.
pub(crate) struct Transformer {
    pub(crate) shape: Shape,
    precision: Precision,
    kernels: &'static Kernels,
    layers: Vec<Layer>,
    norm: Vec<f32>,
}

impl Transformer {
    /// Packs `blocks.N.…` and `norm.weight`.
    pub(crate) fn build(
        tensors: &mut Tensors<'_>,
        shape: Shape,
        precision: Precision,
    ) -> io::Result<Self> {
        let kernels = tensors.kernels;
        let (width, hidden, head) = (shape.width, shape.hidden, shape.head());
        let mixed = width + 2 * shape.key_value_width();
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            // Rounding hurts the first and the last block most.
            let is_end = layer == 0 || layer + 1 == shape.layers;
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
                query_key_norms: shape.query_key_norms.then(|| {
                    ["attention.query_norm.weight", "attention.key_norm.weight"]
                        .map(|part| vector(part, head))
                }),
                projection,
                projection_bias: shape
                    .projection_bias
                    .then(|| vector("attention.projection.bias", width)),
                feed_forward_norm: vector("feed_forward_norm.weight", width),
                gate_and_up,
                down,
            });
        }
        let norm = tensors.tensor("norm.weight", &[width]);
        Ok(Self { shape, precision, kernels, layers, norm })
    }

    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(|layer| {
            [&layer.query_key_value, &layer.projection, &layer.gate_and_up, &layer.down]
        })
    }

    /// Bytes of keys and values of one position of one sequence.
    pub(crate) fn position_bytes(&self) -> usize {
        let precision = self.precision.at_least_int8();
        let numbers = precision.bytes(self.shape.key_value_width());
        let heads = self.shape.key_value_heads;
        let scales = if precision == Precision::Int8 { 4 * heads } else { 0 };
        2 * self.shape.layers * (numbers + scales)
    }

    /// Room for this many sequences side by side, of up to `positions` positions.
    ///
    /// # Errors
    /// If the operating system has no memory for that.
    pub(crate) fn session(
        &self,
        pool: &Pool,
        positions: usize,
        slots: usize,
    ) -> Result<Session, GenerateError> {
        let heads = self.shape.key_value_heads;
        let memory = HeadShape::new(self.shape.head(), positions);
        let block = match self.precision {
            Precision::F32 => memory.block_bytes::<f32>(),
            Precision::Bf16 => memory.block_bytes::<Pair>(),
            Precision::Int8 | Precision::Int4 => memory.block_bytes::<i32>(),
        };
        let caches = Arena::default()
            .zeros(self.shape.layers * slots * heads * memory.blocks() * block)
            .map_err(|_| GenerateError::Memory { sequences: slots })?;
        Ok(Session {
            slots,
            heads,
            shape: memory,
            block_bytes: block,
            caches,
            rows: Vec::new(),
            rotations: Vec::new(),
            firsts: vec![(0, 0); slots],
            wanted: Vec::new(),
            x: Vec::new(),
            activations: Activations::new(pool),
            query_key_value: Outputs::default(),
            mixed: Vec::new(),
            out: Outputs::default(),
            hidden: Outputs::default(),
            logits: Outputs::default(),
            scratch: (0..pool.threads())
                .map(|_| Scratch::new(self.shape.head(), memory.capacity))
                .collect(),
        })
    }

    /// Takes in the positions of some sequences. `enter` writes what stands for an identifier, its
    /// vector, and the cosines and sines of its position, for each of a head's numbers.
    ///
    /// # Panics
    /// If a slot is out of range or stands in two steps, a step has no position or more than `most`, or
    /// reaches beyond the session's room.
    pub(crate) fn enter(
        &self,
        session: &mut Session,
        steps: &[Step<'_>],
        most: usize,
        enter: impl Fn(&Step<'_>, Entry<'_>),
    ) {
        let (width, head) = (self.shape.width, self.shape.head());
        session.rows.clear();
        session.wanted.clear();
        session.firsts.fill((0, 0));
        for step in steps {
            let count = step.ids.len();
            assert!((1..=most).contains(&count), "{count} positions in one step");
            assert!(step.start + count <= session.shape.positions, "a session has an end");
            assert_eq!(session.firsts[step.slot].1, 0, "one step a slot");
            session.firsts[step.slot] = (session.rows.len(), count);
            for (offset, &id) in step.ids.iter().enumerate() {
                let position = step.start + offset;
                let row = session.rows.len();
                session.rows.push(Row { slot: step.slot, offset, position });
                grow(&mut session.x, (row + 1) * width, 0.0);
                grow(&mut session.rotations, (row + 1) * 2 * head, 0.0);
                let x = &mut session.x[row * width..][..width];
                let (cosines, sines) =
                    session.rotations[row * 2 * head..][..2 * head].split_at_mut(head);
                enter(step, Entry { id, position, x, cosines, sines });
                if offset + step.logits >= count {
                    session.wanted.push(row);
                }
            }
        }
    }

    /// Runs the positions that were taken in through all blocks. All of them read the weights once.
    pub(crate) fn run(&self, pool: &Pool, session: &mut Session) {
        match self.precision {
            Precision::F32 => self.layers::<f32>(pool, session),
            Precision::Bf16 => self.layers::<Pair>(pool, session),
            Precision::Int8 | Precision::Int4 => self.layers::<i32>(pool, session),
        }
    }

    /// Takes the rows whose logits are wanted through the norm, for products with `matrix`.
    pub(crate) fn finish(&self, pool: &Pool, session: &mut Session, matrix: &Matrix) {
        let Session { x, wanted, activations, .. } = session;
        let (width, epsilon) = (self.shape.width, self.shape.norm_epsilon);
        let norm = self.kernels.rows.rms_norm;
        activations.set(pool, matrix, wanted.len(), |index, out| {
            norm(&x[wanted[index] * width..][..width], &self.norm, epsilon, out);
        });
    }

    fn layers<E: Entries>(&self, pool: &Pool, session: &mut Session) {
        let (width, heads, head) =
            (self.shape.width, self.shape.key_value_heads, self.shape.head());
        // Query heads that share a head of keys and values.
        let group = self.shape.heads / heads;
        let Session {
            shape, rows, rotations, firsts, x, activations, query_key_value, mixed, ..
        } = session;
        let (out, hidden, scratch) = (&mut session.out, &mut session.hidden, &mut session.scratch);
        let (count, epsilon) = (rows.len(), self.shape.norm_epsilon);
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
                        epsilon,
                        rotations,
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
            let bias = layer.projection_bias.as_deref().map_or(Finish::Plain, Finish::Bias);
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

#[derive(Debug, Clone, Copy)]
struct Row {
    slot: usize,
    offset: usize,
    position: usize,
}

/// What stands for one identifier of a step, to be written.
pub(crate) struct Entry<'a> {
    pub(crate) id: usize,
    /// Counted from the start of the condition.
    pub(crate) position: usize,
    /// Its vector.
    pub(crate) x: &'a mut [f32],
    /// Each rotated pair's cosine twice.
    pub(crate) cosines: &'a mut [f32],
    /// Each rotated pair's sine twice, the first one negated.
    pub(crate) sines: &'a mut [f32],
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
    fn new(head: usize, positions: usize) -> Self {
        Self { layout: HeadLayout { head }, positions, capacity: positions.next_multiple_of(BLOCK) }
    }

    fn blocks(&self) -> usize {
        self.capacity / BLOCK
    }

    fn entries<E: Entries>(&self) -> usize {
        self.blocks() * self.layout.block::<E>()
    }

    fn block_bytes<E: Entries>(&self) -> usize {
        self.layout.block::<E>() * size_of::<E>()
    }
}

/// What a model has seen of some sequences, and the memory it works in. After the first
/// steps nothing is allocated any more.
pub struct Session {
    slots: usize,
    /// Heads of keys and values in each layer.
    heads: usize,
    shape: HeadShape,
    /// Bytes of one head's block of positions.
    block_bytes: usize,
    /// For each layer, slot and head of keys and values, blocks of a [`HeadLayout`].
    caches: Piece,
    rows: Vec<Row>,
    /// For each row its cosines and its sines, `[rows, 2, head]`.
    rotations: Vec<f32>,
    /// For each slot its first row in this step, and how many it has.
    firsts: Vec<(usize, usize)>,
    /// Rows whose logits are wanted.
    pub(crate) wanted: Vec<usize>,
    /// The residual stream, `[rows, width]`.
    x: Vec<f32>,
    pub(crate) activations: Activations,
    query_key_value: Outputs,
    /// Mixed values, `[slots, heads, positions, head]`.
    mixed: Vec<f32>,
    out: Outputs,
    pub(crate) hidden: Outputs,
    pub(crate) logits: Outputs,
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

    /// Copies what slot `from` has seen of its first positions to slot `to`.
    ///
    /// # Panics
    /// If there are no such slots, or fewer positions.
    pub fn share(&mut self, from: usize, to: usize, positions: usize) {
        assert!(from < self.slots && to < self.slots, "slots {from} and {to} of {}", self.slots);
        assert!(positions <= self.shape.positions, "a session has an end");
        let head = self.shape.blocks() * self.block_bytes;
        let bytes = positions.div_ceil(BLOCK) * self.block_bytes;
        for layer in self.caches.chunks_exact_mut(self.slots * self.heads * head) {
            for index in 0..self.heads {
                let start = (from * self.heads + index) * head;
                layer.copy_within(start..start + bytes, (to * self.heads + index) * head);
            }
        }
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
    epsilon: f32,
    /// Of all rows of the step.
    rotations: &'a [f32],
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
    /// Norm of a query or key, where there is one, then its rotation.
    fn prepare(&self, norm: Option<&Vec<f32>>, row: usize, x: &[f32], out: &mut [f32]) {
        let head = self.shape.layout.head;
        let (cosines, sines) = self.rotations[row * 2 * head..][..2 * head].split_at(head);
        match norm {
            Some(weight) => {
                (self.kernels.norm_rotate)(x, weight, self.epsilon, cosines, sines, out);
            }
            None => (self.kernels.rotate)(x, cosines, sines, out),
        }
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
        let norms = self.layer.query_key_norms.as_ref();
        let (query_norm, key_norm) = (norms.map(|norms| &norms[0]), norms.map(|norms| &norms[1]));
        let ahead = memory.len();
        let Scratch { copy, ready, rounded, scores } = scratch;
        let rounded = rounded.each_mut().map(|numbers| -> &mut [E::Number] {
            &mut bytemuck::cast_slice_mut(numbers)[..layout.head]
        });
        // First all keys and values, then all queries: positions of one step see each other.
        let key_start = self.width + self.index * layout.head;
        for (row, &Row { position, .. }) in rows.iter().enumerate() {
            let key = self.query_key_value.get(first + row, key_start, copy);
            self.prepare(key_norm, first + row, key, ready);
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
            for (row, (&Row { position, .. }, out)) in rows.iter().zip(outs).enumerate() {
                let query = query_head * layout.head;
                let query = self.query_key_value.get(first + row, query, copy);
                self.prepare(query_norm, first + row, query, ready);
                let memory = Memory { entries: memory, length: position + 1, ahead };
                attend(ready, memory, scores, out);
            }
        }
    }
}
