//! The transformer block: attention and a gated feed-forward network, each after a norm.

use burn::{
    module::Module,
    nn::{Linear, RmsNorm},
    tensor::{Device, Tensor},
};
use operations::{
    attention::{Visibility, attention},
    fused,
    layers::{self, FeedForward, linear, normalize},
    project,
};

use crate::config::{GeneratorConfig, NORM_EPSILON};
use crate::reference::{
    cache::LayerCache,
    dropout::{Dropout, Place},
    rotation::Rotation,
};

pub(crate) fn rms_norm(width: usize, device: &Device) -> RmsNorm {
    layers::rms_norm(width, NORM_EPSILON, device)
}

/// Where a forward pass stands: which positions it sees, at which layer, with what memory.
pub(crate) struct Context<'a> {
    pub(crate) rotation: &'a Rotation,
    pub(crate) layer: usize,
    pub(crate) dropout: Option<&'a Dropout>,
    /// The layer's cache and the one position to decode; without, whole sequences are seen.
    pub(crate) memory: Option<(&'a mut LayerCache, usize)>,
}

impl Context<'_> {
    fn drop<const D: usize>(&self, x: Tensor<D>, place: Place) -> Tensor<D> {
        match self.dropout {
            Some(dropout) => dropout.apply(x, place),
            None => x,
        }
    }
}

/// Causal self-attention with root-mean-square norms on each head's queries and keys (QK-norm;
/// paper, 3.3) and rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values of all heads, in this order.
    pub query_key_value: Linear,
    /// Norm of each head's query.
    pub query_norm: RmsNorm,
    /// Norm of each head's key.
    pub key_norm: RmsNorm,
    /// Joins the heads.
    pub projection: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    key_value_heads: usize,
}

