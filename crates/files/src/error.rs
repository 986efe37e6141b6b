//! What can be wrong with a file of tensors.

use std::{io, path::PathBuf};

/// A file of tensors that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused to read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused to write. Nothing was left behind.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("`{}` is empty; download or save it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is no .safetensors file: it {found}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The file begins as it should and does not go on so.
    #[error("`{}` is damaged or cut off: {what}; download or save it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        what: String,
    },
    /// One tensor is not as it should be.
    #[error("tensor `{name}` of `{}` {what}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}
