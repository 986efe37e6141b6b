//! The vision transformer of the tokenizer's halves, for one picture at a time.

use std::io;

use tokenizer::{NORM_EPSILON, TransformerConfig};

use crate::{
    kernels::{Bf16Product, Fetch, Kernels, Rows, TILE_ROWS, Tile},
    matrix::{Activations, Finish, Matrix, Outputs, Precision, grow},
    parallel::Pool,
    tensors::Tensors,
};

/// A linear layer with a bias.
pub(crate) struct Linear {
    matrix: Matrix,
    bias: Vec<f32>,
}

impl Linear {
    pub(crate) fn build(
        tensors: &mut Tensors<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        precision: Precision,
    ) -> io::Result<Self> {
        let matrix = tensors.matrix(&[&format!("{name}.weight")], [outputs, inputs], precision)?;
        Ok(Self { matrix, bias: tensors.tensor(&format!("{name}.bias"), &[outputs]) })
    }

    pub(crate) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    pub(crate) fn product(&self, pool: &Pool, x: &Activations, out: &mut Outputs) {
        self.matrix.product(pool, x, Finish::Bias(&self.bias), out);
    }

    pub(crate) fn product_gelu(&self, pool: &Pool, x: &Activations, out: &mut Outputs) {
        self.matrix.product(pool, x, Finish::Gelu(&self.bias), out);
    }
}

/// A layer norm.
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl LayerNorm {
    pub(crate) fn build(tensors: &mut Tensors<'_>, name: &str, width: usize) -> Self {
        Self {
            weight: tensors.tensor(&format!("{name}.weight"), &[width]),
            bias: tensors.tensor(&format!("{name}.bias"), &[width]),
        }
    }

    pub(crate) fn run(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        (kernels.rows.layer_norm)(x, &self.weight, &self.bias, NORM_EPSILON as f32, out);
    }
}

struct Block {
    attention_norm: LayerNorm,
    query_key_value: Linear,
    projection: Linear,
    feed_forward_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

/// Norm, blocks and norm of a vision transformer.
pub(crate) struct Transformer {
    config: TransformerConfig,
    precision: Precision,
    kernels: &'static Kernels,
    input_norm: LayerNorm,
    blocks: Vec<Block>,
    output_norm: LayerNorm,
    causal: bool,
}

/// Memory that encoding and decoding work in; after the first picture nothing is allocated any
/// more. Of use for one picture at a time.
pub struct Workspace {
    /// The residual stream, `[rows, width]`.
    pub(crate) x: Vec<f32>,
    pub(crate) activations: Activations,
    pub(crate) out: Outputs,
    query_key_value: Outputs,
    hidden: Outputs,
    attention_f32: AttentionMemory<f32>,
    attention_bf16: AttentionMemory<u16>,
    /// `[heads, rows, head]`.
    mixed: Vec<f32>,
    /// A row for each thread.
    scratch: Vec<Vec<f32>>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Workspace")
    }
}

/// What attention works in, where it multiplies numbers of this kind.
struct AttentionMemory<E> {
    /// For each head its keys, transposed, and its values, both as panels of weights.
    memory: Vec<E>,
    scratch: Vec<Scratch<E>>,
}

impl<E: Clone + Default> AttentionMemory<E> {
    fn new(pool: &Pool) -> Self {
        Self { memory: Vec::new(), scratch: vec![Scratch::default(); pool.threads()] }
    }
}

/// A thread's memory: queries, scores and weights of one tile.
#[derive(Clone, Default)]
struct Scratch<E> {
    row: Vec<f32>,
    rounded: Vec<E>,
    queries: Vec<E>,
    scores: Vec<f32>,
    weights: Vec<E>,
}

