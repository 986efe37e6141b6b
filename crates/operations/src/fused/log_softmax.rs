//! The logarithm of softmax in one pass.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::{exp, fold, greater, vectorized};
use rayon::prelude::*;

use super::{
    differentiable::{differentiable, with_result},
    flex::{row_major, values, values_mut, whole_rows},
    is_fusible,
    rows::{FUSED, sum},
};

/// Natural logarithm of the softmax over the last dimension.
///
/// # Shapes
/// Any, kept.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_log_softmax(x.into_dispatch()))
    } else {
        composed::log_softmax(x)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LogSoftmaxOperations: Backend {
    /// ln softmax(x) over the last dimension.
    fn fused_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait LogSoftmaxGradients: LogSoftmaxOperations {
    /// The gradient for `x`, from the result.
    fn log_softmax_gradient(
        result: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: LogSoftmaxGradients, C: CheckpointStrategy> LogSoftmaxOperations for Autodiff<B, C> {
    fn fused_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| with_result::<B>(B::fused_log_softmax(x), keep),
            |result, gradient, _| [Some(B::log_softmax_gradient(result, gradient))],
        )
    }
}

impl LogSoftmaxOperations for Flex {
    fn fused_log_softmax(x: FlexTensor) -> FlexTensor {
        let mut x = row_major(x);
        let width = x.shape().last().copied().unwrap_or(1);
        values_mut(&mut x).par_chunks_mut(whole_rows(width)).for_each(|rows| {
            vectorized(|| rows.chunks_exact_mut(width).for_each(log_softmax_row));
        });
        x
    }
}

impl LogSoftmaxGradients for Flex {
    fn log_softmax_gradient(result: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (result, mut gradient) = (row_major(result), row_major(gradient));
        let width = result.shape().last().copied().unwrap_or(1);
        let chunk = whole_rows(width);
        values_mut(&mut gradient)
            .par_chunks_mut(chunk)
            .zip(values(&result).par_chunks(chunk))
            .for_each(|(gradient, result)| {
                vectorized(|| {
                    let rows = gradient.chunks_exact_mut(width).zip(result.chunks_exact(width));
                    rows.for_each(|(gradient, result)| {
                        log_softmax_backward(result, gradient);
                    });
                });
            });
        gradient
    }
}

/// Logarithm of the softmax of a row, in place.
#[inline(always)]
pub(super) fn log_softmax_row(row: &mut [f32]) {
    let highest = fold(row, f32::NEG_INFINITY, greater, greater);
    let total = sum(row, |score| exp::<FUSED>(score - highest)).ln();
    for score in row {
        *score = (*score - highest) - total;
    }
}

/// Turns the gradient of [`log_softmax_row`]'s result into that of its argument, in place.
#[inline(always)]
pub(super) fn log_softmax_backward(result: &[f32], gradient: &mut [f32]) {
    let total = sum(gradient, |g| g);
    for (g, result) in gradient.iter_mut().zip(result) {
        *g -= exp::<FUSED>(*result) * total;
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, activation};

    /// [`log_softmax`](super::log_softmax) as Burn has it.
    pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::log_softmax(x, D - 1)
    }
}
