//! The AliTok image tokenizer: pixels to tokens and back (paper, section 3.2).
//!
//! A bidirectional [`Encoder`] condenses a picture into latent tokens, a [`Quantizer`] replaces
//! each by the nearest code, and a [`Decoder`] turns codes into pixels: a causal one while the
//! encoder learns (stage 1), a bidirectional one for the final pictures (stage 2).

#[cfg(feature = "burn")]
mod attention;
#[cfg(feature = "burn")]
mod block;
#[cfg(feature = "burn")]
mod clustering;
mod config;
#[cfg(feature = "burn")]
mod decoder;
#[cfg(feature = "burn")]
mod encoder;
#[cfg(feature = "burn")]
mod inference;
#[cfg(feature = "burn")]
mod initialization;
#[cfg(feature = "burn")]
mod model;
#[cfg(feature = "burn")]
pub mod patch;
pub mod presets;
#[cfg(feature = "burn")]
mod quantizer;
#[cfg(feature = "burn")]
mod resize;

#[cfg(feature = "burn")]
pub use attention::{DecoderAttention, LocalPattern};
#[cfg(feature = "burn")]
pub use clustering::{Anchor, Clustering, ClusteringConfig};
pub use config::{
    ConfigError, DecoderConfig, DecoderKind, EncoderInput, ImageSize, NORM_EPSILON,
    TokenizerConfig, TransformerConfig,
};
#[cfg(feature = "burn")]
pub use decoder::{Decoder, Reconstruction};
#[cfg(feature = "burn")]
pub use encoder::Encoder;
#[cfg(feature = "burn")]
pub use initialization::{Initialization, Positions};
#[cfg(feature = "burn")]
pub use model::{FrozenEncoder, Tokenizer};
#[cfg(feature = "burn")]
pub use quantizer::{COMMITMENT, Quantized, Quantizer};
#[cfg(feature = "burn")]
pub use resize::resize;
