//! Operations with their own gradients that read and write memory as little as they can.
//!
//! On the CPU backend, Burn's element-wise operations run on one thread, number by number, and
//! with automatic differentiation it takes softmax apart into single ones. The operations here
//! read and write memory once, in vector instructions and on all threads, and matrix products go
//! straight into their result; see `benches/fused.rs`. Other backends, and numbers other than
//! f32, take [`composed`].
//!
//! Results do not depend on the number of threads, nor, but for products in bfloat16, on the
//! machine's instruction set.

pub mod composed;

mod backend;
mod convolution;
mod depthwise;
mod differentiable;
mod flex;
mod geometry;
mod lanes;
mod log_softmax;
mod pooling;
mod product;
mod rotary;
mod self_attention;

use burn::{
    backend::{Dispatch, DispatchDevice},
    tensor::{DType, FloatDType, Tensor},
};

use backend::{FusedOperations, Precision, UpdateOperations};
use convolution::ConvolutionOperations;
use depthwise::DepthwiseOperations;
use log_softmax::LogSoftmaxOperations;
use pooling::PoolingOperations;
use rotary::RotaryOperations;

pub use geometry::Geometry;
pub use self_attention::AttentionDropout;

/// Whether the device of this tensor has the fused operations.
pub fn is_fusible<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().without_autodiff();
    tensor.dtype() == DType::F32 && matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// x · weight + bias, over the last dimension of `x`.
///
/// A weight in bfloat16 has the product done in it: numbers in single precision are rounded on the
/// way in and the result on the way out, and so are the gradients on their way back. Sums run in
/// single precision.
///
/// # Shapes
/// `x [.., inputs]`, `weight [inputs, outputs]`, `bias [outputs]` → `[.., outputs]`.
///
/// # Panics
/// If the widths differ.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [inputs, outputs] = weight.dims();
    assert_eq!(x.dims().last(), Some(&inputs), "width of x and weight");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]), "width of weight and bias");
    let is_half = weight.dtype() == DType::BF16 && x.dtype() == DType::F32;
    let bias_is_fusible = bias.as_ref().is_none_or(is_fusible);
    let (half, single) = (FloatDType::BF16, FloatDType::F32);
    if is_fusible(&x) && bias_is_fusible && (is_half || is_fusible(&weight)) {
        let precision = if is_half { Precision::Bf16 } else { Precision::Single };
        let weight = if is_half { weight.cast(single) } else { weight };
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::fused_affine(x, weight, bias.into_dispatch(), precision),
            None => Dispatch::fused_linear(x, weight, precision),
        })
    } else if is_half {
        composed::linear(x.cast(half), weight, bias.map(|bias| bias.cast(half))).cast(single)
    } else {
        composed::linear(x, weight, bias)
    }
}

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

/// Queries and keys of each head divided by their root mean square and scaled, then each number
/// times its cosine plus the other one of its pair times its sine. Values are kept. No gradient
/// reaches the tables.
///
/// # Shapes
/// `query_key_value [batch, length, 3·width]`, kept, as [`self_attention`] takes it; `query_scale` and
/// `key_scale [head]`; `cosines` and `sines [length, head]`.
///
/// # Panics
/// If the shapes do not fit, or heads are of an odd width.
pub fn normalize_and_rotate(
    query_key_value: Tensor<3>,
    query_scale: Tensor<1>,
    key_scale: Tensor<1>,
    cosines: Tensor<2>,
    sines: Tensor<2>,
    epsilon: f64,
) -> Tensor<3> {
    let ([_, length, packed], [head]) = (query_key_value.dims(), query_scale.dims());
    assert!(head.is_multiple_of(2) && packed.is_multiple_of(3 * head), "{packed} of {head}");
    assert_eq!(key_scale.dims(), [head], "widths of query and key");
    assert_eq!([cosines.dims(), sines.dims()], [[length, head]; 2], "tables of all positions");
    let scales = [&query_scale, &key_scale].into_iter().all(is_fusible);
    if is_fusible(&query_key_value) && scales && is_fusible(&cosines) && is_fusible(&sines) {
        Tensor::from_dispatch(Dispatch::fused_rotary(
            query_key_value.into_dispatch(),
            query_scale.into_dispatch(),
            key_scale.into_dispatch(),
            cosines.into_dispatch(),
            sines.into_dispatch(),
            epsilon as f32,
        ))
    } else {
        composed::normalize_and_rotate(
            query_key_value,
            query_scale,
            key_scale,
            cosines,
            sines,
            epsilon,
        )
    }
}

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

/// The sum of all squares, without a gradient.
///
/// # Shapes
/// Any → `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let x = if x.is_autodiff() { x.inner() } else { x };
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_square_sum(x.into_dispatch()))
    } else {
        x.square().sum()
    }
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

