//! Checkpoints: one safetensors file each, with all that a resumed run needs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::module::Module;
use layers::parameters::{TensorMap, collect, load};
use weights::safetensors_file::{self, Precision};

use crate::{TrainingError, optimizer::AdamW};

/// A trainer's state after some step.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Updates that the optimizer has made.
    pub updates: u64,
    /// What the run is made from besides its recipe.
    pub inputs: BTreeMap<String, String>,
    /// Parameters (`model.*`), moments (`optimizer.*`) and whatever else changes in training.
    pub tensors: TensorMap,
}

const EXTENSION: &str = "safetensors";

/// Before the names of inputs in the metadata.
const INPUT: &str = "input.";

fn file_name(step: u64) -> String {
    format!("step-{step:08}.{EXTENSION}")
}

fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("step-")?.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok()
}

/// The checkpoints of a run, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainingError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(TrainingError::file(folder))?;
    found.retain(|path| step_of(path).is_some());
    found.sort_by_key(|path| step_of(path));
    Ok(found)
}

impl Checkpoint {
    /// The newest checkpoint in a folder, if there is one.
    pub(crate) fn latest(folder: &Path) -> Result<Option<Self>, TrainingError> {
        list(folder)?.last().map(|path| Self::read(path)).transpose()
    }

    fn read(path: &Path) -> Result<Self, TrainingError> {
        let metadata = safetensors_file::read_metadata(path)?;
        let tensors = safetensors_file::read(path)?;
        let step = step_of(path).unwrap_or_default();
        let number = |key: &str| {
            metadata.get(key).and_then(|value| value.parse().ok()).ok_or_else(|| {
                let problem = format!("its metadata has no number `{key}`");
                TrainingError::Checkpoint { step, problem }
            })
        };
        let (step, updates) = (number("step")?, number("updates")?);
        let inputs = metadata
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(INPUT)?.to_owned(), value)))
            .collect();
        Ok(Self { step, updates, inputs, tensors })
    }

    /// Writes the checkpoint and removes all but the newest `keep`.
    pub(crate) fn write(&self, folder: &Path, keep: usize) -> Result<PathBuf, TrainingError> {
        std::fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
        let path = folder.join(file_name(self.step));
        let numbers = [("step", self.step), ("updates", self.updates)];
        let mut metadata: BTreeMap<String, String> =
            numbers.map(|(key, value)| (key.to_owned(), value.to_string())).into();
        let inputs = self.inputs.iter();
        metadata.extend(inputs.map(|(what, value)| (format!("{INPUT}{what}"), value.clone())));
        safetensors_file::write(&path, &self.tensors, Precision::F32, &metadata)?;
        let checkpoints = list(folder)?;
        for old in checkpoints.iter().take(checkpoints.len().saturating_sub(keep)) {
            std::fs::remove_file(old).map_err(TrainingError::file(old))?;
        }
        Ok(path)
    }

    /// Parameters and moments after some step. The run adds its inputs.
    pub(crate) fn of<M: Module>(step: u64, model: &M, optimizer: &AdamW) -> Self {
        let mut tensors = TensorMap::new();
        put(&mut tensors, "model", collect(model));
        put(&mut tensors, "optimizer", optimizer.state());
        Self { step, updates: optimizer.updates(), inputs: BTreeMap::new(), tensors }
    }

    /// Puts parameters and moments back where they were.
    pub(crate) fn restore<M: Module>(
        &mut self,
        model: M,
        optimizer: &mut AdamW,
    ) -> Result<M, TrainingError> {
        let step = self.step;
        let problem = |problem| TrainingError::Checkpoint { step, problem };
        let model = load(model, self.take("model")).map_err(|errors| problem(join(&errors)))?;
        optimizer.restore(self.updates, self.take("optimizer")).map_err(problem)?;
        Ok(model)
    }

    /// Checks that everything was taken.
    pub(crate) fn finish(self) -> Result<(), TrainingError> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(TrainingError::Checkpoint {
                step: self.step,
                problem: format!("nothing of the run is called `{name}`"),
            }),
        }
    }

    /// The tensors whose names start with `section.`, without it.
    pub(crate) fn take(&mut self, section: &str) -> TensorMap {
        let prefix = format!("{section}.");
        let mut taken = TensorMap::new();
        self.tensors = std::mem::take(&mut self.tensors)
            .into_iter()
            .filter_map(|(name, tensor)| match name.strip_prefix(&prefix) {
                Some(inner) => {
                    taken.insert(inner.to_owned(), tensor);
                    None
                }
                None => Some((name, tensor)),
            })
            .collect();
        taken
    }
}

/// Adds tensors under `section.`.
pub(crate) fn put(tensors: &mut TensorMap, section: &str, inner: TensorMap) {
    tensors.extend(inner.into_iter().map(|(name, tensor)| (format!("{section}.{name}"), tensor)));
}

fn join<E: std::fmt::Display>(errors: &[E]) -> String {
    let shown: Vec<String> = errors.iter().take(3).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(shown.len());
    let mut text = shown.join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}
