//! Released checkpoints and safetensors to and from our models, strictly.
//!
//! [`Checkpoint`] reads files of others: PyTorch's two formats, through a parser that never
//! executes ([`pickle`]), and safetensors. [`released`] translates the authors' names into ours
//! and back. A [`ModelFolder`] is how a model of ours lies on disk; [`import()`] makes one from
//! released files, [`export`] goes the other way. [`public`] fetches the weights of networks that
//! training and evaluation compare pictures with.

mod checkpoint;
mod classes;
mod error;
pub mod export;
mod floats;
mod import;
pub mod model_folder;
pub mod pickle;
pub mod public;
pub mod released;
pub mod safetensors_file;
mod torch_file;
pub mod torch_writer;

pub use checkpoint::Checkpoint;
pub use classes::{ClassNames, UnknownClass};
pub use error::FileError;
pub use import::{ImportError, import, published_sampling};
pub use model_folder::{
    ModelConfig, ModelContents, ModelFolder, ModelFolderError, tensors_digest, tokenizer_digest,
};
pub use safetensors_file::Precision;
