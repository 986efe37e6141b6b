//! Files of weights that other programs write and read.
//!
//! [`Checkpoint`] reads PyTorch's two formats, through a parser that executes nothing ([`pickle`]),
//! and safetensors. [`released`] translates the authors' names into ours and back. [`import()`] makes a
//! [`Model`](model::Model) from released files, [`export`] goes the other way. `public` fetches the
//! weights of the networks that training and evaluation compare pictures with. Loading is strict: a
//! missing, unused or mis-shaped tensor is an error that names it.

mod checkpoint;
mod error;
pub mod export;
mod import;
pub mod pickle;
#[cfg(feature = "public")]
pub mod public;
pub mod released;
mod torch_file;
pub mod torch_writer;
mod wrappers;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
pub use import::{ImportError, ImportOptions, Imported, import, published_sampling};
pub use wrappers::WeightsChoice;
