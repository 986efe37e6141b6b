//! The generator on Burn. [`Generator`] is immutable: the caller owns the [`KeyValueCache`] and every
//! source of randomness. [`generate()`] turns [`Request`](crate::Request)s into tokens.

mod block;
mod cache;
mod dropout;
mod generate;
mod initialization;
pub mod loss;
mod model;
mod predictability;
mod rotation;

pub use block::{Attention, Block, FeedForward};
pub use cache::KeyValueCache;
pub use dropout::Dropout;
pub use generate::{Progress, ROWS, generate};
pub use model::Generator;
pub use predictability::Predictability;
