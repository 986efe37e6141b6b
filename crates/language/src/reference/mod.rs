//! The language model and its image side on Burn, for training.
//!
//! [`LanguageModel`] is immutable. Whole sequences go through it, each a prompt and then codes of a
//! picture; drawing step by step is the engine's.

mod block;
mod initialization;
pub mod loss;
mod model;
mod rotation;

pub use block::{Attention, Block};
pub use model::{ImageLayers, Language, LanguageModel, Perceptron, Sequence};
pub use operations::layers::FeedForward;
