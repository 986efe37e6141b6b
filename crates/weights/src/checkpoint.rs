//! Checkpoints of others: `.pth`, `.pt` and `.bin` of PyTorch, and `.safetensors`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use files::{FileError, TensorMap, safetensors};

use crate::{error::CheckpointError, torch_file};

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
}

impl Checkpoint {
    /// Reads a file; its content decides on the format, not its name.
    ///
    /// A training checkpoint's nested state dict (`model_state`, `state_dict`, `model`, …) is found.
    /// Prefixes `module.` and `_orig_mod.` are removed where every tensor has them. Views are copied
    /// out of their storages, contiguous or not.
    ///
    /// # Errors
    /// If the file is missing, empty, cut off, something else, wants to run code, or holds no
    /// state dict.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
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
            [b'P', b'K', 3 | 5, 4 | 6, ..] => torch_file::read_zip(path, file),
            [0x80, 0..=5, ..] if !safetensors::begins(&start) => {
                torch_file::read_legacy(path, file)
            }
            start if safetensors::begins(start) => {
                let (tensors, others) = safetensors::read_floats(path, file)?;
                Ok(Self { tensors, others, state_dict: None })
            }
            start => Err(CheckpointError::NotACheckpoint {
                path: path.to_owned(),
                found: describe(start),
            }),
        }
    }
}

/// What a file with this beginning probably is.
fn describe(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start).trim_start().to_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        "is a web page, probably an error or confirmation page of the download".to_owned()
    } else if text.starts_with("version https://git-lfs") {
        "is a pointer of Git LFS; fetch the file itself with `git lfs pull`".to_owned()
    } else {
        let hex: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("begins with the bytes {}", hex.join(" "))
    }
}
