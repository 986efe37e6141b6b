//! Checkpoints: one safetensors file each, with all that a resumed run needs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use files::safetensors::{self, StorageFormat};
use files::{FileError, TensorMap};

use crate::TrainingError;

/// A trainer's state after some step.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// Single numbers, by name: updates of optimizers, data left behind, the held-out loss.
    pub numbers: BTreeMap<String, f64>,
    /// What the run is made from besides its recipe.
    pub inputs: BTreeMap<String, String>,
    /// Parameters (`model.*`), moments (`optimizer.*`) and whatever else changes in training.
    pub tensors: TensorMap,
}

/// Version of the format. Files of before there were versions have none and are of the first.
const VERSION: u64 = 1;

const EXTENSION: &str = "safetensors";

/// The number that holds a held-out loss, and the measure in the log.
pub(crate) const HELDOUT: &str = "heldout_loss";

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

type Metadata = (u64, BTreeMap<String, f64>, BTreeMap<String, String>);

/// The step, the numbers and the inputs of a checkpoint.
fn read_metadata(path: &Path) -> Result<Metadata, TrainingError> {
    let mut metadata = safetensors::read_metadata(path)?;
    let step = step_of(path).unwrap_or_default();
    let problem = |problem| TrainingError::Checkpoint { step, problem };
    if let Some(version) = metadata.remove("version").filter(|v| *v != VERSION.to_string()) {
        return Err(problem(format!(
            "it has format {version}, and this program knows {VERSION}; use the program that \
             wrote it"
        )));
    }
    let recorded = metadata.remove("step");
    if recorded != Some(step.to_string()) {
        return Err(problem("its metadata has no or another step".into()));
    }
    let (mut numbers, mut inputs) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in metadata {
        if let Some(what) = key.strip_prefix(INPUT) {
            inputs.insert(what.to_owned(), value);
        } else {
            let number = value.parse().map_err(|_| problem(format!("`{key}` is no number")))?;
            numbers.insert(key, number);
        }
    }
    Ok((step, numbers, inputs))
}

/// Whether a checkpoint could not be read because the file is not whole.
fn is_damaged(error: &TrainingError) -> bool {
    matches!(
        error,
        TrainingError::Weights(
            FileError::Damaged { .. } | FileError::Empty { .. } | FileError::NotSafetensors { .. }
        )
    )
}

/// The checkpoint with the smallest held-out loss, the earlier of equal ones.
fn best(checkpoints: &[PathBuf]) -> Result<Option<&Path>, TrainingError> {
    let mut best: Option<(f64, &Path)> = None;
    for path in checkpoints {
        let (_, numbers, _) = match read_metadata(path) {
            Err(error) if is_damaged(&error) => continue,
            metadata => metadata?,
        };
        if let Some(&loss) = numbers.get(HELDOUT)
            && best.is_none_or(|(least, _)| loss < least)
        {
            best = Some((loss, path));
        }
    }
    Ok(best.map(|(_, path)| path))
}

impl Checkpoint {
    /// The checkpoints of a run's folder, oldest first: steps and files.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_run(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainingError> {
        let files = list(&run.join("checkpoints"))?;
        Ok(files.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect())
    }

    /// The parameters that a run exports when it writes this checkpoint: their average where the
    /// run keeps one.
    ///
    /// # Errors
    /// If the file is no checkpoint, or damaged.
    pub fn exported(path: &Path) -> Result<TensorMap, TrainingError> {
        let mut checkpoint = Self::read(path)?;
        let average = checkpoint.take("average");
        Ok(if average.is_empty() { checkpoint.take("model") } else { average })
    }

    /// The newest checkpoint in a folder that is sound, if there is one. `passed_over` is told of newer
    /// ones that are damaged, such as by a full disk or a broken copy.
    ///
    /// # Errors
    /// If all are damaged, or the newest sound one is of another version, or the folder cannot be read.
    pub(crate) fn latest(
        folder: &Path,
        passed_over: &mut dyn FnMut(&Path, &TrainingError),
    ) -> Result<Option<Self>, TrainingError> {
        let mut newest = None;
        for path in list(folder)?.iter().rev() {
            match Self::read(path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) if is_damaged(&error) => {
                    passed_over(path, &error);
                    newest.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        newest.map_or(Ok(None), Err)
    }

    /// The step of the checkpoint with the smallest held-out loss, the earlier of equal ones.
    pub(crate) fn best(folder: &Path) -> Result<Option<u64>, TrainingError> {
        Ok(best(&list(folder)?)?.and_then(step_of))
    }

    fn read(path: &Path) -> Result<Self, TrainingError> {
        let (step, numbers, inputs) = read_metadata(path)?;
        Ok(Self { step, numbers, inputs, tensors: safetensors::read(path)? })
    }

    /// Writes the checkpoint and removes all but the newest `keep` and, where that is asked for,
    /// the best.
    pub(crate) fn write(
        &self,
        folder: &Path,
        keep: usize,
        keep_best: bool,
    ) -> Result<PathBuf, TrainingError> {
        std::fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
        let path = folder.join(file_name(self.step));
        let mut metadata = BTreeMap::from([
            ("version".to_owned(), VERSION.to_string()),
            ("step".to_owned(), self.step.to_string()),
        ]);
        // Rust writes numbers so that they are read back to the bit.
        metadata.extend(self.numbers.iter().map(|(name, value)| (name.clone(), value.to_string())));
        let inputs = self.inputs.iter();
        metadata.extend(inputs.map(|(what, value)| (format!("{INPUT}{what}"), value.clone())));
        safetensors::write(&path, &self.tensors, StorageFormat::F32, &metadata)?;
        let checkpoints = list(folder)?;
        let best = if keep_best { best(&checkpoints)? } else { None };
        for old in checkpoints.iter().take(checkpoints.len().saturating_sub(keep)) {
            if best != Some(old.as_path()) {
                std::fs::remove_file(old).map_err(TrainingError::file(old))?;
            }
        }
        Ok(path)
    }

    /// A state after some step that nothing was put into yet. The run adds its inputs.
    pub(crate) fn of_step(step: u64) -> Self {
        let (numbers, inputs, tensors) = Default::default();
        Self { step, numbers, inputs, tensors }
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<f64, TrainingError> {
        self.numbers.get(name).copied().ok_or_else(|| TrainingError::Checkpoint {
            step: self.step,
            problem: format!("its metadata has no number `{name}`"),
        })
    }

    /// A number that older checkpoints do not have.
    pub(crate) fn number_or_zero(&self, name: &str) -> f64 {
        self.numbers.get(name).copied().unwrap_or(0.0)
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

pub(crate) fn join<E: std::fmt::Display>(errors: &[E]) -> String {
    let shown: Vec<String> = errors.iter().take(3).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(shown.len());
    let mut text = shown.join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}
