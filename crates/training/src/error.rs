//! What can go wrong in training.

use std::path::{Path, PathBuf};

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// A picture or data set cannot be read.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] weights::FileError),
    /// A model folder cannot be read or written.
    #[error(transparent)]
    Model(#[from] weights::ModelFolderError),
    /// A token cache cannot be read or written.
    #[error(transparent)]
    Cache(#[from] tokens::cache::CacheError),
    /// The tokenizer's architecture cannot be built.
    #[error("the tokenizer's architecture: {0}")]
    Tokenizer(#[from] tokenizer::ConfigError),
    /// The generator's architecture cannot be built.
    #[error("the generator's architecture: {0}")]
    Generator(#[from] ::generator::ConfigError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A checkpoint does not hold what it should.
    #[error("the checkpoint of step {step}: {problem}")]
    Checkpoint {
        /// Its step.
        step: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The run's folder already holds a run.
    #[error("{0} already holds a run; give --resume to continue it, or another --out")]
    RunExists(PathBuf),
    /// A run is resumed with another recipe than it was started with.
    #[error(
        "{path} was started with another recipe: `{key}` was {before} and is now {now}; \
         resume with the same recipe, or start a run in another folder"
    )]
    RecipeChanged {
        /// The run's folder.
        path: PathBuf,
        /// First setting that differs.
        key: String,
        /// What it was.
        before: String,
        /// What it is.
        now: String,
    },
    /// The data do not fit the recipe.
    #[error("{0}")]
    Data(String),
    /// The loss is not a number any more.
    #[error("the loss is {loss} at step {step}; lower the learning rate or clip the gradients")]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },
}

impl TrainingError {
    /// Names the file of an input or output error.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
