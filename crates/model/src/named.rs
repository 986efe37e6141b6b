//! Models by name: bundled ones, folders and runs.

use std::path::{Path, PathBuf};

use files::Home;

use crate::{CONFIG, Model, ModelError};

impl Model {
    /// Reads the model that a person names: a bundled one (`mini`; `./mini` is a folder of that name),
    /// a model folder, or a run's folder.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if the bundled models are not found.
    pub fn named(name: &str, home: &Home) -> Result<Self, ModelError> {
        Self::read(folder(name, home)?)
    }
}

/// The folder of the model that a person names.
///
/// # Errors
/// If it is a bundled one, and bundled things are not found.
pub fn folder(name: &str, home: &Home) -> Result<PathBuf, ModelError> {
    match name {
        "mini" => Ok(home.path("models/mini")?),
        name => Ok(of_run(Path::new(name))),
    }
}

/// The model folder of a run; any other path stays what it is.
pub fn of_run(path: &Path) -> PathBuf {
    let model = path.join("model");
    if model.join(CONFIG).exists() { model } else { path.to_owned() }
}
