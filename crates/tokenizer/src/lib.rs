//! The AliTok image tokenizer: pixels to tokens and back (paper, section 3.2).
//!
//! A bidirectional [`Encoder`] condenses a picture into latent tokens, a [`Quantizer`] replaces
//! each by the nearest code, and a [`Decoder`] turns codes into pixels: a causal one while the
//! encoder learns (stage 1), a bidirectional one for the final pictures (stage 2).

mod block;
mod clustering;
mod config;
mod decoder;
mod encoder;
mod inference;
mod initialization;
mod model;
pub mod patch;
pub mod presets;
mod quantizer;
mod resize;

pub use clustering::{Anchor, Clustering, ClusteringConfig};
pub use config::{
    ConfigError, DecoderConfig, DecoderKind, EncoderInput, ImageSize, TokenizerConfig,
    TransformerConfig,
};
pub use decoder::{Decoder, Reconstruction};
pub use encoder::Encoder;
pub use initialization::{Initialization, Positions};
pub use model::{FrozenEncoder, Tokenizer};
pub use quantizer::{COMMITMENT, Quantized, Quantizer};
pub use resize::resize;
