//! The gated activation of SwiGLU.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::{sigmoid, vectorized};
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{CHUNK, row_major, values, values_mut, zip},
    is_fusible,
    rows::FUSED,
};

/// silu(gate) · up, the gated activation of SwiGLU.
///
/// # Shapes
/// Any, the same for both, kept.
///
/// # Panics
/// If the shapes differ.
pub fn silu_gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "shapes of gate and up");
    if is_fusible(&gate) && is_fusible(&up) {
        let gate = gate.into_dispatch();
        Tensor::from_dispatch(Dispatch::fused_silu_gate(gate, up.into_dispatch()))
    } else {
        composed::silu_gate(gate, up)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SiluGateOperations: Backend {
    /// silu(gate) · up.
    fn fused_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The backward pass, which may write into the gradient it is given.
pub(crate) trait SiluGateGradients: SiluGateOperations {
    /// The gradients for the gate and for `up`.
    fn silu_gate_gradient(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: SiluGateGradients, C: CheckpointStrategy> SiluGateOperations for Autodiff<B, C> {
    fn fused_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [gate, up],
            |[gate, up], keep| {
                let state = keep.then(|| (gate.clone(), up.clone()));
                (B::fused_silu_gate(gate, up), state)
            },
            |(gate, up), gradient, _| B::silu_gate_gradient(gate, up, gradient).map(Some),
        )
    }
}

impl SiluGateOperations for Flex {
    fn fused_silu_gate(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        zip(gate, up, |gate, up| gate * sigmoid::<FUSED>(gate) * up)
    }
}

impl SiluGateGradients for Flex {
    fn silu_gate_gradient(
        gate: FlexTensor,
        up: FlexTensor,
        gradient: FlexTensor,
    ) -> [FlexTensor; 2] {
        let (mut gate, up, mut gradient) = (row_major(gate), row_major(up), row_major(gradient));
        let up = values(&up);
        let gates = values_mut(&mut gate);
        let gradients = values_mut(&mut gradient);
        gates
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks_mut(CHUNK))
            .zip(up.par_chunks(CHUNK))
            .for_each(|((gates, gradients), up)| {
                vectorized(|| {
                    for ((gate, gradient), &up) in gates.iter_mut().zip(gradients).zip(up) {
                        let sigmoid = sigmoid::<FUSED>(*gate);
                        let silu = *gate * sigmoid;
                        let slope = sigmoid + silu * (1.0 - sigmoid);
                        *gate = *gradient * up * slope;
                        *gradient *= silu;
                    }
                });
            });
        [gate, gradient]
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, activation};

    /// [`silu_gate`](super::silu_gate) in two operations.
    pub fn silu_gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        activation::silu(gate) * up
    }
}
