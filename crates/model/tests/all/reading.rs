//! Models from a folder and from bytes.

use std::{fs, path::Path};

use fixtures::home;
use model::{Model, ModelBytes, ModelError};

use crate::bytes;

fn mini() -> std::path::PathBuf {
    home().path("models/mini").unwrap()
}

/// Writes the files as a folder.
fn write(files: &ModelBytes, folder: &Path) {
    fs::write(folder.join("config.json"), &files.config).unwrap();
    fs::write(folder.join("tokenizer.safetensors"), &files.tokenizer).unwrap();
    if let Some(classes) = &files.classes {
        fs::write(folder.join("classes.json"), classes).unwrap();
    }
    if let Some(generator) = &files.generator {
        fs::write(folder.join("generator.safetensors"), generator).unwrap();
    }
}

/// The error of reading this model and its weights, once from bytes and once from a folder.
fn errors(files: ModelBytes) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    write(&files, folder.path());
    let error = |model: Result<Model, ModelError>| {
        model
            .and_then(|model| {
                model.tokenizer_tensors()?;
                if model.config.generator.is_some() {
                    model.generator_tensors()?;
                }
                Ok(())
            })
            .unwrap_err()
            .to_string()
    };
    [error(Model::from_bytes(files)), error(Model::read(folder.path()))]
}

#[test]
fn should_read_the_same_from_bytes_as_from_a_folder() {
    let folder = Model::read(mini()).unwrap();
    let memory = Model::from_bytes(bytes(&mini())).unwrap();
    assert!(!memory.path().exists());
    assert_eq!(memory.config, folder.config);
    assert_eq!(memory.classes, folder.classes);
    assert_eq!(memory.generator_config().unwrap(), folder.generator_config().unwrap());
    assert_eq!(memory.tokenizer_file().unwrap().bytes(), folder.tokenizer_file().unwrap().bytes());
    assert!(memory.tokenizer_tensors().unwrap() == folder.tokenizer_tensors().unwrap());
    assert!(memory.generator_tensors().unwrap() == folder.generator_tensors().unwrap());
}

#[test]
fn should_name_the_file_that_is_wrong() {
    let good = bytes(&mini());
    let wrong = |change: &dyn Fn(&mut ModelBytes), file: &str, what: &str| {
        let mut files = good.clone();
        change(&mut files);
        for told in errors(files) {
            assert!(told.contains(file) && told.contains(what), "{file}, {what}: {told}");
        }
    };
    wrong(&|files| files.config = "{".into(), "config.json", "EOF");
    wrong(&|files| files.config = "{}".into(), "config.json", "`format` is missing");
    wrong(
        &|files| files.config = files.config.replacen("\"format\": 1", "\"format\": 99", 1),
        "config.json",
        "`format` is 99",
    );
    wrong(
        &|files| files.config = files.config.replacen('{', "{\"colour\": 1,", 1),
        "config.json",
        "colour",
    );
    wrong(&|files| files.classes = None, "classes.json", "no model folder");
    wrong(&|files| files.classes = Some("{}".into()), "classes.json", "list of names");
    wrong(&|files| files.classes = Some("[\"a\"]".into()), "classes.json", "1 names for 9 classes");
    wrong(&|files| files.generator = None, "generator.safetensors", "no model folder");
    wrong(
        &|files| files.tokenizer = files.tokenizer[..1000].into(),
        "tokenizer.safetensors",
        "damaged or cut off",
    );
    wrong(
        &|files| files.generator = Some(b"<html>not found</html>"[..].into()),
        "generator.safetensors",
        "no .safetensors file",
    );
    wrong(&|files| files.tokenizer = [].into(), "tokenizer.safetensors", "empty");
}

#[test]
fn should_take_a_tokenizer_without_generator_and_refuse_one_that_is_not_described() {
    let mut files = bytes(&mini());
    let mut config: serde_json::Value = serde_json::from_str(&files.config).unwrap();
    config.as_object_mut().unwrap().remove("generator");
    files.config = config.to_string();
    for told in errors(files.clone()) {
        assert!(told.contains("config.json") && told.contains("no `generator`"), "{told}");
    }
    (files.generator, files.classes) = (None, None);
    let model = Model::from_bytes(files).unwrap();
    assert!(model.classes.is_empty());
    model.tokenizer_tensors().unwrap();
    for error in [model.generator_tensors().unwrap_err(), model.generator_config().unwrap_err()] {
        assert!(matches!(error, ModelError::NoGenerator { .. }), "{error}");
    }
}
