//! The vocabulary that every other crate speaks: how a picture's tokens are laid out, which
//! identifiers stand for codes and classes, what ImageNet's classes are called, where randomness
//! comes from, how tokens are cached on disk, and how any file is written whole or not at all. No
//! tensors here.

pub mod cache;
pub mod files;
pub mod imagenet;
mod layout;
pub mod noise;
pub mod npz;
mod vocabulary;

pub use layout::{TokenLayout, TokenPosition};
pub use vocabulary::{CodebookIndex, Vocabulary, VocabularyError};
