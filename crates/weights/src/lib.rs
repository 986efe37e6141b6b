//! Released checkpoints and safetensors to and from our models, strictly.
//!
//! [`Checkpoint`] reads files of others: PyTorch's two formats, through a parser that never
//! executes ([`pickle`]), and safetensors. [`released`] translates the authors' names into ours
//! and back. A [`model::Model`] is how a model of ours lies on disk; [`import()`] makes one from
//! released files, [`export`] goes the other way. [`public`] fetches the weights of networks that
//! training and evaluation compare pictures with.

mod checkpoint;
mod error;
pub mod export;
mod import;
pub mod pickle;
pub mod public;
pub mod released;
mod torch_file;
pub mod torch_writer;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
pub use import::{ImportError, import, published_sampling};
