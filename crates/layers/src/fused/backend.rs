//! The operations as extensions of Burn's backends, with their gradients.
//!
//! Only the CPU backend has them; [the public functions](super) take Burn's own operations
//! everywhere else. For kernels on GPUs: add `Cube: cfg(feature = "gpu")` to the list of
//! `backend_extension`, implement both traits for `burn::backend::Cube`, let the application's
//! device features switch `gpu` on, and widen [`is_fusible`](super::is_fusible).

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    tensor::FloatTensor,
};

use super::self_attention::AttentionDropout;

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

/// Adds gradients to those of the parents that are tracked.
fn register<B: Backend, const N: usize>(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; N],
    values: [FloatTensor<B>; N],
) {
    for (parent, value) in parents.into_iter().zip(values) {
        if let Some(parent) = parent {
            gradients.register::<B>(parent, value);
        }
    }
}

/// The backward pass of a linear layer, to input and weight, and to the bias where there is one.
#[derive(Debug)]
struct Linear {
    precision: Precision,
}

impl<B: FusedGradients, const N: usize> Backward<B, N> for Linear {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        // Each costs a product of its own: only what somebody waits for.
        for (place, parent) in ops.parents.into_iter().enumerate() {
            let Some(parent) = parent else { continue };
            let value = match place {
                0 => B::linear_input_gradient(weight.clone(), gradient.clone(), self.precision),
                1 => B::linear_weight_gradient(x.clone(), gradient.clone(), self.precision),
                _ => B::linear_bias_gradient(gradient.clone()),
            };
            gradients.register::<B>(parent.id, value);
        }
    }
}

/// The backward pass of a clamp, to what was clamped.
#[derive(Debug)]
struct Clamp {
    low: f32,
    high: f32,
}

impl<B: FusedGradients> Backward<B, 1> for Clamp {
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<B>(&ops.node);
        let for_x = B::clamp_gradient(ops.state, gradient, self.low, self.high);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        register::<B, 1>(gradients, parents, [for_x]);
    }
}

