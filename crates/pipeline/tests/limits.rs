//! Whatever number a model's configuration states, opening the model gives the model or an error: nothing
//! is allocated for sizes that its tensors do not have.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::{fs, path::Path};

use files::Home;
use model::Model;
use pipeline::{Compute, check_count};
use serde_json::Value;
use tokenizer::DecoderKind;

/// Paths of the numbers in a value.
fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.to_owned()),
        Value::Object(fields) => {
            for (key, value) in fields {
                numbers(value, &format!("{path}/{key}"), found);
            }
        }
        _ => {}
    }
}

/// Opens all parts of a model, and makes room for a picture.
fn open(folder: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let model = Model::read(folder).map_err(|error| text(&error))?;
    let compute = Compute::default();
    let drawer = compute.drawer(&model).map_err(|error| text(&error))?;
    drop(drawer.batch(1, 1).map_err(|error| text(&error))?);
    for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
        compute.decoder(&model, Some(kind)).map_err(|error| text(&error))?;
    }
    compute.encoder(&model).map_err(|error| text(&error))?;
    Ok(())
}

#[test]
fn should_open_or_refuse_a_model_whatever_numbers_it_states() {
    let home = Home::at(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let bundled = Model::named("mini", &home).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(bundled.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut paths = Vec::new();
    numbers(&whole, "", &mut paths);
    assert!(paths.len() > 20, "{paths:?}");
    assert_eq!(open(folder.path()), Ok(()));
    let mut refused = 0;
    for place in &paths {
        for other in
            ["0", "1", "2147483648", "9223372036854775808", "18446744073709551615", "-1", "1e300"]
        {
            let mut changed = whole.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::from_str(other).unwrap();
            fs::write(&path, changed.to_string()).unwrap();
            match open(folder.path()) {
                // How a width is cut into heads, no tensor says.
                Ok(()) => assert!(
                    place.contains("sampling")
                        || place.ends_with("heads")
                        || whole.pointer(place) == changed.pointer(place),
                    "{place} may not be {other}: the tensors have another size"
                ),
                Err(error) => {
                    refused += 1;
                    assert!(!error.is_empty());
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn should_refuse_more_pictures_than_memory_keeps_track_of() {
    assert!(check_count(9, 1000).is_ok());
    for count in [u32::MAX as usize, usize::MAX] {
        assert!(check_count(9, count).unwrap_err().to_string().contains("fewer at a time"));
    }
}
