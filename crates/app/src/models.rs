//! Finding and opening the model that a command names.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use model::Model;
use tokenizer::{DecoderKind, TokenizerConfig};

use crate::args::{DecoderArgs, DecoderName, StorageName};

/// The folder of a model: `mini` is the bundled one (`./mini` a folder of that name).
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    if name != "mini" {
        return Ok(of_run(Path::new(name)));
    }
    match pixels::bundled_path("models/mini") {
        Some(path) => Ok(path),
        None => bail!(
            "the bundled model was not found; set ALITOK_HOME to the folder that holds `data` \
             and `models`"
        ),
    }
}

/// The model folder of a run; any other path stays what it is.
pub(crate) fn of_run(path: &Path) -> PathBuf {
    let model = path.join("model");
    if model.join("config.json").exists() { model } else { path.to_owned() }
}

/// Reads the configuration of a model.
pub(crate) fn open(name: &str) -> Result<Model> {
    Ok(Model::read(folder(name)?)?)
}

/// The decoder that was asked for, or the model's best.
pub(crate) fn decoder_kind(config: &TokenizerConfig, decoder: &DecoderArgs) -> Result<DecoderKind> {
    let kind = match decoder.decoder {
        Some(DecoderName::Causal) => DecoderKind::Causal,
        Some(DecoderName::Bidirectional) => DecoderKind::Bidirectional,
        None => match config.best_decoder() {
            Some(kind) => kind,
            None => bail!("the model has no decoder"),
        },
    };
    config.decoder(kind)?;
    Ok(kind)
}

impl From<StorageName> for files::safetensors::StorageFormat {
    fn from(name: StorageName) -> Self {
        match name {
            StorageName::F32 => Self::F32,
            StorageName::Bf16 => Self::Bf16,
        }
    }
}