/// How attention multiplies: in f32, or in bf16 where the processor has an instruction for it.
struct AttentionProduct<E> {
    /// Inputs that a product reads together.
    group: usize,
    product: fn(Rows<'_, E>, &[E], Fetch, &mut [f32]),
    round: fn(&[f32], &mut [E]),
}

impl Workspace {
    /// For work on this pool.
    pub fn new(pool: &Pool) -> Self {
        Self {
            x: Vec::new(),
            activations: Activations::new(pool),
            out: Outputs::default(),
            query_key_value: Outputs::default(),
            hidden: Outputs::default(),
            attention_f32: AttentionMemory::new(pool),
            attention_bf16: AttentionMemory::new(pool),
            mixed: Vec::new(),
            scratch: vec![Vec::new(); pool.threads()],
        }
    }
}

/// Queries of one head that are one unit of work.
const QUERIES: usize = 8 * TILE_ROWS;

impl Transformer {
    pub(crate) fn build(
        tensors: &mut Tensors<'_>,
        name: &str,
        config: TransformerConfig,
        precision: Precision,
        causal: bool,
    ) -> io::Result<Self> {
        let width = config.width;
        let mut blocks = Vec::with_capacity(config.layers);
        for block in 0..config.layers {
            let name = format!("{name}.blocks.{block}");
            let mut linear = |part: &str, inputs, outputs| {
                Linear::build(tensors, &format!("{name}.{part}"), inputs, outputs, precision)
            };
            let query_key_value = linear("attention.query_key_value", width, 3 * width)?;
            let projection = linear("attention.projection", width, width)?;
            let up = linear("feed_forward.up", width, config.hidden())?;
            let down = linear("feed_forward.down", config.hidden(), width)?;
            let mut norm = |part| LayerNorm::build(tensors, &format!("{name}.{part}"), width);
            let attention_norm = norm("attention_norm");
            let feed_forward_norm = norm("feed_forward_norm");
            blocks.push(Block {
                attention_norm,
                query_key_value,
                projection,
                feed_forward_norm,
                up,
                down,
            });
        }
        Ok(Self {
            config,
            precision,
            kernels: tensors.kernels,
            input_norm: LayerNorm::build(tensors, &format!("{name}.input_norm"), width),
            blocks,
            output_norm: LayerNorm::build(tensors, &format!("{name}.output_norm"), width),
            causal,
        })
    }

    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.blocks
            .iter()
            .flat_map(|block| [&block.query_key_value, &block.projection, &block.up, &block.down])
            .map(Linear::matrix)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Multiplications for a picture of this many rows.
    pub(crate) fn multiplications(&self, rows: usize) -> usize {
        let weights: usize = self.matrices().map(Matrix::multiplications).sum();
        rows * weights + 2 * self.config.layers * rows * rows * self.config.width
    }

    /// The norm of a row of the result.
    pub(crate) fn output(&self, x: &[f32], out: &mut [f32]) {
        self.output_norm.run(self.kernels, x, out);
    }

    /// Runs the residual stream `[rows, width]` in `work.x` through norm and blocks.
    pub(crate) fn run(&self, pool: &Pool, rows: usize, work: &mut Workspace) {
        let width = self.config.width;
        let Workspace { x, activations, out, query_key_value, hidden, mixed, scratch, .. } = work;
        let x = &mut x[..rows * width];
        pool.pieces(x, width, scratch, |_, row, scratch| {
            grow(scratch, width, 0.0);
            scratch[..width].copy_from_slice(row);
            self.input_norm.run(self.kernels, &scratch[..width], row);
        });
        for block in &self.blocks {
            activations.set(pool, block.query_key_value.matrix(), rows, |row, out| {
                block.attention_norm.run(self.kernels, &x[row * width..][..width], out);
            });
            block.query_key_value.product(pool, activations, query_key_value);
            match (self.precision, self.kernels.product_bf16) {
                (Precision::F32, _) | (_, Bf16Product::Wide(_)) => {
                    let product = AttentionProduct {
                        group: 1,
                        product: self.kernels.product_f32,
                        round: |row, out| out.copy_from_slice(row),
                    };
                    let work = &mut work.attention_f32;
                    self.attend(&product, pool, rows, query_key_value, work, mixed);
                }
                (_, Bf16Product::Pairs(product)) => {
                    let product =
                        AttentionProduct { group: 2, product, round: self.kernels.rows.round };
                    let work = &mut work.attention_bf16;
                    self.attend(&product, pool, rows, query_key_value, work, mixed);
                }
            }
            let head = width / self.config.heads;
            activations.set_pieces(pool, block.projection.matrix(), rows, |row, put| {
                for index in 0..self.config.heads {
                    let at = (index * rows.next_multiple_of(QUERIES) + row) * head;
                    put(index * head, &mixed[at..at + head]);
                }
            });
            block.projection.product(pool, activations, out);
            out.add_to_all(pool, x, width);
            activations.set(pool, block.up.matrix(), rows, |row, out| {
                block.feed_forward_norm.run(self.kernels, &x[row * width..][..width], out);
            });
            block.up.product_gelu(pool, activations, hidden);
            activations
                .set_pieces(pool, block.down.matrix(), rows, |row, put| hidden.each(row, put));
            block.down.product(pool, activations, out);
            out.add_to_all(pool, x, width);
        }
    }

