//! Operations in one pass over memory, with their own gradients.
//!
//! On the CPU backend, Burn's element-wise operations run on one thread, number by number, and
//! with automatic differentiation it takes softmax apart into single ones. The operations here
//! read and write memory once, in vector instructions and on all threads; see
//! `benches/fused.rs`. Other backends, and numbers other than f32, take [`composed`].
//!
//! Results do not depend on the number of threads, nor on the machine's instruction set.

pub mod composed;

mod backend;
mod flex;
mod lanes;

use burn::{
    backend::{Dispatch, DispatchDevice},
    tensor::{DType, Tensor},
};

use backend::FusedOperations;

/// Whether the device of this tensor has the operations of [`backend`].
pub fn is_fusible<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().without_autodiff();
    tensor.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

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

/// Layer normalization over the last dimension: (x − mean) / √(variance + ε) · scale + shift.
///
/// # Shapes
/// `x [.., width]`, kept; `scale` and `shift [width]`.
///
/// # Panics
/// If the widths differ.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    assert_eq!(x.dims().last(), scale.dims().last(), "width of x and scale");
    assert_eq!(x.dims().last(), shift.dims().last(), "width of x and shift");
    if is_fusible(&x) && is_fusible(&scale) && is_fusible(&shift) {
        let (x, scale) = (x.into_dispatch(), scale.into_dispatch());
        let epsilon = epsilon as f32;
        Tensor::from_dispatch(Dispatch::fused_layer_norm(x, scale, shift.into_dispatch(), epsilon))
    } else {
        composed::layer_norm(x, scale, shift, epsilon)
    }
}

/// Root mean square normalization over the last dimension: x / √(mean of x² + ε) · scale.
///
/// # Shapes
/// `x [.., width]`, kept; `scale [width]`.
///
/// # Panics
/// If the widths differ.
pub fn rms_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!(x.dims().last(), scale.dims().last(), "width of x and scale");
    if is_fusible(&x) && is_fusible(&scale) {
        let (x, scale) = (x.into_dispatch(), scale.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_rms_norm(x, scale, epsilon as f32))
    } else {
        composed::rms_norm(x, scale, epsilon)
    }
}
