//! Self-attention of all heads without the matrix of scores in memory.
//!
//! Queries go in blocks, whose scores stay in a core's cache; the backward pass computes them
//! again, which costs less than reading them from memory would (Dao et al. 2022, without their
//! blocks of keys: the sequences here are short). A sample's result depends on nothing but the
//! sample.

use std::sync::Arc;

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::vectorized;
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{row_major, tensor_like, tensor_of_width, values},
    is_fusible,
    product::{Matrix, Threads, add_product, product},
    softmax,
};

/// softmax(q·kᵀ / √head) · v for every head. With `causal`, a position sees those up to its own.
/// With `dropout`, probabilities are multiplied by its factors.
///
/// On the CPU backend a sample's result does not depend, not even in the last bit, on how many
/// others are in the batch, and the scores never stand in memory as a whole.
///
/// # Shapes
/// `query_key_value [batch, length, 3·width]`, the queries of all heads, then their keys, then
/// their values → `[batch, length, width]`.
///
/// # Panics
/// If the width is no multiple of `3·heads`.
pub fn self_attention(
    query_key_value: Tensor<3>,
    heads: usize,
    causal: bool,
    dropout: Option<&AttentionDropout>,
) -> Tensor<3> {
    let [_, _, packed] = query_key_value.dims();
    assert!(packed.is_multiple_of(3 * heads), "{packed} numbers a token for {heads} heads");
    if is_fusible(&query_key_value) {
        let packed = query_key_value.into_dispatch();
        let dropout = dropout.cloned();
        Tensor::from_dispatch(Dispatch::fused_self_attention(packed, heads, causal, dropout))
    } else {
        composed::self_attention(query_key_value, heads, causal, dropout)
    }
}

/// Queries in a block.
const BLOCK: usize = 128;

/// Which probabilities of attention are dropped, as a function of where they are. They are asked for
/// in the forward pass and again in the backward pass, so that they need no memory.
#[derive(Clone)]
pub struct AttentionDropout(Arc<Factors>);

type Factors = dyn Fn(usize, usize, &mut [f32]) + Send + Sync;

impl AttentionDropout {
    /// `factors(sample, start, out)` fills `out` with what probabilities of a sample are multiplied
    /// by, 0 or more, from number `start` of its `[heads, queries, keys]`.
    pub fn new(factors: impl Fn(usize, usize, &mut [f32]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(factors))
    }

    /// Fills `out` with the factors of a sample from a number on.
    pub fn factors(&self, sample: usize, start: usize, out: &mut [f32]) {
        (self.0)(sample, start, out);
    }
}

impl std::fmt::Debug for AttentionDropout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttentionDropout").finish_non_exhaustive()
    }
}

/// The shape of one call.
#[derive(Debug, Clone)]
struct SelfAttention {
    length: usize,
    heads: usize,
    head: usize,
    causal: bool,
    dropout: Option<AttentionDropout>,
}

/// A block of queries and the keys that any of them sees.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: usize,
    queries: usize,
    keys: usize,
}

