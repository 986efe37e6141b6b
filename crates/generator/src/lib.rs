//! The AliTok autoregressive generator (paper, section 3.3): a condition and the tokens so far give
//! the next token.
//!
//! The crate itself is the architecture, what is asked of a generator ([`Request`]) and how a token is
//! chosen ([`choose`], [`guidance`]), without tensors: an engine needs no more. `reference` holds the
//! modules on Burn, which train, and which engines are compared with. A picture's tokens depend only on
//! its own request and sampling, to the bit.

mod config;
pub mod guidance;
pub mod presets;
#[cfg(feature = "reference")]
pub mod reference;
mod request;
mod rotary;
mod sampler;

pub use config::{ConfigError, GeneratorConfig, NORM_EPSILON};
pub use request::{Condition, DeviceFailure, GenerateError, Prompt, Request};
pub use rotary::Rotary;
pub use sampler::{SamplingConfig, SamplingError, choose};
