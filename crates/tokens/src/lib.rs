//! The vocabulary that every other crate speaks: how a picture's tokens are laid out, which
//! identifiers stand for codes and classes, what ImageNet's classes are called, and where randomness
//! comes from. No tensors and no files here.

pub mod imagenet;
mod layout;
pub mod noise;
mod vocabulary;

pub use layout::{TokenLayout, TokenPosition};
pub use vocabulary::{CodebookIndex, Vocabulary, VocabularyError};
