//! A model folder's weights under the released names.

use std::path::{Path, PathBuf};

use files::{
    FileError, TensorMap,
    safetensors::{self, StorageFormat, StringMetadata},
};
use model::{Model, ModelError};
use tokenizer::DecoderKind;

use crate::{
    released::{
        ReleasedError, export_generator as rename_generator, export_tokenizer as rename_tokenizer,
    },
    torch_writer,
};

/// An export that failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model could not be read.
    #[error(transparent)]
    Folder(#[from] ModelError),
    /// The released code cannot express the model.
    #[error("`{}`: {source}", path.display())]
    Released {
        /// The model folder.
        path: PathBuf,
        /// What it cannot express.
        source: ReleasedError,
    },
}

/// Writes the tokenizer with one of its decoders as the authors' code reads it: a `.safetensors`
/// file if `out` is called so, else a PyTorch checkpoint.
///
/// # Errors
/// If the model lacks the decoder, cannot be expressed, or the file cannot be written.
pub fn export_tokenizer(
    model: &Model,
    decoder: DecoderKind,
    out: &Path,
) -> Result<(), ExportError> {
    let tensors = rename_tokenizer(&model.config.tokenizer, decoder, model.tokenizer_tensors()?);
    Ok(write(out, &tensors.map_err(|source| released(model, source))?)?)
}

/// Writes the generator as the authors' code reads it: a `.safetensors` file if `out` is called
/// so, else a PyTorch checkpoint.
///
/// # Errors
/// If the model has none, or the file cannot be written.
pub fn export_generator(model: &Model, out: &Path) -> Result<(), ExportError> {
    let tensors = rename_generator(model.generator_config()?, model.generator_tensors()?);
    Ok(write(out, &tensors.map_err(|source| released(model, source))?)?)
}

fn released(model: &Model, source: ReleasedError) -> ExportError {
    ExportError::Released { path: model.path().to_owned(), source }
}

fn write(out: &Path, tensors: &TensorMap) -> Result<(), FileError> {
    if out.extension().is_some_and(|extension| extension == "safetensors") {
        safetensors::write(out, tensors, StorageFormat::F32, &StringMetadata::new())
    } else {
        torch_writer::write(out, tensors)
    }
}
