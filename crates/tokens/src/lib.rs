//! The vocabulary that every other crate speaks: how a picture's tokens are laid out, which
//! identifiers stand for codes and classes, where randomness comes from, and how tokens are
//! cached on disk. No tensors here.

pub mod cache;
mod layout;
pub mod noise;
mod vocabulary;

pub use layout::{TokenLayout, TokenPosition};
pub use vocabulary::{CodebookIndex, Vocabulary, VocabularyError};