impl SelfAttention {
    /// Of queries, keys and values side by side, `[batch, length, 3·heads·head]`.
    pub(super) fn of(
        shape: &[usize],
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> Self {
        let [_, length, packed] = *shape else {
            panic!("queries, keys and values have three dimensions, not {}", shape.len());
        };
        Self { length, heads, head: packed / 3 / heads, causal, dropout }
    }

    /// Width of a token.
    pub(super) fn width(&self) -> usize {
        self.heads * self.head
    }

    /// # Shapes
    /// `packed [batch, length, 3·width]` → `[batch, length, width]`.
    pub(super) fn forward(&self, packed: &[f32]) -> Vec<f32> {
        let Self { length, head, .. } = *self;
        // By heads first, so that each is a piece of its own.
        let mut by_head = vec![0.0; packed.len() / 3];
        by_head.par_chunks_mut((length * head).max(1)).enumerate().for_each(|(index, output)| {
            let [query, key, value] = self.parts(packed, index);
            for block in self.blocks() {
                let mut probabilities = self.probabilities(block, query, key);
                if let Some(factors) = self.factors(block, index) {
                    multiply(&mut probabilities, &factors);
                }
                add_product(
                    &mut output[block.start * head..(block.start + block.queries) * head],
                    head,
                    Matrix::packed(&probabilities, block.keys),
                    self.rows(value, 0, block.keys),
                    Threads::One,
                );
            }
        });
        self.interleave(&by_head, 1)
    }

    /// The gradient for `packed` from the one for the result.
    ///
    /// # Shapes
    /// `packed [batch, length, 3·width]`, `gradient [batch, length, width]` →
    /// `[batch, length, 3·width]`.
    pub(super) fn backward(&self, packed: &[f32], gradient: &[f32]) -> Vec<f32> {
        let Self { length, heads, head, .. } = *self;
        let (width, part) = (self.width(), length * head);
        let scale = self.scale();
        let mut by_head = vec![0.0; packed.len()];
        by_head.par_chunks_mut((3 * part).max(1)).enumerate().for_each(|(index, output)| {
            let [query, key, value] = self.parts(packed, index);
            let (sample, place) = (index / heads, index % heads);
            let gradient = &gradient[sample * length * width + place * head..];
            let (for_query, rest) = output.split_at_mut(part);
            let (for_key, for_value) = rest.split_at_mut(part);
            for block in self.blocks() {
                let Block { start, queries, keys } = block;
                let arriving = Matrix::new(&gradient[start * width..], queries, head, width);
                let probabilities = self.probabilities(block, query, key);
                let factors = self.factors(block, index);
                let dropped = factors.as_ref().map(|factors| {
                    let mut dropped = probabilities.clone();
                    multiply(&mut dropped, factors);
                    dropped
                });
                let by_query = Matrix::packed(dropped.as_ref().unwrap_or(&probabilities), keys);
                add_product(for_value, head, by_query.transposed(), arriving, Threads::One);

                let values = self.rows(value, 0, keys).transposed();
                let mut for_scores = product(arriving, values, Threads::One);
                if let Some(factors) = &factors {
                    multiply(&mut for_scores, factors);
                }
                vectorized(|| {
                    let rows = for_scores.chunks_exact_mut(keys);
                    for (row, (scores, probabilities)) in
                        rows.zip(probabilities.chunks_exact(keys)).enumerate()
                    {
                        let seen = self.seen(block, row);
                        softmax::softmax_backward(
                            &probabilities[..seen],
                            &mut scores[..seen],
                            scale,
                        );
                        scores[seen..].fill(0.0);
                    }
                });
                let for_scores = Matrix::packed(&for_scores, keys);
                add_product(
                    &mut for_query[start * head..(start + queries) * head],
                    head,
                    for_scores,
                    self.rows(key, 0, keys),
                    Threads::One,
                );
                let queries = self.rows(query, start, queries);
                add_product(for_key, head, for_scores.transposed(), queries, Threads::One);
            }
        });
        self.interleave(&by_head, 3)
    }

    fn scale(&self) -> f32 {
        (self.head as f64).powf(-0.5) as f32
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let Self { length, causal, .. } = *self;
        (0..length).step_by(BLOCK).map(move |start| {
            let queries = BLOCK.min(length - start);
            Block { start, queries, keys: if causal { start + queries } else { length } }
        })
    }

    /// How many keys a block's query sees.
    fn seen(&self, block: Block, row: usize) -> usize {
        if self.causal { block.start + row + 1 } else { block.keys }
    }

    /// Where the queries, keys and values of a sample's head begin; `index` counts heads over all
    /// samples.
    fn parts<'a>(&self, packed: &'a [f32], index: usize) -> [&'a [f32]; 3] {
        let width = self.width();
        let (sample, place) = (index / self.heads, index % self.heads);
        let sample = &packed[sample * self.length * 3 * width..];
        [0, 1, 2].map(|part| &sample[part * width + place * self.head..])
    }

    /// Rows of a head's queries, keys or values.
    fn rows<'a>(&self, part: &'a [f32], start: usize, rows: usize) -> Matrix<'a> {
        let stride = 3 * self.width();
        Matrix::new(&part[start * stride..], rows, self.head, stride)
    }

    /// # Shapes
    /// `[block.queries, block.keys]`.
    fn probabilities(&self, block: Block, query: &[f32], key: &[f32]) -> Vec<f32> {
        let queries = self.rows(query, block.start, block.queries);
        let keys = self.rows(key, 0, block.keys).transposed();
        let mut scores = product(queries, keys, Threads::One);
        vectorized(|| {
            for (row, scores) in scores.chunks_exact_mut(block.keys).enumerate() {
                let (seen, hidden) = scores.split_at_mut(self.seen(block, row));
                softmax::softmax(seen, self.scale());
                hidden.fill(0.0);
            }
        });
        scores
    }

    /// What a block's probabilities are multiplied by, where some are dropped; `index` counts heads
    /// over all samples.
    ///
    /// # Shapes
    /// `[block.queries, block.keys]`.
    fn factors(&self, block: Block, index: usize) -> Option<Vec<f32>> {
        let dropout = self.dropout.as_ref()?;
        let (sample, place) = (index / self.heads, index % self.heads);
        let mut factors = vec![0.0; block.queries * block.keys];
        for (row, factors) in factors.chunks_exact_mut(block.keys).enumerate() {
            let start = (place * self.length + block.start + row) * self.length;
            dropout.factors(sample, start, &mut factors[..self.seen(block, row)]);
        }
        Some(factors)
    }

    /// `[batch, heads, parts, length, head]` → `[batch, length, parts·heads·head]`.
    fn interleave(&self, by_head: &[f32], parts: usize) -> Vec<f32> {
        let Self { length, heads, head, .. } = *self;
        let row = parts * self.width();
        let mut output = vec![0.0; by_head.len()];
        output.par_chunks_mut((row * length).max(1)).enumerate().for_each(|(sample, output)| {
            let sample = &by_head[sample * length * row..][..length * row];
            for (index, piece) in sample.chunks_exact(length * head).enumerate() {
                let (place, part) = (index / parts, index % parts);
                let column = (part * heads + place) * head;
                for (row, values) in output.chunks_exact_mut(row).zip(piece.chunks_exact(head)) {
                    row[column..column + head].copy_from_slice(values);
                }
            }
        });
        output
    }
}