/// Convolution of pictures whose channels come last, by a weight in PyTorch's layout.
///
/// # Shapes
/// `x [batch, height, width, in]` and `weight [out, in, kernel, kernel]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the channels differ, the weight has another kernel than the geometry, or the kernel is
/// larger than the picture with its zeros.
pub fn convolution(x: Tensor<4>, weight: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [out, channels, height, width] = weight.dims();
    assert_eq!([height, width], geometry.kernel, "kernel of weight and geometry");
    let matrix = weight.permute([2, 3, 1, 0]).reshape([height * width * channels, out]);
    matrix_convolution(x, matrix, geometry)
}

/// [`convolution`] by a weight that lies as the windows under the kernel do: by row, column and
/// channel of the picture.
///
/// # Shapes
/// `x [batch, height, width, in]` and `matrix [kernel·kernel·in, out]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the matrix does not fit the channels and the kernel, or the kernel is larger than the
/// picture with its zeros.
pub fn matrix_convolution(x: Tensor<4>, matrix: Tensor<2>, geometry: Geometry) -> Tensor<4> {
    let ([_, _, _, channels], [rows, _]) = (x.dims(), matrix.dims());
    let [height, width] = geometry.kernel;
    assert_eq!(rows, height * width * channels, "rows of the matrix and numbers under the kernel");
    if is_fusible(&x) && is_fusible(&matrix) {
        let (x, matrix) = (x.into_dispatch(), matrix.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_convolution(x, matrix, geometry))
    } else {
        composed::matrix_convolution(x, matrix, geometry)
    }
}

/// [`matrix_convolution`], then [`shifted_clamp`], without a pass over memory for the second where
/// no gradient is wanted. The bias is frozen: no gradient reaches it.
///
/// # Shapes
/// `x [batch, height, width, in]`, `matrix [kernel·kernel·in, out]` and `bias [out]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the matrix does not fit the channels and the kernel, the bias does not fit the matrix, or
/// the kernel is larger than the picture with its zeros.
pub fn clamped_convolution(
    x: Tensor<4>,
    matrix: Tensor<2>,
    bias: Tensor<1>,
    geometry: Geometry,
    low: f32,
    high: f32,
) -> Tensor<4> {
    let ([_, _, _, channels], [rows, outputs]) = (x.dims(), matrix.dims());
    let [height, width] = geometry.kernel;
    assert_eq!(rows, height * width * channels, "rows of the matrix and numbers under the kernel");
    assert_eq!(bias.dims(), [outputs], "width of matrix and bias");
    if is_fusible(&x) && is_fusible(&matrix) && is_fusible(&bias) {
        let [x, matrix, bias] = [x.into_dispatch(), matrix.into_dispatch(), bias.into_dispatch()];
        let bounds = [low, high];
        Tensor::from_dispatch(Dispatch::fused_clamped_convolution(
            x, matrix, bias, geometry, bounds,
        ))
    } else {
        shifted_clamp(matrix_convolution(x, matrix, geometry), bias, low, high)
    }
}

/// Convolution of each channel by its own filter, plus bias, for pictures whose channels come
/// last. Filter and bias are frozen: no gradient reaches them.
///
/// # Shapes
/// `x [batch, height, width, channels]`, `filter [kernel, kernel, channels]` and
/// `bias [channels]` to `[batch, height', width', channels]`.
///
/// # Panics
/// If the channels differ, the filter has another kernel than the geometry, or the kernel is
/// larger than the picture with its zeros.
pub fn depthwise_convolution(
    x: Tensor<4>,
    filter: Tensor<3>,
    bias: Tensor<1>,
    geometry: Geometry,
) -> Tensor<4> {
    let [height, width, channels] = filter.dims();
    assert_eq!(x.dims()[3], channels, "channels of x and filter");
    assert_eq!(bias.dims(), [channels], "channels of filter and bias");
    assert_eq!([height, width], geometry.kernel, "kernel of filter and geometry");
    if is_fusible(&x) && is_fusible(&filter) && is_fusible(&bias) {
        let (x, filter, bias) = (x.into_dispatch(), filter.into_dispatch(), bias.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_depthwise(x, filter, bias, geometry))
    } else {
        composed::depthwise_convolution(x, filter, bias, geometry)
    }
}

/// The largest number under each window, channel by channel; the zeros of the geometry count as
/// smaller than any. Where several are largest, the gradient goes to the first by row and column.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, height', width', channels]`.
///
/// # Panics
/// If the kernel is larger than the picture with its zeros.
pub fn max_pool(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_max_pool(x.into_dispatch(), geometry))
    } else {
        composed::max_pool(x, geometry)
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
