//! The architecture of a tokenizer. What can be derived is a method, never a field.

use serde::{Deserialize, Serialize};
use tokens::TokenLayout;

/// Added to the variance in every norm (PyTorch's default).
pub const NORM_EPSILON: f64 = 1e-5;

/// Height and width of the pictures, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSize {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl ImageSize {
    /// A square picture.
    pub const fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }
}

/// The size of a vision transformer. Its feed-forward layers are four times as wide as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads; divides the width.
    pub heads: usize,
}

impl TransformerConfig {
    /// Width of the hidden layer in a feed-forward network.
    pub const fn hidden(&self) -> usize {
        4 * self.width
    }

    /// Parameters of all blocks.
    const fn block_parameters(&self) -> usize {
        let width = self.width;
        let norms = 2 * 2 * width;
        let attention = linear(width, 3 * width) + linear(width, width);
        let feed_forward = linear(width, self.hidden()) + linear(self.hidden(), width);
        self.layers * (norms + attention + feed_forward)
    }
}

const fn linear(inputs: usize, outputs: usize) -> usize {
    inputs * outputs + outputs
}

/// What the encoder reads and hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderInput {
    /// Patches and latents, all seeing all; the encoded latents are the code (paper, 3.2).
    PatchesAndLatents,
    /// Patches alone, each seeing only itself and earlier ones; the encoded patches are the code
    /// (paper, A.2: the "intuitive" causal encoder).
    CausalPatches,
}

/// The two decoders that a tokenizer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderKind {
    /// Each patch is rebuilt from its own and earlier tokens (stage 1).
    Causal,
    /// Every patch is rebuilt from all tokens (stage 2, and the baseline of the ablation).
    Bidirectional,
}

impl DecoderKind {
    /// The name of this decoder in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Causal => "causal",
            Self::Bidirectional => "bidirectional",
        }
    }

    /// What the names of its parameters begin with, before a dot.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Causal => "causal_decoder",
            Self::Bidirectional => "bidirectional_decoder",
        }
    }
}

impl std::fmt::Display for DecoderKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The architecture of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Size of the transformer.
    pub transformer: TransformerConfig,
    /// Learned tokens before the codes: the paper's buffer tokens, 64 in its second stage.
    pub leading: usize,
    /// Whether the prefix tokens rebuild the first row through a head of their own, as the
    /// auxiliary loss of the first stage needs.
    pub prefix_head: bool,
}

/// The architecture of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Size of the pictures.
    pub image: ImageSize,
    /// Side of a square patch, in pixels.
    pub patch: usize,
    /// Number of prefix tokens, K.
    pub prefix: usize,
    /// Number of codes in the codebook.
    pub codes: usize,
    /// Width of a code.
    pub token_size: usize,
    /// What the encoder reads.
    pub encoder_input: EncoderInput,
    /// Size of the encoder.
    pub encoder: TransformerConfig,
    /// The decoder in which a patch sees no later token, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causal_decoder: Option<DecoderConfig>,
    /// The decoder in which a patch sees all tokens, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bidirectional_decoder: Option<DecoderConfig>,
}

/// Longest side of a picture, in pixels. Products of this and the other limits fit 64 bits.
const MOST_SIDE: usize = 1 << 14;
/// Most tokens of a kind.
const MOST_TOKENS: usize = 1 << 16;
/// Largest width.
const MOST_WIDTH: usize = 1 << 16;
/// Most blocks of a transformer.
const MOST_LAYERS: usize = 1 << 10;

/// An architecture that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A size that must be positive is zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A size beyond all that is ever built, which a damaged or hostile file may state.
    #[error("`{name}` is {value}, and at most {most} is possible")]
    TooLarge {
        /// Name of the field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest possible value.
        most: usize,
    },
    /// A picture does not divide into patches.
    #[error("a picture of {height} × {width} pixels does not divide into patches of {patch}")]
    Patch {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Side of a patch.
        patch: usize,
    },
    /// The heads do not divide the width.
    #[error("{heads} attention heads do not divide a width of {width}")]
    Heads {
        /// Width of the transformer.
        width: usize,
        /// Number of heads.
        heads: usize,
    },
    /// More codes than 16-bit tokens can name.
    #[error("{0} codes are too many: tokens have 16 bits")]
    Codes(usize),
    /// The causal encoder has no latents that could be a prefix.
    #[error("the causal encoder has no latents, so `prefix` must be 0")]
    CausalPrefix,
    /// The prefix head needs a prefix that covers the first row.
    #[error(
        "`prefix` is {prefix}, and the prefix head, which rebuilds the first row of {columns} patches (or \
         the first patch and that row), needs {columns} or {} prefix tokens; set `prefix` to one of \
         these (`--set architecture.prefix={columns}`), or \
         `architecture.causal_decoder.prefix_head=false`", columns + 1
    )]
    PrefixHead {
        /// Number of prefix tokens.
        prefix: usize,
        /// Patches in a row.
        columns: usize,
    },
    /// The model does not have the decoder that was asked for.
    #[error("the model has no {0} decoder")]
    NoDecoder(DecoderKind),
}

impl TokenizerConfig {
    /// How the tokens of a picture are laid out.
    pub const fn layout(&self) -> TokenLayout {
        TokenLayout::new(self.prefix, self.image.height / self.patch, self.image.width / self.patch)
    }

