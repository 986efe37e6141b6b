//! The vision transformer's block: attention and a feed-forward network, each after a norm.

use burn::{
    module::{Initializer, Module},
    nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Device, Tensor},
};
use operations::{
    attention::{Visibility, self_attention_weights},
    fused::{self, self_attention},
    project,
};

use crate::config::{NORM_EPSILON, TransformerConfig};

/// A linear layer of zeros; [`Initialization`](crate::reference::Initialization) gives it its values.
pub(crate) fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs).with_initializer(Initializer::Zeros).init(device)
}

pub(crate) fn layer_norm(width: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(NORM_EPSILON).init(device)
}

/// # Shapes
/// `[batch, length, width]`, kept.
pub(crate) fn normalize(norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
    match &norm.beta {
        Some(shift) => fused::layer_norm(x, norm.gamma.val(), shift.val(), NORM_EPSILON),
        None => norm.forward(x),
    }
}

/// Multi-head self-attention. Upstream: `Attention` in the authors' `vae_stage1.py`.
#[derive(Module, Debug)]
pub(crate) struct SelfAttention {
    query_key_value: Linear,
    projection: Linear,
    #[module(skip)]
    heads: usize,
}

impl SelfAttention {
    /// # Shapes
    /// `[batch, length, width]`, kept.
    fn forward(&self, x: Tensor<3>, visibility: Visibility) -> Tensor<3> {
        let causal = visibility == Visibility::Causal;
        let mixed = self_attention(project(&self.query_key_value, x), self.heads, causal, None);
        project(&self.projection, mixed)
    }

    /// # Shapes
    /// `[batch, length, width]` → `[batch, heads, length, length]`.
    fn weights(&self, x: Tensor<3>, visibility: Visibility) -> Tensor<4> {
        self_attention_weights(project(&self.query_key_value, x), self.heads, visibility)
    }
}

/// Two linear layers with an exact GELU between them.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
}

/// A pre-norm transformer block. Upstream: `ResidualAttentionBlock` in `vae_stage1.py`.
#[derive(Module, Debug)]
pub(crate) struct Block {
    attention_norm: LayerNorm,
    attention: SelfAttention,
    feed_forward_norm: LayerNorm,
    feed_forward: FeedForward,
}

impl Block {
    pub(crate) fn new(config: &TransformerConfig, device: &Device) -> Self {
        let width = config.width;
        Self {
            attention_norm: layer_norm(width, device),
            attention: SelfAttention {
                query_key_value: linear(width, 3 * width, device),
                projection: linear(width, width, device),
                heads: config.heads,
            },
            feed_forward_norm: layer_norm(width, device),
            feed_forward: FeedForward {
                up: linear(width, config.hidden(), device),
                down: linear(config.hidden(), width, device),
            },
        }
    }

    pub(crate) fn stack(config: &TransformerConfig, device: &Device) -> Vec<Self> {
        (0..config.layers).map(|_| Self::new(config, device)).collect()
    }

    /// # Shapes
    /// `[batch, length, width]`, kept.
    pub(crate) fn forward(&self, x: Tensor<3>, visibility: Visibility) -> Tensor<3> {
        let mixed = self.attention.forward(normalize(&self.attention_norm, x.clone()), visibility);
        let x = x + mixed;
        let hidden = project(&self.feed_forward.up, normalize(&self.feed_forward_norm, x.clone()));
        x + project(&self.feed_forward.down, fused::gelu(hidden))
    }

    /// What each position takes of each other's value on the way through [`forward`](Self::forward).
    ///
    /// # Shapes
    /// `[batch, length, width]` → `[batch, heads, queries, keys]`.
    pub(crate) fn attention_weights(&self, x: Tensor<3>, visibility: Visibility) -> Tensor<4> {
        self.attention.weights(normalize(&self.attention_norm, x), visibility)
    }
}
