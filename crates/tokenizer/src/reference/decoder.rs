//! The decoders: codes to patches.

use burn::{
    module::{Module, Param},
    nn::{LayerNorm, Linear},
    tensor::{Device, FloatDType, Tensor, activation::sigmoid, module::linear as linear_layer},
};
use operations::{
    attention::Visibility,
    project,
    tape::{Tape, stack},
};
use tokens::TokenLayout;

use crate::config::{DecoderConfig, DecoderKind, TokenizerConfig};
use crate::reference::{
    attention::DecoderAttention,
    block::{Block, layer_norm, linear, normalize},
    encoder::table,
    patch::unpatchify,
};

/// A patch's values from its token: a linear layer, then one over the three channels of each
/// pixel, then a sigmoid.
#[derive(Module, Debug)]
struct PixelHead {
    patch: Linear,
    color: Linear,
}

impl PixelHead {
    fn new(width: usize, patch_values: usize, device: &Device) -> Self {
        Self { patch: linear(width, patch_values, device), color: linear(3, 3, device) }
    }

    /// # Shapes
    /// `[batch, count, width]` → `[batch, count, patch·patch·3]` in [0, 1].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let patches = project(&self.patch, x);
        let [batch, count, values] = patches.dims();
        let pixels = patches.reshape([batch, count * values / 3, 3]);
        // Three channels gain nothing from less precision.
        let weight = self.color.weight.val().cast(FloatDType::from(pixels.dtype()));
        let bias = self.color.bias.as_ref().map(|bias| bias.val());
        sigmoid(linear_layer(pixels, weight, bias)).reshape([batch, count, values])
    }
}

/// What a decoder makes of a picture's codes, as patches with values in [0, 1].
#[derive(Debug, Clone)]
pub struct Reconstruction {
    /// The picture.
    ///
    /// # Shapes
    /// `[batch, rows·columns, patch·patch·3]`.
    pub patches: Tensor<3>,
    /// The first row (after a repeated first patch, in the released layout) as the prefix
    /// tokens rebuild it, where the decoder has a head for that.
    ///
    /// # Shapes
    /// `[batch, prefix, patch·patch·3]`.
    pub prefix: Option<Tensor<3>>,
}

/// Transformer from codes to patches: causal in stage 1 (paper, 3.2, "Causal decoder", equation
/// 2), bidirectional with buffer tokens in stage 2 ("Retraining a bidirectional decoder").
#[derive(Module, Debug)]
pub struct Decoder {
    embedding: Linear,
    leading: Param<Tensor<2>>,
    positions: Param<Tensor<2>>,
    input_norm: LayerNorm,
    blocks: Vec<Block>,
    output_norm: LayerNorm,
    head: PixelHead,
    prefix_head: Option<PixelHead>,
    #[module(skip)]
    visibility: Visibility,
    #[module(skip)]
    layout: TokenLayout,
    #[module(skip)]
    patch: usize,
}

impl Decoder {
    pub(crate) fn new(
        config: &TokenizerConfig,
        decoder: &DecoderConfig,
        kind: DecoderKind,
        device: &Device,
    ) -> Self {
        let width = decoder.transformer.width;
        let layout = config.layout();
        let head = || PixelHead::new(width, config.patch_values(), device);
        Self {
            embedding: linear(config.token_size, width, device),
            leading: table(decoder.leading, width, device),
            positions: table(decoder.leading + layout.len(), width, device),
            input_norm: layer_norm(width, device),
            blocks: Block::stack(&decoder.transformer, device),
            output_norm: layer_norm(width, device),
            head: head(),
            prefix_head: decoder.prefix_head.then(head),
            visibility: match kind {
                DecoderKind::Causal => Visibility::Causal,
                DecoderKind::Bidirectional => Visibility::Bidirectional,
            },
            layout,
            patch: config.patch,
        }
    }

    /// Rebuilds pictures from their codes.
    ///
    /// # Shapes
    /// `codes [batch, length, token_size]`; see [`Reconstruction`].
    pub fn forward(&self, codes: Tensor<3>) -> Reconstruction {
        self.forward_on(codes, None)
    }

    /// [`forward`](Self::forward), on a tape if there is one.
    pub fn forward_on<'a>(
        &'a self,
        codes: Tensor<3>,
        tape: Option<&mut Tape<'a>>,
    ) -> Reconstruction {
        let [batch, length, _] = codes.dims();
        let visibility = self.visibility;
        let x = self.embed(codes);
        let x = stack(tape, &self.blocks, x, move |block, _, x| block.forward(x, visibility));
        let buffers = self.buffers();
        let x = normalize(&self.output_norm, x.slice([0..batch, buffers..buffers + length]));
        let prefix = self
            .prefix_head
            .as_ref()
            .map(|head| head.forward(x.clone().slice([0..batch, self.layout.prefix_range()])));
        let patches = self.head.forward(x.slice([0..batch, self.layout.grid_range()]));
        Reconstruction { patches, prefix }
    }

    /// What enters the blocks: leading tokens and codes, with their positions.
    ///
    /// # Shapes
    /// `codes [batch, length, token_size]` → `[batch, leading + length, width]`.
    fn embed(&self, codes: Tensor<3>) -> Tensor<3> {
        let x = project(&self.embedding, codes);
        let [batch, _, width] = x.dims();
        let leading = self.leading.val();
        let leading = leading.unsqueeze::<3>().expand([batch, self.buffers(), width]);
        let x = Tensor::cat(vec![leading, x], 1) + self.positions.val().unsqueeze();
        normalize(&self.input_norm, x)
    }

    /// How many leading tokens there are.
    fn buffers(&self) -> usize {
        let [buffers, _] = self.leading.dims();
        buffers
    }

    /// Where the patches of pictures look on their way through [`forward`](Self::forward) (paper,
    /// Figs. 8 and 11).
    ///
    /// # Shapes
    /// `codes [batch, length, token_size]`.
    pub fn attention(&self, codes: Tensor<3>) -> DecoderAttention {
        let buffers = self.buffers();
        let mut attention = DecoderAttention::new(self.layout, self.blocks.len());
        let mut x = self.embed(codes);
        for (layer, block) in self.blocks.iter().enumerate() {
            let weights = block.attention_weights(x.clone(), self.visibility);
            let [batch, heads, positions, _] = weights.dims();
            let patches = buffers + self.layout.prefix()..positions;
            let seen = weights.slice([0..batch, 0..heads, patches, buffers..positions]);
            attention.add(layer, seen.mean_dim(1).squeeze_dim(1));
            x = block.forward(x, self.visibility);
        }
        attention
    }

    /// Rebuilds pictures from their codes, as pixels.
    ///
    /// # Shapes
    /// `codes [batch, length, token_size]` → `[batch, 3, height, width]` in [0, 1].
    pub fn images(&self, codes: Tensor<3>) -> Tensor<4> {
        unpatchify(self.forward(codes).patches, self.patch, self.layout.columns())
    }
}
