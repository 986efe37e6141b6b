//! Finding and opening the model that a command names.

use std::{path::Path, sync::LazyLock};

use anyhow::{Result, bail};
use files::Home;
use model::Model;
use tokenizer::{DecoderKind, TokenizerConfig};

use crate::args::{DecoderArgs, DecoderName, StorageName};

/// The root of bundled things, which is looked for once.
pub(crate) fn home() -> &'static Home {
    static HOME: LazyLock<Home> = LazyLock::new(|| {
        Home::find(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))))
    });
    &HOME
}

/// Reads the configuration of a model.
pub(crate) fn open(name: &str) -> Result<Model> {
    Ok(Model::named(name, home())?)
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
