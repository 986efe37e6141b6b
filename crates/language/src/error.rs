//! What can be wrong with the files of others.

use std::path::PathBuf;

use files::{FileError, ParameterError, list_problems};

use crate::{ConfigError, TextError};

/// A language model that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text tokenizer could not be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The architecture cannot be built.
    #[error("`{}`: {source}", path.display())]
    Config {
        /// The file that states it.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// The folder lacks a file.
    #[error(
        "`{}` has no `{missing}`. A language model's folder, as Hugging Face has them, holds \
         config.json, tokenizer.json and model.safetensors, or its shards with \
         model.safetensors.index.json{hint}",
        path.display()
    )]
    Missing {
        /// The folder.
        path: PathBuf,
        /// The file.
        missing: String,
        /// What to do, where something else is there instead.
        hint: &'static str,
    },
    /// A JSON file does not say what it should.
    #[error("`{}`: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tensors are not those of the architecture.
    #[error(
        "`{}` does not hold the weights that its configuration describes: {}",
        path.display(), list_problems(problems)
    )]
    Tensors {
        /// The folder or file.
        path: PathBuf,
        /// Each tensor that does not fit.
        problems: Vec<ParameterError>,
    },
    /// The embedding has no row for some of the tokenizer's ids.
    #[error(
        "`{}`: its tokenizer.json has ids up to {largest}, and its embedding only {rows} rows; the two \
         are of different models, take both from one",
        path.display()
    )]
    Embedding {
        /// The folder.
        path: PathBuf,
        /// Largest id of the tokenizer.
        largest: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The text tokenizer has no such token, and the embedding no row that is free for it.
    #[error(
        "`{}`: its tokenizer.json has no token `{token}`, and the embedding has no free row for it; the \
         form of a prompt needs it",
        path.display()
    )]
    NoToken {
        /// The folder.
        path: PathBuf,
        /// The token.
        token: &'static str,
    },
    /// The image side was trained with another codebook.
    #[error(
        "`{}`: {what}; the image side belongs to another tokenizer, name that one with --tokenizer",
        path.display()
    )]
    Codebook {
        /// The image side's file.
        path: PathBuf,
        /// How the codebooks differ.
        what: String,
    },
}
