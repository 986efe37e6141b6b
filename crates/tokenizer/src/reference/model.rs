//! The tokenizer as a whole, and its frozen half.

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};

use crate::config::{ConfigError, DecoderKind, TokenizerConfig};
use crate::reference::{
    attention::DecoderAttention,
    decoder::Decoder,
    encoder::Encoder,
    initialization::Initialization,
    quantizer::{Quantizer, plain},
};

/// Encoder, quantizer and one or both decoders.
#[derive(Module, Debug)]
pub struct Tokenizer {
    /// Pictures to features.
    pub encoder: Encoder,
    /// Features to codes.
    pub quantizer: Quantizer,
    /// Codes to patches, each from its own and earlier codes.
    pub causal_decoder: Option<Decoder>,
    /// Codes to patches, each from all codes.
    pub bidirectional_decoder: Option<Decoder>,
    #[module(skip)]
    config: TokenizerConfig,
}

impl TokenizerConfig {
    /// A tokenizer whose parameters are zeros (and ones in norms), ready to be loaded.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    pub fn build(&self, device: &Device) -> Result<Tokenizer, ConfigError> {
        self.validate()?;
        let decoder =
            |kind| self.decoder(kind).ok().map(|config| Decoder::new(self, config, kind, device));
        Ok(Tokenizer {
            encoder: Encoder::new(self, device),
            quantizer: Quantizer::new(self, device),
            causal_decoder: decoder(DecoderKind::Causal),
            bidirectional_decoder: decoder(DecoderKind::Bidirectional),
            config: self.clone(),
        })
    }

    /// A tokenizer that has learned nothing yet.
    ///
    /// # Errors
    /// If the architecture cannot be built.
    pub fn initialize(
        &self,
        initialization: &Initialization,
        device: &Device,
    ) -> Result<Tokenizer, ConfigError> {
        Ok(initialization.apply(self.build(device)?, self.layout()))
    }

    /// One decoder that has learned nothing yet, as the second stage starts with.
    ///
    /// # Errors
    /// If the architecture cannot be built or has no such decoder.
    pub fn initialize_decoder(
        &self,
        kind: DecoderKind,
        initialization: &Initialization,
        device: &Device,
    ) -> Result<Decoder, ConfigError> {
        self.validate()?;
        let decoder = Decoder::new(self, self.decoder(kind)?, kind, device);
        Ok(initialization.apply(decoder, self.layout()))
    }
}

impl Tokenizer {
    /// The architecture.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// One of the decoders.
    ///
    /// # Errors
    /// If the model does not have it.
    pub fn decoder(&self, kind: DecoderKind) -> Result<&Decoder, ConfigError> {
        match kind {
            DecoderKind::Causal => self.causal_decoder.as_ref(),
            DecoderKind::Bidirectional => self.bidirectional_decoder.as_ref(),
        }
        .ok_or(ConfigError::NoDecoder(kind))
    }

    /// The tokens of pictures.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, length]`.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<2, Int> {
        self.quantizer.nearest(self.encoder.forward(images))
    }

    /// The pictures of tokens.
    ///
    /// # Shapes
    /// `tokens [batch, length]` → `[batch, 3, height, width]` in [0, 1].
    ///
    /// # Errors
    /// If the model does not have the decoder.
    pub fn decode(
        &self,
        tokens: Tensor<2, Int>,
        kind: DecoderKind,
    ) -> Result<Tensor<4>, ConfigError> {
        Ok(self.decoder(kind)?.images(self.quantizer.codes(tokens)))
    }

    /// Where the patches of pictures look in a decoder (paper, Figs. 8 and 11).
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1].
    ///
    /// # Errors
    /// If the model does not have the decoder.
    pub fn attention(
        &self,
        images: Tensor<4>,
        kind: DecoderKind,
    ) -> Result<DecoderAttention, ConfigError> {
        Ok(self.decoder(kind)?.attention(self.quantizer.codes(self.encode(images))))
    }

    /// The half that the second stage and the token cache use.
    pub fn frozen_encoder(&self) -> FrozenEncoder {
        FrozenEncoder {
            encoder: self.encoder.valid(),
            quantizer: self.quantizer.valid(),
            config: self.config.clone(),
        }
    }
}

/// Encoder, latents and codebook, out of reach of any optimizer: this type is no module, owns
/// its parameters on a device without gradients, and hands out nothing that could change them.
/// The second stage trains a decoder against it (paper, 3.2).
#[derive(Debug, Clone)]
pub struct FrozenEncoder {
    encoder: Encoder,
    quantizer: Quantizer,
    config: TokenizerConfig,
}

impl FrozenEncoder {
    /// The architecture that it is part of.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.quantizer.codebook().device()
    }

    /// The tokens of pictures.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, length]`.
    pub fn encode(&self, images: Tensor<4>) -> Tensor<2, Int> {
        self.quantizer.nearest(self.encoder.forward(plain(images)))
    }

    /// The codes of pictures.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, length, token_size]`.
    pub fn codes(&self, images: Tensor<4>) -> Tensor<3> {
        self.quantizer.codes(self.encode(images))
    }
}