    /// Values in a patch: its pixels in three channels.
    pub const fn patch_values(&self) -> usize {
        3 * self.patch * self.patch
    }

    /// The configuration of one of the decoders.
    ///
    /// # Errors
    /// If the model does not have it.
    pub fn decoder(&self, kind: DecoderKind) -> Result<&DecoderConfig, ConfigError> {
        match kind {
            DecoderKind::Causal => self.causal_decoder.as_ref(),
            DecoderKind::Bidirectional => self.bidirectional_decoder.as_ref(),
        }
        .ok_or(ConfigError::NoDecoder(kind))
    }

    /// The decoder that makes the best pictures: the bidirectional one where there is one.
    pub const fn best_decoder(&self) -> Option<DecoderKind> {
        match (&self.bidirectional_decoder, &self.causal_decoder) {
            (Some(_), _) => Some(DecoderKind::Bidirectional),
            (None, Some(_)) => Some(DecoderKind::Causal),
            (None, None) => None,
        }
    }

    /// The prefix's target in the auxiliary loss: for each prefix token the column of the patch
    /// in the first row that it rebuilds.
    ///
    /// The paper has one prefix token a column. The released code has one more, in front, which
    /// rebuilds the first patch again.
    pub fn prefix_columns(&self) -> Vec<usize> {
        let extra = self.prefix.saturating_sub(self.layout().columns());
        (0..self.prefix).map(|index| index.saturating_sub(extra)).collect()
    }

    /// Parameters of the encoder, latents included.
    pub const fn encoder_parameters(&self) -> usize {
        let width = self.encoder.width;
        let latents = match self.encoder_input {
            EncoderInput::PatchesAndLatents => 2 * self.layout().len() * width,
            EncoderInput::CausalPatches => 0,
        };
        linear(self.patch_values(), width)
            + self.layout().grid() * width
            + latents
            + 2 * 2 * width
            + self.encoder.block_parameters()
            + linear(width, self.token_size)
    }

    /// Parameters of the codebook.
    pub const fn codebook_parameters(&self) -> usize {
        self.codes * self.token_size
    }

    /// Parameters of a decoder, without its prefix head (which the paper does not count either).
    pub const fn decoder_parameters(&self, decoder: &DecoderConfig) -> usize {
        let width = decoder.transformer.width;
        linear(self.token_size, width)
            + decoder.leading * width
            + (decoder.leading + self.layout().len()) * width
            + 2 * 2 * width
            + decoder.transformer.block_parameters()
            + self.head_parameters(decoder)
    }

    /// Parameters of one pixel head of a decoder.
    pub const fn head_parameters(&self, decoder: &DecoderConfig) -> usize {
        linear(decoder.transformer.width, self.patch_values()) + linear(3, 3)
    }

    /// Checks that the architecture can be built.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let decoders = [&self.causal_decoder, &self.bidirectional_decoder];
        let transformers = std::iter::once(&self.encoder)
            .chain(decoders.iter().filter_map(|d| d.as_ref().map(|d| &d.transformer)));
        let sizes = [
            ("patch", self.patch, MOST_SIDE),
            ("image.height", self.image.height, MOST_SIDE),
            ("image.width", self.image.width, MOST_SIDE),
            ("codes", self.codes, usize::MAX), // has an error of its own
            ("token_size", self.token_size, MOST_WIDTH),
        ];
        if let Some((name, ..)) = sizes.into_iter().find(|(_, size, _)| *size == 0) {
            return Err(ConfigError::Zero(name));
        }
        let leading = decoders.iter().filter_map(|d| d.as_ref().map(|d| ("leading", d.leading)));
        let layers = transformers.clone().map(|transformer| ("layers", transformer.layers));
        let widths = transformers.clone().map(|transformer| ("width", transformer.width));
        let all = sizes
            .into_iter()
            .chain([("prefix", self.prefix, MOST_TOKENS)])
            .chain(leading.map(|(name, value)| (name, value, MOST_TOKENS)))
            .chain(layers.map(|(name, value)| (name, value, MOST_LAYERS)))
            .chain(widths.map(|(name, value)| (name, value, MOST_WIDTH)));
        if let Some((name, value, most)) = all.into_iter().find(|(_, value, most)| value > most) {
            return Err(ConfigError::TooLarge { name, value, most });
        }
        let ImageSize { height, width } = self.image;
        if height % self.patch != 0 || width % self.patch != 0 {
            return Err(ConfigError::Patch { height, width, patch: self.patch });
        }
        for transformer in transformers {
            let TransformerConfig { width, heads, .. } = *transformer;
            if width == 0 {
                return Err(ConfigError::Zero("width"));
            }
            if heads == 0 || width % heads != 0 {
                return Err(ConfigError::Heads { width, heads });
            }
        }
        if self.codes > usize::from(u16::MAX) + 1 {
            return Err(ConfigError::Codes(self.codes));
        }
        if self.encoder_input == EncoderInput::CausalPatches && self.prefix != 0 {
            return Err(ConfigError::CausalPrefix);
        }
        let columns = self.layout().columns();
        let prefix_head = decoders.iter().any(|d| d.as_ref().is_some_and(|d| d.prefix_head));
        if prefix_head && self.prefix != columns && self.prefix != columns + 1 {
            return Err(ConfigError::PrefixHead { prefix: self.prefix, columns });
        }
        Ok(())
    }
}
