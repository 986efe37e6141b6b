//! The encoder: a picture to one feature a token.

use burn::{
    module::{Initializer, Module, Param},
    nn::{LayerNorm, Linear},
    tensor::{Device, Tensor},
};
use operations::{
    attention::Visibility,
    project,
    tape::{Tape, stack},
};

use crate::config::{EncoderInput, TokenizerConfig};
use crate::reference::{
    block::{Block, layer_norm, linear, normalize},
    patch::patchify,
};

pub(crate) fn table(rows: usize, width: usize, device: &Device) -> Param<Tensor<2>> {
    Initializer::Zeros.init([rows, width], device)
}

/// The learned tokens that carry a picture's content out of the encoder.
#[derive(Module, Debug)]
pub(crate) struct Latents {
    tokens: Param<Tensor<2>>,
    positions: Param<Tensor<2>>,
}

/// Bidirectional transformer over patches and latents, of which only the latents leave (paper,
/// 3.2, "Definition"); or a causal one over patches alone (A.2).
#[derive(Module, Debug)]
pub struct Encoder {
    patch_embedding: Linear,
    positions: Param<Tensor<2>>,
    latents: Option<Latents>,
    input_norm: LayerNorm,
    blocks: Vec<Block>,
    output_norm: LayerNorm,
    to_code: Linear,
    #[module(skip)]
    patch: usize,
}

impl Encoder {
    pub(crate) fn new(config: &TokenizerConfig, device: &Device) -> Self {
        let width = config.encoder.width;
        let layout = config.layout();
        let latents = match config.encoder_input {
            EncoderInput::CausalPatches => None,
            EncoderInput::PatchesAndLatents => Some(Latents {
                tokens: table(layout.len(), width, device),
                positions: table(layout.len(), width, device),
            }),
        };
        Self {
            patch_embedding: linear(config.patch_values(), width, device),
            positions: table(layout.grid(), width, device),
            latents,
            input_norm: layer_norm(width, device),
            blocks: Block::stack(&config.encoder, device),
            output_norm: layer_norm(width, device),
            to_code: linear(width, config.token_size, device),
            patch: config.patch,
        }
    }

    /// The features of pictures, before quantization.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, length, token_size]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<3> {
        self.forward_on(images, None)
    }

    /// [`forward`](Self::forward), on a tape if there is one.
    pub fn forward_on<'a>(&'a self, images: Tensor<4>, tape: Option<&mut Tape<'a>>) -> Tensor<3> {
        let patches = project(&self.patch_embedding, patchify(images, self.patch));
        let patches = patches + self.positions.val().unsqueeze();
        let [batch, grid, width] = patches.dims();
        let (x, visibility) = match &self.latents {
            Some(latents) => {
                let latents = latents.tokens.val() + latents.positions.val();
                let [length, _] = latents.dims();
                let latents = latents.unsqueeze::<3>().expand([batch, length, width]);
                (Tensor::cat(vec![patches, latents], 1), Visibility::Bidirectional)
            }
            None => (patches, Visibility::Causal),
        };
        let x = normalize(&self.input_norm, x);
        let mut x = stack(tape, &self.blocks, x, move |block, _, x| block.forward(x, visibility));
        if self.latents.is_some() {
            let [_, length, _] = x.dims();
            x = x.slice([0..batch, grid..length]);
        }
        project(&self.to_code, normalize(&self.output_norm, x))
    }
}
