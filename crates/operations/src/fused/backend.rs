//! The operations as extensions of Burn's backends, with their gradients.
//!
//! Only the CPU backend has them; [the public functions](super) take Burn's own operations
//! everywhere else. For kernels on GPUs: add `Cube: cfg(feature = "gpu")` to the list of
//! `backend_extension`, implement both traits for `burn::backend::Cube`, let the application's
//! device features switch `gpu` on, and widen [`is_fusible`](super::is_fusible).

use burn::backend::{
    Autodiff, Backend, autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension,
    tensor::FloatTensor,
};

use super::{
    differentiable::{differentiable, with_result},
    self_attention::AttentionDropout,
};

/// What a linear layer multiplies in. Its tensors have single precision either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As they are.
    Single,
    /// Rounded to bfloat16, and the results, too; sums run in single precision.
    Bf16,
}

/// Forward passes, on row-major or any other layout.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait FusedOperations: Backend {
    /// x · weight over the last dimension.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// x · weight + bias over the last dimension.
    fn fused_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// softmax(q·kᵀ / √head) · v of every head; queries, keys and values lie side by side.
    fn fused_self_attention(
        query_key_value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self>;

    /// x Φ(x).
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// x or slope · x, whichever side of zero x is on.
    fn fused_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self>;

    /// The nearest number between two bounds.
    fn fused_clamp(x: FloatTensor<Self>, low: f32, high: f32) -> FloatTensor<Self>;

    /// The nearest number to x + bias between two bounds; the bias gets no gradient.
    fn fused_shifted_clamp(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self>;

    /// softmax(scale · scores) over the last dimension, by rows of the last but one.
    fn fused_scaled_softmax(
        scores: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self>;

    /// silu(gate) · up.
    fn fused_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Layer normalization over the last dimension.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// Root mean square normalization over the last dimension.
    fn fused_rms_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// What an optimizer asks of gradients, which have none themselves.
#[backend_extension(Flex)]
pub(crate) trait UpdateOperations: Backend {
    /// The sum of all squares, `[1]`.
    fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Backward passes; each may write into the gradient it is given.
pub(crate) trait FusedGradients: FusedOperations {
    /// The gradient for a linear layer's input.
    fn linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// The gradient for a linear layer's weight.
    fn linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// The gradient for a linear layer's bias.
    fn linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient for queries, keys and values, side by side as they are.
    fn self_attention_gradient(
        query_key_value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self>;

    /// The gradient for `x`.
    fn gelu_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient for `x`, from the result.
    fn leaky_relu_gradient(
        result: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        slope: f32,
    ) -> FloatTensor<Self>;

    /// The gradient for `x`, from the clamp's result.
    fn clamp_gradient(
        clamped: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self>;

    /// The gradient for the scores, from the softmax's result.
    fn scaled_softmax_gradient(
        probabilities: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self>;

    /// The gradients for the gate and for `up`.
    fn silu_gate_gradient(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];

    /// The gradients for `x`, scale and shift.
    fn layer_norm_gradient(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 3];

    /// The gradients for `x` and scale.
    fn rms_norm_gradient(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 2];
}

/// Gradients of a linear layer's input, weight and, if it has one, bias. Each costs a product of its
/// own: only what somebody waits for.
fn linear_gradients<B: FusedGradients, const N: usize>(
    (x, weight): (FloatTensor<B>, FloatTensor<B>),
    gradient: FloatTensor<B>,
    waited_for: [bool; N],
    precision: Precision,
) -> [Option<FloatTensor<B>>; N] {
    std::array::from_fn(|place| {
        let found = || match place {
            0 => B::linear_input_gradient(weight.clone(), gradient.clone(), precision),
            1 => B::linear_weight_gradient(x.clone(), gradient.clone(), precision),
            _ => B::linear_bias_gradient(gradient.clone()),
        };
        waited_for[place].then(found)
    })
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOperations for Autodiff<B, C> {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [x, weight],
            |[x, weight], keep| {
                let state = keep.then(|| (x.clone(), weight.clone()));
                (B::fused_linear(x, weight, precision), state)
            },
            move |state, gradient, waited_for| {
                linear_gradients::<B, 2>(state, gradient, waited_for, precision)
            },
        )
    }

    fn fused_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [x, weight, bias],
            |[x, weight, bias], keep| {
                let state = keep.then(|| (x.clone(), weight.clone()));
                (B::fused_affine(x, weight, bias, precision), state)
            },
            move |state, gradient, waited_for| {
                linear_gradients::<B, 3>(state, gradient, waited_for, precision)
            },
        )
    }

    fn fused_self_attention(
        query_key_value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self> {
        let again = dropout.clone();
        differentiable::<B, C, _, 1>(
            [query_key_value],
            |[packed], keep| {
                let state = keep.then(|| packed.clone());
                (B::fused_self_attention(packed, heads, causal, dropout), state)
            },
            move |packed, gradient, _| {
                [Some(B::self_attention_gradient(packed, gradient, heads, causal, again))]
            },
        )
    }

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

    fn fused_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| with_result::<B>(B::fused_leaky_relu(x, slope), keep),
            move |result, gradient, _| [Some(B::leaky_relu_gradient(result, gradient, slope))],
        )
    }

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

    fn fused_scaled_softmax(
        scores: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [scores],
            |[scores], keep| with_result::<B>(B::fused_scaled_softmax(scores, scale, causal), keep),
            move |probabilities, gradient, _| {
                [Some(B::scaled_softmax_gradient(probabilities, gradient, scale, causal))]
            },
        )
    }

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

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [x, scale, shift],
            |[x, scale, shift], keep| {
                let state = keep.then(|| (x.clone(), scale.clone()));
                (B::fused_layer_norm(x, scale, shift, epsilon), state)
            },
            move |(x, scale), gradient, _| {
                B::layer_norm_gradient(x, scale, gradient, epsilon).map(Some)
            },
        )
    }

    fn fused_rms_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [x, scale],
            |[x, scale], keep| {
                let state = keep.then(|| (x.clone(), scale.clone()));
                (B::fused_rms_norm(x, scale, epsilon), state)
            },
            move |(x, scale), gradient, _| {
                B::rms_norm_gradient(x, scale, gradient, epsilon).map(Some)
            },
        )
    }
}
