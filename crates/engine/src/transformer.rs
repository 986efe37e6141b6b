//! The vision transformer of the tokenizer's halves, for one picture at a time.

use std::io;

use tokenizer::{NORM_EPSILON, TransformerConfig};

use crate::{
    generator::add,
    kernels::{Kernels, Rows, TILE_ROWS, Tile},
    matrix::{Activations, Finish, Matrix, Outputs, Precision, grow},
    parallel::Pool,
    tensors::Source,
};

/// A linear layer with a bias.
pub(crate) struct Linear {
    matrix: Matrix,
    bias: Vec<f32>,
}

impl Linear {
    pub(crate) fn build(
        tensors: &mut dyn Source,
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

    fn product_gelu(&self, pool: &Pool, x: &Activations, out: &mut Outputs) {
        self.matrix.product(pool, x, Finish::Gelu(&self.bias), out);
    }
}

/// A layer norm.
pub(crate) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl LayerNorm {
    pub(crate) fn build(tensors: &mut dyn Source, name: &str, width: usize) -> Self {
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
    /// For each head its keys, transposed, and its values, both as panels of weights.
    memory: Vec<f32>,
    /// `[heads, rows, head]`.
    mixed: Vec<f32>,
    scratch: Vec<Scratch>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Workspace")
    }
}

/// A thread's memory: queries and scores of one tile.
#[derive(Clone, Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
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
            memory: Vec::new(),
            mixed: Vec::new(),
            scratch: vec![Scratch::default(); pool.threads()],
        }
    }
}

/// Queries of one head that are one unit of work.
const QUERIES: usize = 8 * TILE_ROWS;

impl Transformer {
    pub(crate) fn build(
        tensors: &mut dyn Source,
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
            kernels: Kernels::detect(),
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
        let Workspace { x, activations, out, query_key_value, hidden, memory, mixed, scratch } =
            work;
        let x = &mut x[..rows * width];
        pool.pieces(x, width, scratch, |_, row, scratch| {
            grow(&mut scratch.scores, width, 0.0);
            scratch.scores[..width].copy_from_slice(row);
            self.input_norm.run(self.kernels, &scratch.scores[..width], row);
        });
        for block in &self.blocks {
            activations.set(pool, block.query_key_value.matrix(), rows, |row, out| {
                block.attention_norm.run(self.kernels, &x[row * width..][..width], out);
            });
            block.query_key_value.product(pool, activations, query_key_value);
            self.attend(pool, rows, query_key_value, memory, mixed, scratch);
            let head = width / self.config.heads;
            activations.set(pool, block.projection.matrix(), rows, |row, out| {
                for (index, out) in out.chunks_exact_mut(head).enumerate() {
                    let at = (index * rows.next_multiple_of(QUERIES) + row) * head;
                    out.copy_from_slice(&mixed[at..at + head]);
                }
            });
            block.projection.product(pool, activations, out);
            add(x, width, out);
            activations.set(pool, block.up.matrix(), rows, |row, out| {
                block.feed_forward_norm.run(self.kernels, &x[row * width..][..width], out);
            });
            block.up.product_gelu(pool, activations, hidden);
            activations.set(pool, block.down.matrix(), rows, |row, out| hidden.copy(row, 0, out));
            block.down.product(pool, activations, out);
            add(x, width, out);
        }
    }

    /// Attention of all rows, by tiles of queries: scores exist for one tile at a time. Keys and
    /// values are weights to the product kernels.
    fn attend(
        &self,
        pool: &Pool,
        rows: usize,
        query_key_value: &Outputs,
        memory: &mut Vec<f32>,
        mixed: &mut Vec<f32>,
        scratch: &mut [Scratch],
    ) {
        let (width, heads) = (self.config.width, self.config.heads);
        let head = width / heads;
        let panel = self.kernels.width;
        let key_panels = rows.div_ceil(panel);
        let value_panels = head.div_ceil(panel);
        let keys_len = key_panels * head * panel;
        let unit = keys_len + value_panels * rows * panel;
        grow(memory, heads * unit, 0.0);
        let pool = pool.for_work(rows * rows * width);
        pool.pieces(&mut memory[..heads * unit], unit, scratch, |index, memory, scratch| {
            memory.fill(0.0);
            let (keys, values) = memory.split_at_mut(keys_len);
            grow(&mut scratch.queries, head, 0.0);
            let number = &mut scratch.queries[..head];
            for row in 0..rows {
                query_key_value.copy(row, width + index * head, number);
                let at = row / panel * head * panel + row % panel;
                for (place, &number) in number.iter().enumerate() {
                    keys[at + place * panel] = number;
                }
                query_key_value.copy(row, 2 * width + index * head, number);
                for (part, number) in number.chunks(panel).enumerate() {
                    let at = (part * rows + row) * panel;
                    values[at..at + number.len()].copy_from_slice(number);
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
            let Scratch { queries, scores } = scratch;
            grow(queries, TILE_ROWS * head, 0.0);
            grow(scores, TILE_ROWS * key_panels * panel, 0.0);
            let last = rows.min((block + 1) * QUERIES);
            let mut first = block * QUERIES;
            let mut mixed = mixed.chunks_mut(TILE_ROWS * head);
            while first < last {
                let count = TILE_ROWS.min(last - first);
                for (row, query) in queries.chunks_exact_mut(head).take(count).enumerate() {
                    query_key_value.copy(first + row, index * head, query);
                }
                let seen = if self.causal { first + count } else { rows };
                let stride = key_panels * panel;
                let mut tile: Tile = [0.0; _];
                let tile_rows = Rows::new(queries, head, count, head);
                for (place, keys) in
                    keys.chunks_exact(head * panel).take(seen.div_ceil(panel)).enumerate()
                {
                    (self.kernels.product_f32)(tile_rows, keys, &mut tile);
                    for (row, tile) in tile.chunks_exact(panel).take(count).enumerate() {
                        scores[row * stride + place * panel..][..panel].copy_from_slice(tile);
                    }
                }
                let mut inverses = [0.0; TILE_ROWS];
                for (row, scores) in scores.chunks_exact_mut(stride).take(count).enumerate() {
                    let visible = if self.causal { first + row + 1 } else { rows };
                    scores[visible..seen].fill(f32::NEG_INFINITY);
                    let scale = (head as f32).sqrt().recip();
                    inverses[row] = (self.kernels.rows.softmax)(&mut scores[..seen], scale);
                }
                let weights = Rows::new(scores, stride, count, seen);
                let mixed = mixed.next().expect("a block has room for its queries");
                for (part, values) in values.chunks_exact(rows * panel).enumerate() {
                    (self.kernels.product_f32)(weights, &values[..seen * panel], &mut tile);
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
