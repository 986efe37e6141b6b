//! The same operations out of Burn's own: for other devices, and as the reference in tests and
//! benchmarks.

use burn::tensor::{
    Tensor, TensorData, activation, module,
    ops::{ConvOptions, MaxPoolOptions, PadMode},
};

use super::{AttentionDropout, Geometry};

/// [`linear`](super::linear) as Burn has it.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    module::linear(x, weight, bias)
}

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

/// [`normalize_and_rotate`](super::normalize_and_rotate), operation by operation.
pub fn normalize_and_rotate(
    query_key_value: Tensor<3>,
    query_scale: Tensor<1>,
    key_scale: Tensor<1>,
    cosines: Tensor<2>,
    sines: Tensor<2>,
    epsilon: f64,
) -> Tensor<3> {
    let [batch, length, packed] = query_key_value.dims();
    let (width, [head]) = (packed / 3, query_scale.dims());
    // A product with a permutation exchanges the numbers of each pair exactly, and is the one way
    // to do so that is fast on every device, forward and backward.
    let mut exchange = vec![0.0f32; head * head];
    for number in 0..head {
        exchange[(number ^ 1) * head + number] = 1.0;
    }
    let device = query_key_value.device();
    let exchange = Tensor::<2>::from_data(TensorData::new(exchange, [head, head]), &device);
    let part = |index: usize| {
        query_key_value.clone().slice([0..batch, 0..length, index * width..(index + 1) * width])
    };
    let turned = |x: Tensor<3>, scale| {
        let x = rms_norm(x.reshape([batch, length, width / head, head]), scale, epsilon);
        let exchanged = x.clone().matmul(exchange.clone().unsqueeze());
        let table = |table: &Tensor<2>| table.clone().reshape([1, length, 1, head]);
        (x * table(&cosines) + exchanged * table(&sines)).reshape([batch, length, width])
    };
    Tensor::cat(vec![turned(part(0), query_scale), turned(part(1), key_scale), part(2)], 2)
}

/// [`log_softmax`](super::log_softmax) as Burn has it.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::log_softmax(x, D - 1)
}

/// [`gelu`](super::gelu) as Burn has it.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// [`leaky_relu`](super::leaky_relu) as Burn has it.
pub fn leaky_relu<const D: usize>(x: Tensor<D>, slope: f64) -> Tensor<D> {
    activation::leaky_relu(x, slope)
}

/// [`clamp`](super::clamp) as Burn has it.
pub fn clamp<const D: usize>(x: Tensor<D>, low: f32, high: f32) -> Tensor<D> {
    x.clamp(low, high)
}

/// [`matrix_convolution`](super::matrix_convolution) by Burn's convolution of pictures whose
/// channels come first.
pub fn matrix_convolution(x: Tensor<4>, matrix: Tensor<2>, geometry: Geometry) -> Tensor<4> {
    let ([_, _, _, channels], [_, out]) = (x.dims(), matrix.dims());
    let [height, width] = geometry.kernel;
    let weight = matrix.reshape([height, width, channels, out]).permute([3, 2, 0, 1]);
    let options = ConvOptions::new([geometry.stride; 2], [0, 0], [1, 1], 1);
    module::conv2d(padded(x, geometry), weight, None, options).permute([0, 2, 3, 1])
}

/// [`depthwise_convolution`](super::depthwise_convolution) by Burn's grouped convolution of
/// pictures whose channels come first.
pub fn depthwise_convolution(
    x: Tensor<4>,
    filter: Tensor<3>,
    bias: Tensor<1>,
    geometry: Geometry,
) -> Tensor<4> {
    let [_, _, channels] = filter.dims();
    let filter = filter.permute([2, 0, 1]).unsqueeze_dim::<4>(1);
    let options = ConvOptions::new([geometry.stride; 2], [0, 0], [1, 1], channels);
    module::conv2d(padded(x, geometry), filter, Some(bias), options).permute([0, 2, 3, 1])
}

/// [`max_pool`](super::max_pool) by Burn's of pictures whose channels come first.
pub fn max_pool(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [above, below, left, right] = geometry.padding;
    let options = MaxPoolOptions::new(geometry.kernel)
        .with_stride([geometry.stride; 2])
        .with_padding_pairs([(above, below), (left, right)]);
    module::max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
}

/// A picture whose channels come last, with its zeros around it and the channels first.
fn padded(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [above, below, left, right] = geometry.padding;
    x.permute([0, 3, 1, 2]).pad([(above, below), (left, right)], PadMode::Constant(0.0))
}

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

/// [`silu_gate`](super::silu_gate) in two operations.
pub fn silu_gate<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}

/// [`layer_norm`](super::layer_norm) as Burn has it.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    module::layer_norm(x, scale, Some(shift), epsilon)
}

/// [`rms_norm`](super::rms_norm) as in Burn's module of that name.
pub fn rms_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let mean_square = x.clone().square().mean_dim(D - 1);
    x / (mean_square + epsilon).sqrt() * scale.unsqueeze()
}
