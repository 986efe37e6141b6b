//! The same operations out of Burn's own: for other devices, and as the reference in tests and
//! benchmarks.

use burn::tensor::{Tensor, activation, module};

/// [`linear`](super::linear) as Burn has it.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    module::linear(x, weight, bias)
}

/// [`self_attention`](super::self_attention), one head after another, with all scores in memory.
pub fn self_attention(query_key_value: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [batch, length, packed] = query_key_value.dims();
    let head = packed / 3 / heads;
    let part = |index: usize| {
        query_key_value
            .clone()
            .slice([0..batch, 0..length, index * heads * head..(index + 1) * heads * head])
            .reshape([batch, length, heads, head])
            .swap_dims(1, 2)
    };
    let scores = part(0).matmul(part(1).swap_dims(2, 3));
    let mixed = scaled_softmax(scores, (head as f64).powf(-0.5), causal).matmul(part(2));
    mixed.swap_dims(1, 2).reshape([batch, length, heads * head])
}

/// [`gelu`](super::gelu) as Burn has it.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
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
