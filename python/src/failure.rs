//! Errors on their way to Python: each of ours becomes one of few classes, with its text.

use pyo3::{PyErr, Python, exceptions::PyRuntimeError, types::PyAnyMethods};

/// What went wrong while Python's lock was not held.
pub(crate) enum Failure {
    /// An error of ours.
    Ours { kind: Kind, text: String },
    /// An error of Python: a callback's, or an interruption.
    Python(PyErr),
}

/// A class of `alitok`'s errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An argument is wrong.
    Input,
    /// A file is missing, damaged or something else.
    File,
    /// Memory does not hold what was asked for.
    Memory,
    /// This build or process cannot do it.
    Unavailable,
    /// There is no such item.
    Index,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Input => "InputError",
            Self::File => "FileError",
            Self::Memory => "OutOfMemoryError",
            Self::Unavailable => "UnavailableError",
            Self::Index => "OutOfRangeError",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, text: impl ToString) -> Self {
        Self::Ours { kind, text: text.to_string() }
    }

    pub(crate) fn input(text: impl ToString) -> Self {
        Self::new(Kind::Input, text)
    }

    pub(crate) fn file(text: impl ToString) -> Self {
        Self::new(Kind::File, text)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Ours { kind, text } => Python::attach(|py| {
                let class =
                    py.import("alitok.errors").and_then(|module| module.getattr(kind.class()));
                match class.and_then(|class| class.call1((&text,))) {
                    Ok(error) => PyErr::from_value(error),
                    // The package's own files are missing.
                    Err(_) => PyRuntimeError::new_err(text),
                }
            }),
        }
    }
}

impl From<pipeline::PipelineError> for Failure {
    fn from(error: pipeline::PipelineError) -> Self {
        use pipeline::PipelineError as E;
        match error {
            E::Pixels(error) => error.into(),
            E::Device(error) => error.into(),
            E::Model(error) => error.into(),
            E::Load(_) | E::Decoder(_) => Self::file(error),
            E::Memory { .. } | E::Count { .. } => Self::new(Kind::Memory, error),
            _ => Self::input(error),
        }
    }
}

impl From<pipeline::DeviceError> for Failure {
    fn from(error: pipeline::DeviceError) -> Self {
        match error {
            pipeline::DeviceError::NotCompiledIn { .. } => Self::new(Kind::Unavailable, error),
            _ => Self::input(error),
        }
    }
}

impl From<model::ModelError> for Failure {
    fn from(error: model::ModelError) -> Self {
        use model::ModelError as E;
        match error {
            E::NoGenerator { .. }
            | E::NoClasses { .. }
            | E::NoPrompts { .. }
            | E::Contradiction(_) => Self::input(error),
            _ => Self::file(error),
        }
    }
}

impl From<generator::GenerateError> for Failure {
    fn from(error: generator::GenerateError) -> Self {
        Self::input(error)
    }
}

impl From<model::UnknownClass> for Failure {
    fn from(error: model::UnknownClass) -> Self {
        Self::input(error)
    }
}

impl From<pixels::PixelsError> for Failure {
    fn from(error: pixels::PixelsError) -> Self {
        use pixels::PixelsError as E;
        match error {
            E::Values { .. } | E::WrongSize { .. } | E::EmptyGrid => Self::input(error),
            _ => Self::file(error),
        }
    }
}

impl From<token_cache::CacheError> for Failure {
    fn from(error: token_cache::CacheError) -> Self {
        use token_cache::CacheError as E;
        match error {
            E::OutOfRange { .. } => Self::new(Kind::Index, error),
            E::Shard(_) | E::Sample { .. } => Self::input(error),
            _ => Self::file(error),
        }
    }
}

impl From<pipeline::cache::BuildError> for Failure {
    fn from(error: pipeline::cache::BuildError) -> Self {
        use pipeline::cache::BuildError as E;
        match error {
            E::Pixels(error) => error.into(),
            E::Model(error) => error.into(),
            E::Encode(error) => error.into(),
            E::Cache(error) => error.into(),
            E::Exchange(_) => Self::file(error),
            E::TenCrop | E::Stopped { .. } => Self::input(error),
        }
    }
}

impl From<metrics::MetricsError> for Failure {
    fn from(error: metrics::MetricsError) -> Self {
        Self::input(error)
    }
}

impl From<metrics::ReferenceError> for Failure {
    fn from(error: metrics::ReferenceError) -> Self {
        Self::file(error)
    }
}

impl From<weights::ImportError> for Failure {
    fn from(error: weights::ImportError) -> Self {
        Self::file(error)
    }
}

impl From<weights::export::ExportError> for Failure {
    fn from(error: weights::export::ExportError) -> Self {
        match error {
            weights::export::ExportError::Released { .. } => Self::input(error),
            weights::export::ExportError::Folder(error) => error.into(),
            weights::export::ExportError::File(_) => Self::file(error),
        }
    }
}
