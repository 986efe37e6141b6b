//! What all crates of AliTok share: how a picture's tokens are laid out, which identifiers stand for
//! codes and classes, what ImageNet's classes are called, and where randomness comes from. There are
//! no tensors and no files here.
//!
//! [`TokenLayout`] alone knows lengths and positions: a prefix, then the grid row by row.
//! [`noise::Noise`] is a pure function of seed, purpose, step and sample, so results depend neither on
//! the number of threads nor on what was drawn before.
//!
//! ```
//! use tokens::{TokenLayout, noise::{Noise, Purpose}};
//!
//! let layout = TokenLayout::new(16, 16, 16);
//! assert_eq!(layout.len(), 272);
//! let draw = || Noise::new(7, Purpose::Order, 0, 3).below(1000);
//! assert_eq!(draw(), draw());
//! ```

pub mod imagenet;
mod layout;
pub mod noise;
mod vocabulary;

pub use layout::{TokenLayout, TokenPosition};
pub use vocabulary::{CodebookIndex, Vocabulary, VocabularyError};
