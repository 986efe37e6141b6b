//! The AliTok image tokenizer: pixels to tokens and back (paper, section 3.2).
//!
//! A bidirectional encoder condenses a picture into latent tokens, a quantizer replaces each by the
//! nearest code, and a decoder turns codes into pixels: a causal one while the encoder learns
//! (stage 1), a bidirectional one for the final pictures (stage 2).
//!
//! The crate itself is the architecture, without tensors: an engine needs no more. `reference`
//! holds the modules on Burn, which train, and which engines are compared with.

mod config;
pub mod presets;
#[cfg(feature = "reference")]
pub mod reference;

pub use config::{
    ConfigError, DecoderConfig, DecoderKind, EncoderInput, ImageSize, NORM_EPSILON,
    TokenizerConfig, TransformerConfig,
};
