//! Finding and opening the model that a command names.

use std::{path::Path, sync::LazyLock};

use anyhow::Result;
use files::Home;
use model::Model;

use crate::args::StorageName;

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

impl From<StorageName> for files::safetensors::StorageFormat {
    fn from(name: StorageName) -> Self {
        match name {
            StorageName::F32 => Self::F32,
            StorageName::Bf16 => Self::Bf16,
        }
    }
}
