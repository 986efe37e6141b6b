//! What can go wrong in training.

use std::path::{Path, PathBuf};

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] crate::validation::RecipeError),
    /// A picture or data set cannot be read.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// A sheet of samples cannot be made.
    #[error(transparent)]
    Chart(#[from] charts::ChartError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Weights(#[from] files::FileError),
    /// Public weights cannot be read.
    #[error(transparent)]
    PublicWeights(#[from] weights::CheckpointError),
    /// A model folder cannot be read or written.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// A token cache cannot be read or written.
    #[error(transparent)]
    Cache(#[from] token_cache::CacheError),
    /// The tokenizer's architecture cannot be built.
    #[error("the tokenizer's architecture: {0}")]
    Tokenizer(#[from] tokenizer::ConfigError),
    /// The generator's architecture cannot be built.
    #[error("the generator's architecture: {0}")]
    Generator(#[from] generator::ConfigError),
    /// The language model's architecture cannot be built.
    #[error(transparent)]
    Language(#[from] language::ConfigError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The parameters that a training is to begin with are those of another architecture.
    #[error(
        "the model to begin with does not fit the recipe: {0}; use a recipe of the same \
         architecture"
    )]
    Initial(String),
    /// A network of a perceptual loss cannot be had.
    #[error("the perceptual network {network}: {problem}")]
    Perceptual {
        /// Its name in a recipe.
        network: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The device has no arithmetic in the recipe's number format.
    #[error(
        "the recipe asks for {0}, in which this device does not compute; train with `--set \
         precision=f32`, or on another device"
    )]
    Precision(&'static str),
    /// The processes of a training do not fit it, or each other.
    #[error(transparent)]
    Parallel(#[from] crate::communicator::ParallelError),
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
         resume with the same recipe (--extend lets `steps` grow), or start a run in another folder"
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
    /// The folder holds parts of a run, but not what it was.
    #[error("{0} holds checkpoints or a log but no recipe.toml; give another --out")]
    NoRecipe(PathBuf),
    /// A run is resumed with other data or another model than it was started with.
    #[error(
        "the run was started with another {what} ({before}, now {now}); resume with the same, or \
         start a run in another folder"
    )]
    InputChanged {
        /// What differs.
        what: &'static str,
        /// What it was.
        before: String,
        /// What it is.
        now: String,
    },
    /// Somebody asked the run to end.
    #[error("stopped after step {step} of {steps}; {}", if *saved {
        "the same command with --resume goes on from there"
    } else {
        "no step was done, so nothing was saved"
    })]
    Interrupted {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Whether there is a checkpoint to go on from.
        saved: bool,
    },
    /// Memory cannot hold the model and what its training needs.
    #[error(
        "the training needs {} for {parameters} parameters, their gradients and moments alone, and \
         {} are available; make the model smaller, or train on a machine with more memory",
        machine::bytes(*needed), machine::bytes(*available)
    )]
    Memory {
        /// Numbers that the optimizer changes.
        parameters: usize,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// Memory cannot hold what a step leaves for its backward pass.
    #[error(
        "a step of {batch} pictures needs about {}, and {} are available; make `batch` smaller, raise \
         `accumulate`, or set activation_checkpointing = true",
        machine::bytes(*needed), machine::bytes(*available)
    )]
    Activations {
        /// Pictures a step.
        batch: usize,
        /// Bytes needed, about.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// Another process trains in the folder.
    #[error("another process is training in {0}; wait for it, or give another --out")]
    RunBusy(PathBuf),
    /// The recipe evaluates and there is nothing to evaluate on.
    #[error("the recipe has `evaluate_every`, which needs held-out data; give --heldout")]
    NoHeldout,
    /// A measure is not a number any more, or spikes, more often than the recipe's guard allows.
    #[error(
        "{trouble}, after going back {rollbacks} times; lower the learning rate, clip the \
         gradients, or raise `guard.rollbacks`"
    )]
    Diverged {
        /// What happened last.
        trouble: crate::guard::Trouble,
        /// How often the run has gone back.
        rollbacks: u64,
    },
}

impl TrainingError {
    /// Names the file of an input or output error.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
