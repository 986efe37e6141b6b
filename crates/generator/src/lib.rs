//! The AliTok autoregressive generator (paper, section 3.3): a class and the tokens so far give
//! the next token.
//!
//! [`Generator`] is the model and immutable: the caller owns the [`KeyValueCache`] and every
//! source of randomness. [`generate()`] turns [`Request`]s into tokens, and a picture's tokens
//! depend on its own request alone, to the bit.

mod block;
mod cache;
mod config;
mod dropout;
mod generate;
pub mod guidance;
mod initialization;
pub mod loss;
mod model;
pub mod presets;
mod rotary;
mod sampler;

pub use block::{Attention, Block, FeedForward};
pub use cache::KeyValueCache;
pub use config::{ConfigError, GeneratorConfig};
pub use dropout::Dropout;
pub use generate::{GenerateError, Progress, ROWS, Request, generate};
pub use model::Generator;
pub use sampler::{SamplingConfig, SamplingError, choose};
