//! What can go wrong while a model is measured.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A protocol cannot be read.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// A protocol contradicts itself.
    #[error("protocol {name}: {problem}")]
    Protocol {
        /// Name or path of the protocol.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The model has another architecture than the protocol's.
    #[error(
        "protocol {name} is not of the model {}: {}. Name another protocol, or change this \
         one: --set model.codes=… and so on",
        model.display(),
        differences.join(", ")
    )]
    OtherModel {
        /// Name or path of the protocol.
        name: String,
        /// The model's folder.
        model: PathBuf,
        /// What differs, in words.
        differences: Vec<String>,
    },
    /// What was given departs from a protocol.
    #[error("this is not the protocol {name}: {problem}")]
    Departure {
        /// Name or path of the protocol.
        name: String,
        /// What departs.
        problem: String,
    },
    /// An option does not fit the others, the model or the data.
    #[error("{option}: {problem}")]
    Option {
        /// The option, as on the command line.
        option: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// What was asked for is impossible.
    #[error("{0}")]
    Impossible(String),
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
    #[error("{}{} {problem}", path.display(), line.map_or_else(String::new, |line| format!(", line {line}")))]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A finished part of an evaluation cannot be used.
    #[error("cannot use {}", path.display())]
    Part {
        /// The part's file.
        path: PathBuf,
        /// Why.
        source: Box<EvaluationError>,
    },
    /// Something failed in a named place.
    #[error("{place}")]
    At {
        /// The place: a model, an option.
        place: String,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A measure cannot be computed.
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
    /// A reference cannot be read.
    #[error(transparent)]
    Reference(#[from] metrics::ReferenceError),
    /// Pictures cannot be read.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// A model cannot be read.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// A model cannot be opened, or a picture not be encoded, decoded or drawn.
    #[error(transparent)]
    Pipeline(#[from] pipeline::PipelineError),
    /// The engine cannot load a model.
    #[error(transparent)]
    Load(#[from] engine::LoadError),
    /// The engine cannot open a decoder.
    #[error(transparent)]
    Decoder(#[from] engine::DecoderError),
    /// A picture cannot be drawn.
    #[error(transparent)]
    Generate(#[from] generator::GenerateError),
    /// Sampling settings are out of range.
    #[error(transparent)]
    Sampling(#[from] generator::SamplingError),
    /// A class or token is out of range.
    #[error(transparent)]
    Vocabulary(#[from] tokens::VocabularyError),
    /// A tokenizer lacks what was asked for.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::ConfigError),
    /// A token cache cannot be read.
    #[error(transparent)]
    Cache(#[from] token_cache::CacheError),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Chart(#[from] charts::ChartError),
    /// Weights of a network cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] weights::CheckpointError),
    /// Weights of a network were not fetched.
    #[error(transparent)]
    Fetch(#[from] weights::public::FetchError),
    /// Bundled weights are not there.
    #[error(transparent)]
    Home(#[from] files::HomeError),
}

impl EvaluationError {
    /// An error of the operating system at a file or folder.
    pub fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { action, path, source }
    }

    /// A file that holds something else than it should.
    pub(crate) fn content(path: &Path, problem: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), line: None, problem: problem.to_string() }
    }

    /// An option that does not fit.
    pub(crate) fn option(option: impl ToString, problem: impl ToString) -> Self {
        Self::Option { option: option.to_string(), problem: problem.to_string() }
    }

    /// Something that is impossible.
    pub(crate) fn impossible(problem: impl ToString) -> Self {
        Self::Impossible(problem.to_string())
    }

    /// Something that failed in a named place.
    pub(crate) fn at<E: std::error::Error + Send + Sync + 'static>(
        place: impl ToString,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::At { place: place.to_string(), source: Box::new(source) }
    }
}
