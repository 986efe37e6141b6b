//! Clamping between two bounds, as ReLU and ReLU6 do, with or without a bias.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{
    differentiable::{differentiable, with_result},
    flex::{for_each_chunk, map, row_major, values, values_mut, whole_rows, zip},
    is_fusible,
};

/// The nearest number between `low` and `high`: ReLU is `clamp(x, 0, ∞)`, ReLU6 `clamp(x, 0, 6)`.
/// At and beyond the bounds the derivative is zero.
///
/// # Shapes
/// Any, kept.
pub fn clamp<const D: usize>(x: Tensor<D>, low: f32, high: f32) -> Tensor<D> {
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_clamp(x.into_dispatch(), low, high))
    } else {
        composed::clamp(x, low, high)
    }
}

/// `clamp(x + bias, low, high)` with a bias for each number of the last dimension, in one pass.
/// The bias is frozen: no gradient reaches it.
///
/// # Shapes
/// `x [.., width]`, kept; `bias [width]`.
///
/// # Panics
/// If the widths differ.
pub fn shifted_clamp<const D: usize>(
    x: Tensor<D>,
    bias: Tensor<1>,
    low: f32,
    high: f32,
) -> Tensor<D> {
    assert_eq!(x.dims().last(), bias.dims().last(), "width of x and bias");
    if is_fusible(&x) && is_fusible(&bias) {
        let (x, bias) = (x.into_dispatch(), bias.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_shifted_clamp(x, bias, low, high))
    } else {
        composed::clamp(x + bias.unsqueeze(), low, high)
    }
}

/// The forward passes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ClampOperations: Backend {
    /// The nearest number between two bounds.
    fn fused_clamp(x: FloatTensor<Self>, low: f32, high: f32) -> FloatTensor<Self>;

    /// The nearest number to x + bias between two bounds; the bias gets no gradient.
    fn fused_shifted_clamp(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self>;
}

/// The backward pass, which may write into the gradient it is given.
pub(crate) trait ClampGradients: ClampOperations {
    /// The gradient for `x`, from the clamp's result.
    fn clamp_gradient(
        clamped: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self>;
}

impl<B: ClampGradients, C: CheckpointStrategy> ClampOperations for Autodiff<B, C> {
    fn fused_clamp(x: FloatTensor<Self>, low: f32, high: f32) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| with_result::<B>(B::fused_clamp(x, low, high), keep),
            move |clamped, gradient, _| [Some(B::clamp_gradient(clamped, gradient, low, high))],
        )
    }

    fn fused_shifted_clamp(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self> {
        // The shift is frozen: its node is dropped and gets nothing.
        let (bias, _) = bias.into_parts();
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| with_result::<B>(B::fused_shifted_clamp(x, bias, low, high), keep),
            move |clamped, gradient, _| [Some(B::clamp_gradient(clamped, gradient, low, high))],
        )
    }
}

impl ClampOperations for Flex {
    fn fused_clamp(x: FlexTensor, low: f32, high: f32) -> FlexTensor {
        map(x, |x| numerics::clamp(x, low, high))
    }

    fn fused_shifted_clamp(x: FlexTensor, bias: FlexTensor, low: f32, high: f32) -> FlexTensor {
        let (mut x, bias) = (row_major(x), row_major(bias));
        let bias = values(&bias);
        for_each_chunk(values_mut(&mut x), whole_rows(bias.len()), |_, out| {
            shifted_clamp_rows(out, bias, low, high);
        });
        x
    }
}

impl ClampGradients for Flex {
    fn clamp_gradient(
        clamped: FlexTensor,
        gradient: FlexTensor,
        low: f32,
        high: f32,
    ) -> FlexTensor {
        zip(gradient, clamped, |gradient, x| if x > low && x < high { gradient } else { 0.0 })
    }
}

/// The nearest number to x + bias between two bounds, by rows as long as the bias.
#[inline(always)]
pub(super) fn shifted_clamp_rows(rows: &mut [f32], bias: &[f32], low: f32, high: f32) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = numerics::clamp(*value + bias, low, high);
        }
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::Tensor;

    /// [`clamp`](super::clamp) as Burn has it.
    pub fn clamp<const D: usize>(x: Tensor<D>, low: f32, high: f32) -> Tensor<D> {
        x.clamp(low, high)
    }
}
