//! Checkpoints of others: `.pth`, `.pt` and `.bin` of PyTorch, and `.safetensors`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use files::{
    FileError, HostTensor, TensorMap, kind,
    safetensors::{self, TensorFile},
};

use crate::{
    error::CheckpointError,
    torch_file,
    wrappers::{Selection, WeightsChoice, unwrap},
};

/// The state dict of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// Every tensor of f64, f32, f16 or bf16, as f32.
    pub tensors: TensorMap,
    /// What else stands in the state dict, by name: integer tensors, numbers, …; described, not
    /// kept, because no weights of ours are integers.
    pub others: BTreeMap<String, String>,
    /// Under which key of a training checkpoint the state dict was found; `None` if the file is
    /// one itself.
    pub state_dict: Option<String>,
    /// What a person should know about what was taken, a sentence each.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// Reads a file; its content decides on the format, not its name. As
    /// [`read_weights`](Self::read_weights), without a choice.
    ///
    /// # Errors
    /// As there.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::read_weights(path, None)
    }

    /// Reads a file; its content decides on the format, not its name.
    ///
    /// A training checkpoint's nested state dict (`model_state`, `state_dict`, `model`, …) is found.
    /// What trainers wrap around names (`module.`, `_orig_mod.`, `model.`, …) is removed, in any
    /// nesting. Where the file holds weights and their moving average, `choice` says which to take;
    /// without one the weights as trained are taken, and [`notes`](Self::notes) say so. Views are copied
    /// out of their storages, contiguous or not.
    ///
    /// # Errors
    /// If the file is missing, empty, cut off, something else, wants to run code, or holds no
    /// state dict, or not the weights that were chosen.
    pub fn read_weights(
        path: impl AsRef<Path>,
        choice: Option<WeightsChoice>,
    ) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let read = |source| FileError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if metadata.is_dir() {
            return Err(CheckpointError::NotACheckpoint {
                path: path.to_owned(),
                found: "is a folder".to_owned(),
            });
        }
        if metadata.len() == 0 {
            return Err(FileError::Empty { path: path.to_owned() }.into());
        }
        let mut start = Vec::new();
        file.by_ref().take(512).read_to_end(&mut start).map_err(read)?;
        file.rewind().map_err(read)?;
        match &start[..] {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => torch_file::read_zip(path, file, choice),
            [0x80, 0..=5, ..] if !safetensors::begins(&start) => {
                torch_file::read_legacy(path, file, choice)
            }
            start if safetensors::begins(start) => read_safetensors(path, choice),
            start => Err(CheckpointError::NotACheckpoint {
                path: path.to_owned(),
                found: kind::describe(path).map_or_else(
                    || {
                        let start = start.iter().take(8);
                        let hex: Vec<String> = start.map(|byte| format!("{byte:02x}")).collect();
                        format!("begins with the bytes {}", hex.join(" "))
                    },
                    str::to_owned,
                ),
            }),
        }
    }
}

fn read_safetensors(
    path: &Path,
    choice: Option<WeightsChoice>,
) -> Result<Checkpoint, CheckpointError> {
    let file = TensorFile::open(path)?;
    let views = file.views()?;
    let Selection { names, notes, choice: found } =
        unwrap(&views.keys().cloned().collect(), choice);
    check_choice(path, choice, found)?;
    let mut checkpoint = Checkpoint { notes, ..Checkpoint::default() };
    for (own, name) in names {
        let Some(view) = views.get(&own) else { continue };
        if view.is_float() {
            let mut values = vec![0.0; view.shape().iter().product()];
            view.read(0, &mut values);
            checkpoint.tensors.insert(name, HostTensor::new(view.shape(), values));
        } else {
            checkpoint.others.insert(name, view.kind());
        }
    }
    Ok(checkpoint)
}

/// Checks that the weights which were found are those that were asked for.
pub(crate) fn check_choice(
    path: &Path,
    wanted: Option<WeightsChoice>,
    found: Option<WeightsChoice>,
) -> Result<(), CheckpointError> {
    let refused = |wanted, found| {
        Err(CheckpointError::NoSuchWeights { path: path.to_owned(), wanted, found })
    };
    match (wanted, found) {
        (Some(wanted @ WeightsChoice::Ema), None | Some(WeightsChoice::Raw)) => {
            refused(wanted, "it has one set of weights, which nothing calls a moving average")
        }
        (Some(wanted @ WeightsChoice::Raw), Some(WeightsChoice::Ema)) => {
            refused(wanted, "it has a moving average of weights alone")
        }
        _ => Ok(()),
    }
}
