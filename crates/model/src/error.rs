//! What can be wrong with a model.

use std::path::PathBuf;

use files::{FileError, HomeError, ParameterError, list_problems};

use crate::{CLASSES, CONFIG, GENERATOR, IMAGE_SIDE, LANGUAGE, TEXT_TOKENIZER, TOKENIZER};

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
         {TOKENIZER} and, with a generator, {GENERATOR} and {CLASSES}, or, with a language model, \
         {LANGUAGE}, {IMAGE_SIDE} and {TEXT_TOKENIZER}; `alitok import` and `alitok train` make one",
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
    /// The text tokenizer cannot be read.
    #[error(transparent)]
    Text(#[from] language::TextError),
    /// The model reads prompts, not classes.
    #[error(
        "the model `{}` draws what a prompt says and has no classes; give it a prompt",
        path.display()
    )]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// The model reads no prompts.
    #[error(
        "the model `{}` reads no prompts; {}", path.display(),
        if *has_classes { "ask for one of its classes" } else { "it has neither language model nor generator" }
    )]
    NoPrompts {
        /// The folder.
        path: PathBuf,
        /// Whether it draws classes.
        has_classes: bool,
    },
    /// The model has no generator.
    #[error("the model `{}` has no generator; import or train one", path.display())]
    NoGenerator {
        /// The folder.
        path: PathBuf,
    },
}
