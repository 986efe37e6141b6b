//! Operations with their own gradients that read and write memory as little as they can.
//!
//! On the CPU backend, Burn's element-wise operations run on one thread, number by number, and
//! with automatic differentiation it takes softmax apart into single ones. The operations here
//! read and write memory once, in vector instructions and on all threads, and matrix products go
//! straight into their result; see `benches/fused.rs`. Other backends, and numbers other than
//! f32, take [`composed`].
//!
//! Results do not depend on the number of threads nor, except for products in bfloat16, on the
//! machine's instruction set.
//!
//! Each operation is one file: the public function, traits for its forward and backward passes,
//! their implementations on the CPU backend and for automatic differentiation, and the same
//! operation composed of Burn's own. To add kernels on GPUs, add `Cube: cfg(feature = "gpu")` to
//! the lists of `backend_extension`, implement both traits for `burn::backend::Cube`, switch `gpu`
//! on by the application's device features, and widen [`is_fusible`].

mod clamp;
mod convolution;
mod depthwise;
mod differentiable;
mod flex;
mod gelu;
mod geometry;
mod leaky_relu;
mod linear;
mod log_softmax;
mod normalization;
mod pooling;
mod product;
mod rotary;
mod rows;
mod self_attention;
mod silu_gate;
mod softmax;
mod square_sum;

use burn::{
    backend::DispatchDevice,
    tensor::{DType, Tensor},
};

pub use clamp::{clamp, shifted_clamp};
pub use convolution::{clamped_convolution, convolution, matrix_convolution};
pub use depthwise::depthwise_convolution;
pub use gelu::gelu;
pub use geometry::Geometry;
pub use leaky_relu::leaky_relu;
pub use linear::linear;
pub use log_softmax::log_softmax;
pub use normalization::{layer_norm, rms_norm};
pub use pooling::max_pool;
pub use rotary::normalize_and_rotate;
pub use self_attention::{AttentionDropout, self_attention};
pub use silu_gate::silu_gate;
pub use softmax::scaled_softmax;
pub use square_sum::square_sum;

/// These operations, composed of Burn's own: for other devices, and as the reference in tests and
/// benchmarks.
pub mod composed {
    pub(crate) use super::self_attention::composed::split_heads;
    pub use super::{
        clamp::composed::clamp,
        convolution::composed::matrix_convolution,
        depthwise::composed::depthwise_convolution,
        gelu::composed::gelu,
        leaky_relu::composed::leaky_relu,
        linear::composed::linear,
        log_softmax::composed::log_softmax,
        normalization::composed::{layer_norm, rms_norm},
        pooling::composed::max_pool,
        rotary::composed::normalize_and_rotate,
        self_attention::composed::self_attention,
        silu_gate::composed::silu_gate,
        softmax::composed::scaled_softmax,
    };
}

/// Whether the device of this tensor has the fused operations.
pub fn is_fusible<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().without_autodiff();
    tensor.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}