    /// Attention of all rows, by tiles of queries: scores exist for one tile at a time. Keys and
    /// values are weights to the product kernels.
    fn attend<E: Copy + Default + Send + Sync>(
        &self,
        product: &AttentionProduct<E>,
        pool: &Pool,
        rows: usize,
        query_key_value: &Outputs,
        work: &mut AttentionMemory<E>,
        mixed: &mut Vec<f32>,
    ) {
        let &AttentionProduct { group, product, round } = product;
        let AttentionMemory { memory, scratch } = work;
        let (width, heads) = (self.config.width, self.config.heads);
        let head = width / heads;
        // Filled up to whole groups with zeros.
        let (depth, positions) = (head.next_multiple_of(group), rows.next_multiple_of(group));
        let panel = self.kernels.width;
        let key_panels = rows.div_ceil(panel);
        let value_panels = head.div_ceil(panel);
        let keys_len = key_panels * depth * panel;
        let unit = keys_len + value_panels * positions * panel;
        grow(memory, heads * unit, E::default());
        let pool = pool.for_work(rows * rows * width);
        pool.pieces(&mut memory[..heads * unit], unit, scratch, |index, memory, scratch| {
            memory.fill(E::default());
            let (keys, values) = memory.split_at_mut(keys_len);
            grow(&mut scratch.row, head, 0.0);
            grow(&mut scratch.rounded, head, E::default());
            let (number, rounded) = (&mut scratch.row[..head], &mut scratch.rounded[..head]);
            for row in 0..rows {
                query_key_value.copy(row, width + index * head, number);
                round(number, rounded);
                let (panel_keys, lane) = (row / panel * depth * panel, row % panel);
                for (place, number) in rounded.chunks(group).enumerate() {
                    let at = panel_keys + (place * panel + lane) * group;
                    keys[at..at + number.len()].copy_from_slice(number);
                }
                query_key_value.copy(row, 2 * width + index * head, number);
                round(number, rounded);
                for (part, number) in rounded.chunks(panel).enumerate() {
                    let at = (part * positions + row / group * group) * panel + row % group;
                    for (value, &number) in values[at..].iter_mut().step_by(group).zip(number) {
                        *value = number;
                    }
                }
            }
        });
        let memory = &memory[..heads * unit];
        let blocks = rows.div_ceil(QUERIES);
        let length = heads * blocks * QUERIES * head;
        grow(mixed, length, 0.0);
        pool.pieces(&mut mixed[..length], QUERIES * head, scratch, |index, mixed, scratch| {
            let (index, block) = (index / blocks, index % blocks);
            let (keys, values) = memory[index * unit..][..unit].split_at(keys_len);
            let stride = key_panels * panel;
            let Scratch { row: numbers, queries, scores, weights, .. } = scratch;
            grow(numbers, head, 0.0);
            grow(queries, TILE_ROWS * depth, E::default());
            grow(scores, TILE_ROWS * stride, 0.0);
            grow(weights, TILE_ROWS * stride, E::default());
            let last = rows.min((block + 1) * QUERIES);
            let mut first = block * QUERIES;
            let mut mixed = mixed.chunks_mut(TILE_ROWS * head);
            while first < last {
                let count = TILE_ROWS.min(last - first);
                for (row, query) in queries.chunks_exact_mut(depth).take(count).enumerate() {
                    query_key_value.copy(first + row, index * head, &mut numbers[..head]);
                    round(&numbers[..head], &mut query[..head]);
                }
                let seen = if self.causal { first + count } else { rows };
                let mut tile: Tile = [0.0; _];
                let tile_rows = Rows::new(queries, depth, count, depth);
                for (place, keys) in
                    keys.chunks_exact(depth * panel).take(seen.div_ceil(panel)).enumerate()
                {
                    product(tile_rows, keys, Fetch::NOTHING, &mut tile);
                    for (row, tile) in tile.chunks_exact(panel).take(count).enumerate() {
                        scores[row * stride + place * panel..][..panel].copy_from_slice(tile);
                    }
                }
                let seen = seen.next_multiple_of(group);
                let mut inverses = [0.0; TILE_ROWS];
                for (row, scores) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                    let visible = if self.causal { first + row + 1 } else { rows };
                    scores[visible..seen].fill(f32::NEG_INFINITY);
                    let scale = (head as f32).sqrt().recip();
                    inverses[row] = (self.kernels.rows.softmax)(&mut scores[..seen], scale);
                    round(&scores[..seen], &mut weights[row * stride..][..seen]);
                }
                let weights = Rows::new(weights, stride, count, seen);
                let mixed = mixed.next().expect("a block has room for its queries");
                for (part, values) in values.chunks_exact(positions * panel).enumerate() {
                    product(weights, &values[..seen * panel], Fetch::NOTHING, &mut tile);
                    let start = part * panel;
                    let width = panel.min(head - start);
                    for (row, inverse) in inverses.iter().enumerate().take(count) {
                        let out = &mut mixed[row * head + start..][..width];
                        for (out, value) in out.iter_mut().zip(&tile[row * panel..]) {
                            *out = value * inverse;
                        }
                    }
                }
                first += count;
            }
        });
    }
}
