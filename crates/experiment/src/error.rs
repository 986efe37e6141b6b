//! What can go wrong while an experiment is done.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::ExperimentError;

/// Why an experiment cannot be done, or told.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan cannot be used.
    #[error(transparent)]
    Plan(#[from] ExperimentError),
    /// A row that the plan does not have.
    #[error("no row `{name}`; rows are {}", known.join(", "))]
    NoRow {
        /// What was asked for.
        name: String,
        /// The rows of the plan.
        known: Vec<String>,
    },
    /// Neither the plan nor the command names the pictures.
    #[error("the plan is for any pictures and names none; give it --data and --heldout")]
    NoData,
    /// A unit failed.
    #[error("{unit}")]
    Unit {
        /// Its row and seed.
        unit: String,
        /// Why.
        source: Box<RunError>,
    },
    /// A training failed.
    #[error(transparent)]
    Training(#[from] training::TrainingError),
    /// Something could not be measured.
    #[error(transparent)]
    Evaluation(#[from] evaluation::EvaluationError),
    /// A model cannot be read.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// A model cannot be opened.
    #[error(transparent)]
    Pipeline(#[from] pipeline::PipelineError),
    /// Pictures cannot be read.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// A token cache cannot be made.
    #[error(transparent)]
    Caching(#[from] pipeline::cache::BuildError),
    /// A token cache cannot be read.
    #[error(transparent)]
    Cache(#[from] token_cache::CacheError),
    /// A class or token is out of range.
    #[error(transparent)]
    Vocabulary(#[from] tokens::VocabularyError),
    /// A tokenizer lacks what is measured.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::ConfigError),
    /// A measure cannot be computed.
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Chart(#[from] charts::ChartError),
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// There is too little to measure.
    #[error("{0}")]
    TooLittle(&'static str),
}

impl RunError {
    pub(crate) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn content(path: &Path, problem: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), problem: problem.to_string() }
    }
}
