//! Gaussian error linear unit.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::gelu_derivative;

use super::{
    differentiable::differentiable,
    flex::{map, zip},
    is_fusible,
    rows::FUSED,
};

/// Gaussian error linear unit, exact (by the error function) to 3e-7.
///
/// # Shapes
/// Any, kept.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
    } else {
        composed::gelu(x)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait GeluOperations: Backend {
    /// x Φ(x).
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The backward pass, which may write into the gradient it is given.
pub(crate) trait GeluGradients: GeluOperations {
    /// The gradient for `x`.
    fn gelu_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: GeluGradients, C: CheckpointStrategy> GeluOperations for Autodiff<B, C> {
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| {
                let state = keep.then(|| x.clone());
                (B::fused_gelu(x), state)
            },
            |x, gradient, _| [Some(B::gelu_gradient(x, gradient))],
        )
    }
}

impl GeluOperations for Flex {
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        map(x, numerics::gelu::<FUSED>)
    }
}

impl GeluGradients for Flex {
    fn gelu_gradient(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        zip(gradient, x, |gradient, x| gradient * gelu_derivative::<FUSED>(x))
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, activation};

    /// [`gelu`](super::gelu) as Burn has it.
    pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        activation::gelu(x)
    }
}
