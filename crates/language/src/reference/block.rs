//! The transformer block of Qwen2: attention and a gated feed-forward network, each after a norm.

use burn::{
    module::Module,
    nn::{Linear, RmsNorm},
    tensor::{Device, Tensor},
};
use operations::{
    fused,
    layers::{self, FeedForward, linear, normalize},
    project,
};

use crate::{LanguageConfig, reference::rotation::Rotation};

pub(crate) fn rms_norm(config: &LanguageConfig, device: &Device) -> RmsNorm {
    layers::rms_norm(config.width, config.norm_epsilon, device)
}

/// Causal self-attention in which several heads of queries share one of keys and values
/// (grouped-query attention, Ainslie et al. 2023), with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries of all heads, then the keys and the values of theirs.
    pub query_key_value: Linear,
    /// Joins the heads; without bias.
    pub projection: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    key_value_heads: usize,
}

impl Attention {
    /// # Shapes
    /// `[batch, positions, width]`, kept.
    fn forward(&self, x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
        let [batch, positions, width] = x.dims();
        let head = width / self.heads;
        let shared = self.key_value_heads * head;
        let packed = project(&self.query_key_value, x);
        let part = |packed: Tensor<3>, start: usize, length: usize| {
            packed.slice([0..batch, 0..positions, start..start + length])
        };
        // Queries and keys turn; values do not.
        let turning = part(packed.clone(), 0, width + shared);
        let turning = turning.reshape([batch, positions, self.heads + self.key_value_heads, head]);
        let turned = rotation.apply(turning).reshape([batch, positions, width + shared]);
        let query = part(turned.clone(), 0, width);
        let key = self.repeated(part(turned, width, shared));
        let value = self.repeated(part(packed, width + shared, shared));
        let packed = Tensor::cat(vec![query, key, value], 2);
        project(&self.projection, fused::self_attention(packed, self.heads, true, None))
    }

    /// Gives each query head a key or value of its own, by repeating those that it shares.
    ///
    /// # Shapes
    /// `[batch, positions, key_value_width]` → `[batch, positions, width]`.
    fn repeated(&self, x: Tensor<3>) -> Tensor<3> {
        if self.key_value_heads == self.heads {
            return x;
        }
        let [batch, positions, shared] = x.dims();
        let head = shared / self.key_value_heads;
        x.reshape([batch, positions, self.key_value_heads, 1, head])
            .repeat_dim(3, self.heads / self.key_value_heads)
            .reshape([batch, positions, self.heads * head])
    }
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before attention.
    pub attention_norm: RmsNorm,
    /// Mixes positions.
    pub attention: Attention,
    /// Norm before the feed-forward.
    pub feed_forward_norm: RmsNorm,
    /// Works on each position alone.
    pub feed_forward: FeedForward,
}

impl Block {
    pub(crate) fn new(config: &LanguageConfig, device: &Device) -> Self {
        let (width, hidden) = (config.width, config.hidden);
        Self {
            attention_norm: rms_norm(config, device),
            attention: Attention {
                query_key_value: linear(width, width + 2 * config.key_value_width(), true, device),
                projection: linear(width, width, false, device),
                heads: config.heads,
                key_value_heads: config.key_value_heads,
            },
            feed_forward_norm: rms_norm(config, device),
            feed_forward: FeedForward::new(width, hidden, device),
        }
    }

    /// # Shapes
    /// `[batch, positions, width]`, kept.
    pub(crate) fn forward(&self, x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
        let mixed = self.attention.forward(normalize(&self.attention_norm, x.clone()), rotation);
        let x = x + mixed;
        let hidden = self.feed_forward.forward(normalize(&self.feed_forward_norm, x.clone()));
        x + hidden
    }
}
