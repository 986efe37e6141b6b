//! The tests of the crate `model`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod named;
mod reading;
mod text;

use std::path::Path;

use model::ModelBytes;

/// The files of a model folder, in memory.
fn bytes(folder: &Path) -> ModelBytes {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
    ModelBytes {
        // Nothing is there: whoever looked on the disk would fail.
        name: "nowhere".to_owned(),
        config: text("config.json"),
        classes: Some(text("classes.json")),
        tokenizer: bytes("tokenizer.safetensors").into(),
        generator: Some(bytes("generator.safetensors").into()),
        text: None,
    }
}