impl Attention {
    /// # Shapes
    /// `[batch, positions, width]`, kept.
    fn forward(&self, x: Tensor<3>, context: &mut Context<'_>) -> Tensor<3> {
        let [batch, positions, width] = x.dims();
        let layer = context.layer;
        let packed = self.share(project(&self.query_key_value, x));
        let Some((cache, position)) = &mut context.memory else {
            let packed = context.rotation.apply_to_all(packed, &self.query_norm, &self.key_norm);
            let place = Place::Probabilities { layer };
            let dropout = context.dropout.and_then(|dropout| dropout.of_attention(place));
            let mixed = fused::self_attention(packed, self.heads, true, dropout.as_ref());
            return context.drop(project(&self.projection, mixed), Place::Attention { layer });
        };
        let head = width / self.heads;
        let split = |part: Tensor<3>| part.reshape([batch, positions, self.heads, head]);
        let [query, key, value] =
            packed.chunk(3, 2).try_into().expect("three chunks of three widths");
        let rotation = context.rotation;
        let query = rotation.apply(normalize(&self.query_norm, split(query)).swap_dims(1, 2));
        let key = rotation.apply(normalize(&self.key_norm, split(key)).swap_dims(1, 2));
        let value = split(value).swap_dims(1, 2);

        // The one query is the last position: it sees everything.
        let (key, value) = cache.extend(*position, key, value);
        let mixed = attention(query, key, value, Visibility::Bidirectional);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, positions, width]);
        context.drop(project(&self.projection, mixed), Place::Attention { layer })
    }

    /// Gives each query head a key and value of its own, by repeating those that it shares.
    ///
    /// # Shapes
    /// `[batch, positions, width + 2·key_value_width]` → `[batch, positions, 3·width]`.
    fn share(&self, packed: Tensor<3>) -> Tensor<3> {
        if self.key_value_heads == self.heads {
            return packed;
        }
        let [batch, positions, all] = packed.dims();
        let head = all / (self.heads + 2 * self.key_value_heads);
        let (width, shared) = (self.heads * head, self.key_value_heads * head);
        let part = |start: usize, length: usize| {
            packed.clone().slice([0..batch, 0..positions, start..start + length])
        };
        let repeated = |start: usize| {
            part(start, shared)
                .reshape([batch, positions, self.key_value_heads, 1, head])
                .repeat_dim(3, self.heads / self.key_value_heads)
                .reshape([batch, positions, width])
        };
        Tensor::cat(vec![part(0, width), repeated(width), repeated(width + shared)], 2)
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
    pub(crate) fn new(config: &GeneratorConfig, device: &Device) -> Self {
        let (width, hidden) = (config.width, config.hidden());
        Self {
            attention_norm: rms_norm(width, device),
            attention: Attention {
                query_key_value: linear(width, width + 2 * config.key_value_width(), true, device),
                query_norm: rms_norm(config.head(), device),
                key_norm: rms_norm(config.head(), device),
                projection: linear(width, width, true, device),
                heads: config.heads,
                key_value_heads: config.key_value_heads(),
            },
            feed_forward_norm: rms_norm(width, device),
            feed_forward: FeedForward::new(width, hidden, device),
        }
    }

    /// # Shapes
    /// `[batch, positions, width]`, kept.
    pub(crate) fn forward(&self, x: Tensor<3>, mut context: Context<'_>) -> Tensor<3> {
        let mixed =
            self.attention.forward(normalize(&self.attention_norm, x.clone()), &mut context);
        let x = x + mixed;
        let place = Place::FeedForward { layer: context.layer };
        let hidden = self.feed_forward.forward(normalize(&self.feed_forward_norm, x.clone()));
        x + context.drop(hidden, place)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use files::HostTensor;
    use operations::parameters::replace;
    use tokens::{
        TokenLayout,
        noise::{Noise, Purpose},
    };

    use super::*;
    use crate::{presets, rotary::Rotary};

    const LAYOUT: TokenLayout = TokenLayout::new(2, 2, 2);

    fn noise(count: usize, address: u64) -> Vec<f32> {
        let mut noise = Noise::new(address, Purpose::Initialization, 0, 0);
        (0..count).map(|_| 0.3 * noise.normal() as f32).collect()
    }

    /// A block of noise and its input `[2, 5, width]`.
    fn noisy(device: &Device) -> (Block, Tensor<3>, Rotation) {
        let config = GeneratorConfig { width: 16, heads: 2, ..presets::mini(LAYOUT, 8, 2) };
        let block = replace(Block::new(&config, device), |name, shape| {
            let count = shape.iter().product();
            Some(HostTensor::new(shape, noise(count, name.len() as u64)))
        });
        let x = TensorData::new(noise(160, 0), [2, 5, 16]);
        let rotation = Rotation::new(&Rotary::new(&LAYOUT, config.head()), 1, 0..5, device);
        (block, Tensor::from_data(x, device), rotation)
    }

    fn values(x: Tensor<3>) -> Vec<f32> {
        operations::parameters::host_tensor(x).values
    }

    #[test]
    fn should_drop_everything_that_a_block_adds_at_a_rate_of_almost_one() {
        let (block, x, rotation) = noisy(&Device::flex());
        let through = |dropout: Option<&Dropout>| {
            let context = Context { rotation: &rotation, layer: 0, dropout, memory: None };
            values(block.forward(x.clone(), context))
        };
        let rate = 1.0 - 2f64.powi(-40);
        let everything = Dropout { rate, seed: 1, step: 0, first_sample: 0 };
        assert_eq!(through(Some(&everything)), values(x.clone()));
        assert_ne!(through(None), values(x.clone()));
    }

    #[test]
    fn should_drop_attention_probabilities_too() {
        let (block, x, rotation) = noisy(&Device::flex());
        let through = |dropout: Option<&Dropout>| {
            let mut context = Context { rotation: &rotation, layer: 0, dropout, memory: None };
            values(block.attention.forward(x.clone(), &mut context))
        };
        let half = Dropout { rate: 0.5, seed: 1, step: 0, first_sample: 0 };
        let (dropped, whole) = (through(Some(&half)), through(None));
        // Of the outputs, dropout alone would leave zeros and twice the undropped numbers.
        let mixed = dropped
            .iter()
            .zip(&whole)
            .filter(|&(dropped, whole)| *dropped != 0.0 && (dropped - 2.0 * whole).abs() > 1e-3);
        assert!(mixed.count() > whole.len() / 4);
    }
}