/// Multiplies each number by its factor.
fn multiply(numbers: &mut [f32], factors: &[f32]) {
    vectorized(|| {
        for (number, factor) in numbers.iter_mut().zip(factors) {
            *number *= factor;
        }
    });
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SelfAttentionOperations: Backend {
    /// softmax(q·kᵀ / √head) · v of every head; queries, keys and values lie side by side.
    fn fused_self_attention(
        query_key_value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait SelfAttentionGradients: SelfAttentionOperations {
    /// The gradient for queries, keys and values, side by side as they are.
    fn self_attention_gradient(
        query_key_value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self>;
}

impl<B: SelfAttentionGradients, C: CheckpointStrategy> SelfAttentionOperations for Autodiff<B, C> {
    fn fused_self_attention(
        query_key_value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self> {
        let again = dropout.clone();
        differentiable::<B, C, _, 1>(
            [query_key_value],
            |[packed], keep| {
                let state = keep.then(|| packed.clone());
                (B::fused_self_attention(packed, heads, causal, dropout), state)
            },
            move |packed, gradient, _| {
                [Some(B::self_attention_gradient(packed, gradient, heads, causal, again))]
            },
        )
    }
}

impl SelfAttentionOperations for Flex {
    fn fused_self_attention(
        packed: FlexTensor,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FlexTensor {
        let packed = row_major(packed);
        let attention = SelfAttention::of(&packed.shape(), heads, causal, dropout);
        let output = attention.forward(values(&packed));
        tensor_of_width(&packed, attention.width(), output)
    }
}

impl SelfAttentionGradients for Flex {
    fn self_attention_gradient(
        packed: FlexTensor,
        gradient: FlexTensor,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FlexTensor {
        let (packed, gradient) = (row_major(packed), row_major(gradient));
        let attention = SelfAttention::of(&packed.shape(), heads, causal, dropout);
        tensor_like(&packed, attention.backward(values(&packed), values(&gradient)))
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, TensorData};

    use super::{super::softmax::composed::scaled_softmax, AttentionDropout};

    /// [`self_attention`](super::self_attention), one head after another, with all scores in memory.
    pub fn self_attention(
        query_key_value: Tensor<3>,
        heads: usize,
        causal: bool,
        dropout: Option<&AttentionDropout>,
    ) -> Tensor<3> {
        let [batch, length, packed] = query_key_value.dims();
        let head = packed / 3 / heads;
        let [query, key, value] = split_heads(query_key_value, heads);
        let scores = query.matmul(key.swap_dims(2, 3));
        let mut probabilities = scaled_softmax(scores, (head as f64).powf(-0.5), causal);
        if let Some(dropout) = dropout {
            let size = heads * length * length;
            let mut factors = vec![0.0; batch * size];
            for (sample, factors) in factors.chunks_exact_mut(size.max(1)).enumerate() {
                dropout.factors(sample, 0, factors);
            }
            let factors = TensorData::new(factors, [batch, heads, length, length]);
            let device = probabilities.device();
            probabilities = probabilities * Tensor::from_data(factors, &device);
        }
        let mixed = probabilities.matmul(value);
        mixed.swap_dims(1, 2).reshape([batch, length, heads * head])
    }

    /// Queries, keys and values out of where they lie side by side.
    ///
    /// # Shapes
    /// `query_key_value [batch, length, 3·width]` → three of `[batch, heads, length, width/heads]`.
    pub(crate) fn split_heads(query_key_value: Tensor<3>, heads: usize) -> [Tensor<4>; 3] {
        let [batch, length, packed] = query_key_value.dims();
        let width = packed / 3;
        [0, 1, 2].map(|part| {
            query_key_value
                .clone()
                .slice([0..batch, 0..length, part * width..(part + 1) * width])
                .reshape([batch, length, heads, width / heads])
                .swap_dims(1, 2)
        })
    }
}
