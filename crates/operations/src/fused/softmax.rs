//! Softmax of attention's scores.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::{exp, fold, greater, map};

use super::{
    differentiable::{differentiable, with_result},
    flex::{for_each_chunk, row_major, values, values_mut, whole_rows},
    is_fusible,
    rows::{FUSED, sum, sum_pairs},
};

/// Softmax over the last dimension of `scale · scores`.
///
/// With `causal`, query i of the last `queries` positions sees keys up to
/// `keys - queries + i`; the others get probability zero.
///
/// # Shapes
/// `scores [batch, heads, queries, keys]`, kept.
///
/// # Panics
/// If `causal` and there are more queries than keys.
pub fn scaled_softmax(scores: Tensor<4>, scale: f64, causal: bool) -> Tensor<4> {
    let [_, _, queries, keys] = scores.dims();
    assert!(!causal || queries <= keys, "{queries} causal queries on {keys} keys");
    if is_fusible(&scores) {
        let scores = scores.into_dispatch();
        Tensor::from_dispatch(Dispatch::fused_scaled_softmax(scores, scale as f32, causal))
    } else {
        composed::scaled_softmax(scores, scale, causal)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SoftmaxOperations: Backend {
    /// softmax(scale · scores) over the last dimension, by rows of the last but one.
    fn fused_scaled_softmax(
        scores: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self>;
}

/// The backward pass, which may write into the gradient it is given.
pub(crate) trait SoftmaxGradients: SoftmaxOperations {
    /// The gradient for the scores, from the softmax's result.
    fn scaled_softmax_gradient(
        probabilities: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self>;
}

impl<B: SoftmaxGradients, C: CheckpointStrategy> SoftmaxOperations for Autodiff<B, C> {
    fn fused_scaled_softmax(
        scores: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [scores],
            |[scores], keep| with_result::<B>(B::fused_scaled_softmax(scores, scale, causal), keep),
            move |probabilities, gradient, _| {
                [Some(B::scaled_softmax_gradient(probabilities, gradient, scale, causal))]
            },
        )
    }
}

impl SoftmaxOperations for Flex {
    fn fused_scaled_softmax(scores: FlexTensor, scale: f32, causal: bool) -> FlexTensor {
        let mut scores = row_major(scores);
        let (keys, visible) = attention_rows(&scores, causal);
        for_each_chunk(values_mut(&mut scores), whole_rows(keys), |start, out| {
            for (index, row) in out.chunks_exact_mut(keys).enumerate() {
                let (seen, hidden) = row.split_at_mut(visible(start / keys + index));
                softmax(seen, scale);
                hidden.fill(0.0);
            }
        });
        scores
    }
}

impl SoftmaxGradients for Flex {
    fn scaled_softmax_gradient(
        probabilities: FlexTensor,
        gradient: FlexTensor,
        scale: f32,
        causal: bool,
    ) -> FlexTensor {
        let (probabilities, mut gradient) = (row_major(probabilities), row_major(gradient));
        let (keys, visible) = attention_rows(&probabilities, causal);
        let probabilities = values(&probabilities);
        for_each_chunk(values_mut(&mut gradient), whole_rows(keys), |start, out| {
            let rows = probabilities[start..].chunks_exact(keys);
            for (index, (row, p)) in out.chunks_exact_mut(keys).zip(rows).enumerate() {
                let seen = visible(start / keys + index);
                softmax_backward(&p[..seen], &mut row[..seen], scale);
                row[seen..].fill(0.0);
            }
        });
        gradient
    }
}

/// How many keys each query sees, and their number.
fn attention_rows(
    scores: &FlexTensor,
    causal: bool,
) -> (usize, impl Fn(usize) -> usize + Sync + use<>) {
    let shape = scores.shape();
    let [queries, keys] = [shape[2], shape[3]];
    let visible = move |row: usize| if causal { keys - queries + row % queries + 1 } else { keys };
    (keys, visible)
}

/// Softmax of `scale · row`, in place.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], scale: f32) {
    let highest = fold(row, f32::NEG_INFINITY, |a, b| greater(a, b * scale), greater);
    map(row, |score| {
        let score = score * scale - highest;
        // Minus infinity is a mask: exactly zero, where `exp` ends at 1.6e-38.
        if score < -87.0 { 0.0 } else { exp::<FUSED>(score) }
    });
    let total = sum(row, |probability| probability);
    let inverse = 1.0 / total;
    for probability in row {
        *probability *= inverse;
    }
}

/// Turns the gradient of [`softmax`]'s result into that of its argument, in place.
#[inline(always)]
pub(super) fn softmax_backward(probabilities: &[f32], gradient: &mut [f32], scale: f32) {
    let mean = sum_pairs(probabilities, gradient, |p, g| p * g);
    for (g, p) in gradient.iter_mut().zip(probabilities) {
        *g = scale * *p * (*g - mean);
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, activation};

    /// [`scaled_softmax`](super::scaled_softmax) with an explicit mask.
    pub fn scaled_softmax(scores: Tensor<4>, scale: f64, causal: bool) -> Tensor<4> {
        let scores = scores.mul_scalar(scale);
        if causal {
            let [_, _, queries, keys] = scores.dims();
            let mask = Tensor::<2>::ones([queries, keys], &scores.device())
                .triu((keys - queries) as i64 + 1)
                .bool()
                .reshape([1, 1, queries, keys]);
            activation::softmax(scores.mask_fill(mask, f32::NEG_INFINITY), 3)
        } else {
            activation::softmax(scores, 3)
        }
    }
}
