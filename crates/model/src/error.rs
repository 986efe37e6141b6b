//! What can be wrong with a model.

use std::path::PathBuf;

use files::{FileError, HomeError, ParameterError, list_problems};

use crate::{CLASSES, CONFIG, GENERATOR, TOKENIZER};

/// A model that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// One of its files could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is a bundled one, and bundled things were not found.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// There is no such folder, or it holds no model.
    #[error(
        "`{}` is no model folder: it has no `{missing}`. A model folder holds {CONFIG}, \
         {TOKENIZER} and, with a generator, {GENERATOR} and {CLASSES}; `alitok import` and \
         `alitok train` make one",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// The file that is missing.
        missing: &'static str,
    },
    /// A JSON file does not say what it should.
    #[error("`{}`: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tensors are not those of the architecture.
    #[error(
        "`{}` does not hold the weights of the architecture in {CONFIG}: {}",
        path.display(), list_problems(problems)
    )]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Each tensor that does not fit.
        problems: Vec<ParameterError>,
    },
    /// The folder to write to holds something else.
    #[error(
        "`{}` is not a model folder (it holds `{entry}`) and is not overwritten; choose another \
         folder or empty this one",
        path.display()
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// One thing in it that is no part of a model.
        entry: String,
    },
    /// The model to write contradicts itself.
    #[error("this model cannot be written: {0}")]
    Contradiction(String),
    /// The model has no generator.
    #[error("the model `{}` has no generator; import or train one", path.display())]
    NoGenerator {
        /// The folder.
        path: PathBuf,
    },
}
