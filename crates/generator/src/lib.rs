//! The AliTok autoregressive generator (paper, section 3.3): a class and the tokens so far give
//! the next token.
//!
//! [`Generator`] is the model and immutable: the caller owns the [`KeyValueCache`] and every
//! source of randomness. [`generate()`] turns [`Request`]s into tokens, and a picture's tokens
//! depend on its own request alone, to the bit.

#[cfg(feature = "burn")]
mod block;
#[cfg(feature = "burn")]
mod cache;
mod config;
#[cfg(feature = "burn")]
mod dropout;
#[cfg(feature = "burn")]
mod generate;
pub mod guidance;
#[cfg(feature = "burn")]
mod initialization;
#[cfg(feature = "burn")]
pub mod loss;
#[cfg(feature = "burn")]
mod model;
#[cfg(feature = "burn")]
mod predictability;
pub mod presets;
mod request;
mod rotary;
#[cfg(feature = "burn")]
mod rotation;
mod sampler;

#[cfg(feature = "burn")]
pub use block::{Attention, Block, FeedForward};
#[cfg(feature = "burn")]
pub use cache::KeyValueCache;
pub use config::{ConfigError, GeneratorConfig, NORM_EPSILON};
#[cfg(feature = "burn")]
pub use dropout::Dropout;
#[cfg(feature = "burn")]
pub use generate::{Progress, ROWS, generate};
#[cfg(feature = "burn")]
pub use model::Generator;
#[cfg(feature = "burn")]
pub use predictability::Predictability;
pub use request::{GenerateError, Request};
pub use rotary::Rotary;
pub use sampler::{SamplingConfig, SamplingError, choose};
