//! Leaky rectified linear unit.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use super::{
    differentiable::{differentiable, with_result},
    flex::{map, zip},
    is_fusible,
};

/// x where it is positive, slope · x elsewhere; at zero its derivative is the slope.
///
/// # Shapes
/// Any, kept.
///
/// # Panics
/// If the slope is not positive: the gradient is read off the result's sign.
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
    assert!(slope > 0.0, "a slope of {slope}");
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_leaky_relu(x.into_dispatch(), slope as f32))
    } else {
        composed::leaky_relu(x, slope)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LeakyReluOperations: Backend {
    /// x or slope · x, whichever side of zero x is on.
    fn fused_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self>;
}

/// The backward pass, which may write into the gradient it is given.
pub(crate) trait LeakyReluGradients: LeakyReluOperations {
    /// The gradient for `x`, from the result.
    fn leaky_relu_gradient(
        result: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slope: f32,
    ) -> FloatTensor<Self>;
}

impl<B: LeakyReluGradients, C: CheckpointStrategy> LeakyReluOperations for Autodiff<B, C> {
    fn fused_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| with_result::<B>(B::fused_leaky_relu(x, slope), keep),
            move |result, gradient, _| [Some(B::leaky_relu_gradient(result, gradient, slope))],
        )
    }
}

impl LeakyReluOperations for Flex {
    fn fused_leaky_relu(x: FlexTensor, slope: f32) -> FlexTensor {
        map(x, |x| if x > 0.0 { x } else { slope * x })
    }
}

impl LeakyReluGradients for Flex {
    fn leaky_relu_gradient(result: FlexTensor, gradient: FlexTensor, slope: f32) -> FlexTensor {
        zip(gradient, result, |gradient, y| if y > 0.0 { gradient } else { slope * gradient })
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, activation};

    /// [`leaky_relu`](super::leaky_relu) as Burn has it.
    pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
        activation::leaky_relu(x, slope)
    }
}
