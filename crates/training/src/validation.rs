//! What is wrong with a recipe.

use std::path::PathBuf;

use settings::SettingsError;

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It cannot be read, or has other settings than a recipe.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The bundled recipe of this name is for another training.
    #[error(
        "recipe `{name}` is for {held}, and holds nothing for {wanted}; that is in one of {known}"
    )]
    OtherTraining {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: &'static str,
        /// What it holds.
        held: String,
        /// Names of the recipes for what was asked for.
        known: String,
    },
    /// A folder of recipes has none for this training.
    #[error("{} holds no `{file}`, the recipe for {wanted}", folder.display())]
    NotInFolder {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        file: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A value that makes no sense.
    #[error("recipe: `{key}` {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// An error for the value of `key`, unless it is fine.
pub(crate) fn require(
    fine: bool,
    key: &'static str,
    problem: &'static str,
) -> Result<(), RecipeError> {
    if fine { Ok(()) } else { Err(RecipeError::Value { key, problem }) }
}