impl<B: FusedGradients, C: CheckpointStrategy> FusedOperations for Autodiff<B, C> {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let state = (x.clone(), weight.clone());
        let output = B::fused_linear(x, weight, precision);
        let (linear, nodes) = (Linear { precision }, [x_node, weight_node]);
        let prepared = <Linear as Backward<B, 2>>::prepare::<C>(linear, nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(state, output),
            OpsKind::UnTracked(untracked) => untracked.finish(output),
        }
    }

    fn fused_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let (bias, bias_node) = bias.into_parts();
        let state = (x.clone(), weight.clone());
        let output = B::fused_affine(x, weight, bias, precision);
        let nodes = [x_node, weight_node, bias_node];
        let prepared = <Linear as Backward<B, 3>>::prepare::<C>(Linear { precision }, nodes);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(state, output),
            OpsKind::UnTracked(untracked) => untracked.finish(output),
        }
    }

    fn fused_self_attention(
        query_key_value: FloatTensor<Self>,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SelfAttention {
            heads: usize,
            causal: bool,
            dropout: Option<AttentionDropout>,
        }

        impl<B: FusedGradients> Backward<B, 1> for SelfAttention {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let Self { heads, causal, dropout } = self;
                let value = B::self_attention_gradient(ops.state, gradient, heads, causal, dropout);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 1>(gradients, parents, [value]);
            }
        }

        let (packed, node) = query_key_value.into_parts();
        let operation = SelfAttention { heads, causal, dropout: dropout.clone() };
        let output = B::fused_self_attention(packed.clone(), heads, causal, dropout);
        match operation.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(packed, output),
            OpsKind::UnTracked(untracked) => untracked.finish(output),
        }
    }

    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gelu;

        impl<B: FusedGradients> Backward<B, 1> for Gelu {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let for_x = B::gelu_gradient(ops.state, gradient);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 1>(gradients, parents, [for_x]);
            }
        }

        let (x, node) = x.into_parts();
        match Gelu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(x.clone(), B::fused_gelu(x)),
            OpsKind::UnTracked(untracked) => untracked.finish(B::fused_gelu(x)),
        }
    }

    fn fused_leaky_relu(x: FloatTensor<Self>, slope: f32) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LeakyRelu {
            slope: f32,
        }

        impl<B: FusedGradients> Backward<B, 1> for LeakyRelu {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let for_x = B::leaky_relu_gradient(ops.state, gradient, self.slope);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 1>(gradients, parents, [for_x]);
            }
        }

        let (x, node) = x.into_parts();
        let result = B::fused_leaky_relu(x, slope);
        match (LeakyRelu { slope }).prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(result.clone(), result),
            OpsKind::UnTracked(untracked) => untracked.finish(result),
        }
    }

    fn fused_clamp(x: FloatTensor<Self>, low: f32, high: f32) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let clamped = B::fused_clamp(x, low, high);
        match (Clamp { low, high }).prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(clamped.clone(), clamped),
            OpsKind::UnTracked(untracked) => untracked.finish(clamped),
        }
    }

    fn fused_shifted_clamp(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        low: f32,
        high: f32,
    ) -> FloatTensor<Self> {
        let ((x, node), (bias, _)) = (x.into_parts(), bias.into_parts());
        let clamped = B::fused_shifted_clamp(x, bias, low, high);
        match (Clamp { low, high }).prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(clamped.clone(), clamped),
            OpsKind::UnTracked(untracked) => untracked.finish(clamped),
        }
    }

    fn fused_scaled_softmax(
        scores: FloatTensor<Self>,
        scale: f32,
        causal: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ScaledSoftmax {
            scale: f32,
            causal: bool,
        }

        impl<B: FusedGradients> Backward<B, 1> for ScaledSoftmax {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let Self { scale, causal } = self;
                let for_scores = B::scaled_softmax_gradient(ops.state, gradient, scale, causal);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 1>(gradients, parents, [for_scores]);
            }
        }

        let (scores, node) = scores.into_parts();
        let operation = ScaledSoftmax { scale, causal };
        let probabilities = B::fused_scaled_softmax(scores, scale, causal);
        match operation.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked.finish(probabilities.clone(), probabilities),
            OpsKind::UnTracked(untracked) => untracked.finish(probabilities),
        }
    }

    fn fused_silu_gate(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SiluGate;

        impl<B: FusedGradients> Backward<B, 2> for SiluGate {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (gate, up) = ops.state;
                let for_both = B::silu_gate_gradient(gate, up, gradient);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 2>(gradients, parents, for_both);
            }
        }

        let (gate, gate_node) = gate.into_parts();
        let (up, up_node) = up.into_parts();
        match SiluGate.prepare::<C>([gate_node, up_node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => {
                tracked.finish((gate.clone(), up.clone()), B::fused_silu_gate(gate, up))
            }
            OpsKind::UnTracked(untracked) => untracked.finish(B::fused_silu_gate(gate, up)),
        }
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LayerNorm {
            epsilon: f32,
        }

        impl<B: FusedGradients> Backward<B, 3> for LayerNorm {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (x, scale) = ops.state;
                let for_all = B::layer_norm_gradient(x, scale, gradient, self.epsilon);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 3>(gradients, parents, for_all);
            }
        }

        let (x, x_node) = x.into_parts();
        let (scale, scale_node) = scale.into_parts();
        let (shift, shift_node) = shift.into_parts();
        let nodes = [x_node, scale_node, shift_node];
        match (LayerNorm { epsilon }).prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => tracked
                .finish((x.clone(), scale.clone()), B::fused_layer_norm(x, scale, shift, epsilon)),
            OpsKind::UnTracked(untracked) => {
                untracked.finish(B::fused_layer_norm(x, scale, shift, epsilon))
            }
        }
    }

    fn fused_rms_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct RmsNorm {
            epsilon: f32,
        }

        impl<B: FusedGradients> Backward<B, 2> for RmsNorm {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = gradients.consume::<B>(&ops.node);
                let (x, scale) = ops.state;
                let for_both = B::rms_norm_gradient(x, scale, gradient, self.epsilon);
                let parents = ops.parents.map(|parent| parent.map(|node| node.id));
                register::<B, 2>(gradients, parents, for_both);
            }
        }

        let (x, x_node) = x.into_parts();
        let (scale, scale_node) = scale.into_parts();
        let operation = RmsNorm { epsilon };
        match operation.prepare::<C>([x_node, scale_node]).compute_bound().stateful() {
            OpsKind::Tracked(tracked) => {
                tracked.finish((x.clone(), scale.clone()), B::fused_rms_norm(x, scale, epsilon))
            }
            OpsKind::UnTracked(untracked) => untracked.finish(B::fused_rms_norm(x, scale, epsilon)),
        }
    }
}
