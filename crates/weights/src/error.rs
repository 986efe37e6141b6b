//! What can be wrong with a checkpoint of others.

use std::path::PathBuf;

use files::FileError;

use crate::wrappers::WeightsChoice;

/// A checkpoint that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file could not be read, or is damaged.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is something else.
    #[error(
        "`{}` is neither a PyTorch checkpoint (.pth, .pt, .bin) nor a .safetensors file: it {found}",
        path.display()
    )]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
    },
    /// The file's pickle asks for more than plain data.
    #[error(
        "`{}` wants to run code or holds a pickled class: {what}. Nothing of it was run. Only \
         plain state dicts are read; save one with torch.save(model.state_dict(), …)",
        path.display()
    )]
    Code {
        /// The file.
        path: PathBuf,
        /// The class, function or opcode.
        what: String,
    },
    /// The file holds data, none of which is a state dict.
    #[error(
        "`{}` holds no state dict: {found}. Expected a dictionary of named tensors, or one under a \
         key such as `model_state`, `state_dict` or `model`",
        path.display()
    )]
    NoStateDict {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// The file does not hold the weights that were asked for.
    #[error(
        "`{}` holds no weights that `--weights {}` asks for: {found}",
        path.display(), wanted.name()
    )]
    NoSuchWeights {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: WeightsChoice,
        /// What it holds.
        found: &'static str,
    },
}
