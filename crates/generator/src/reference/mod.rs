//! The generator on Burn. [`Generator`] is immutable: the caller owns the [`KeyValueCache`] and every
//! source of randomness. [`Sequences`] turns [`Request`](crate::Request)s into tokens, step by step.

mod block;
mod cache;
mod dropout;
mod initialization;
pub mod loss;
mod model;
mod predictability;
mod rotation;
mod sequences;

pub use block::{Attention, Block};
pub use cache::KeyValueCache;
pub use dropout::Dropout;
pub use model::Generator;
pub use operations::layers::FeedForward;
pub use predictability::Predictability;
pub use sequences::{ROWS, Sequences};
