//! Bad input: a clear error, an exit code that is not 0, and nothing left behind.

use crate::common::{Scratch, fixture};

#[test]
fn should_refuse_files_that_are_no_pictures() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("text.png"), "not a picture").unwrap();
    std::fs::write(scratch.path("empty.png"), "").unwrap();
    let whole = std::fs::read(fixture("photo_0.png")).unwrap();
    std::fs::write(scratch.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    for name in ["missing.png", "text.png", "empty.png", "cut.png"] {
        for (verb, out) in [("encode", "out.safetensors"), ("reconstruct", "out")] {
            let told = scratch.refused(&[verb, name, "--out", out]);
            assert!(told.contains(name), "{told}");
        }
    }
    let photo = fixture("photo_0.png").display().to_string();
    let told = scratch.refused(&["encode", &photo, "--no-crop", "--out", "t.safetensors"]);
    assert!(told.contains("64"), "{told}");
    let told = scratch.refused(&["encode", &photo, "--out", "tokens.npz"]);
    assert!(told.contains("tokens.npz") && told.contains(".safetensors"), "{told}");
}

#[test]
fn should_refuse_sampling_that_makes_no_sense() {
    let scratch = Scratch::new();
    let refused = |more: &[&str]| {
        let arguments = ["generate", "--out", "x.png", "--class"];
        scratch.refused(&[&arguments[..], more].concat())
    };
    for option in ["--temperature", "--guidance", "--guidance-power"] {
        for value in ["-1", "nan", "inf"] {
            let told = refused(&["0", option, value]);
            assert!(told.contains("out of range"), "{option} {value}: {told}");
        }
    }
    assert!(refused(&["0", "--top-p", "0"]).contains("top-p"));
    assert!(refused(&["0", "--top-p", "1.5"]).contains("top-p"));
    let told = refused(&["flgas"]);
    assert!(told.contains("did you mean `Flags`"), "{told}");
    assert!(refused(&["9"]).contains("class 9"));
    assert!(refused(&["0", "--count", "0"]).contains("count"));
    let told = scratch.refused(&["generate", "--class", "0", "--out", "x.gif"]);
    assert!(told.contains(".gif"), "{told}");
    let told = scratch.refused(&["generate", "--class", "0", "--out", "nowhere/x.png"]);
    assert!(told.contains("nowhere"), "{told}");
}

#[test]
fn should_refuse_tokens_that_are_none() {
    let scratch = Scratch::new();
    let write = |name: &str, shape: Vec<usize>, values: Vec<i64>| {
        let bytes: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape, &bytes).unwrap();
        let file = safetensors::serialize([("tokens", view)], None).unwrap();
        std::fs::write(scratch.path(name), file).unwrap();
    };
    write("large.safetensors", vec![1, 72], vec![4096; 72]);
    write("negative.safetensors", vec![1, 72], vec![-1; 72]);
    write("short.safetensors", vec![1, 71], vec![0; 71]);
    std::fs::write(scratch.path("text.safetensors"), "tokens").unwrap();
    let refused = |name: &str| scratch.refused(&["decode", name, "--out", "pictures"]);
    assert!(refused("large.safetensors").contains("token 4096 is out of range"));
    assert!(refused("negative.safetensors").contains("token -1 is out of range"));
    assert!(refused("short.safetensors").contains("71 tokens"));
    assert!(refused("text.safetensors").contains("text.safetensors"));
    assert!(refused("missing.safetensors").contains("missing.safetensors"));
}

#[test]
fn should_refuse_checkpoints_that_want_to_run_code_or_are_damaged() {
    let scratch = Scratch::new();
    for file in ["attack.pth", "attack_legacy.pth", "module.pth"] {
        let path = fixture("torch").join(file);
        let told = scratch.refused(&["import", &path.display().to_string(), "--out", "model"]);
        assert!(told.contains(file) && told.contains("run code"), "{told}");
    }
    let whole = std::fs::read(fixture("released_tiny").join("tokenizer.pth")).unwrap();
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(scratch.path("cut.pth"), &whole[..length]).unwrap();
        let told = scratch.refused(&["import", "cut.pth", "--out", "model"]);
        assert!(told.contains("cut.pth"), "{told}");
    }
    let generator = fixture("generator.pth").display().to_string();
    let told = scratch.refused(&["import", &generator, "--out", "model"]);
    assert!(told.contains("generator.pth"), "{told}");
}

#[test]
fn should_refuse_model_folders_with_missing_or_extra_tensors() {
    let scratch = Scratch::new();
    let tokenizer = fixture("tokenizer_stage1.pth").display().to_string();
    scratch.ok(&["import", &tokenizer, "--out", "model"]);
    let path = scratch.path("model/tokenizer.safetensors");
    let whole = files::safetensors::read(&path).unwrap();
    let change = |tensors: &files::TensorMap| {
        let metadata = std::collections::BTreeMap::new();
        let precision = files::safetensors::StorageFormat::F32;
        files::safetensors::write(&path, tensors, precision, &metadata).unwrap();
        let photo = fixture("photo_0.png").display().to_string();
        let arguments = ["encode", &photo, "--model", "model", "--out", "t.safetensors"];
        scratch.refused(&arguments)
    };
    let mut missing = whole.clone();
    let tensor = missing.remove("quantizer.codebook").unwrap();
    assert!(change(&missing).contains("quantizer.codebook"));
    let mut extra = whole.clone();
    extra.insert("nobody.weight".into(), tensor);
    assert!(change(&extra).contains("nobody.weight"));
    std::fs::write(&path, "cut").unwrap();
    let photo = fixture("photo_0.png").display().to_string();
    let arguments = ["encode", &photo, "--model", "model", "--out", "t.safetensors"];
    assert!(scratch.refused(&arguments).contains("tokenizer.safetensors"));
    std::fs::write(scratch.path("model/config.json"), "{}").unwrap();
    assert!(scratch.refused(&arguments).contains("config.json"));
    assert!(scratch.refused(&["inspect", "nowhere"]).contains("nowhere"));

    // And the generator's.
    let tiny = |name: &str| fixture("released_tiny").join(name).display().to_string();
    scratch.ok(&["import", &tiny("tokenizer.pth"), &tiny("generator.bin"), "--out", "whole"]);
    let path = scratch.path("whole/generator.safetensors");
    let mut tensors = files::safetensors::read(&path).unwrap();
    tensors.remove("norm.weight");
    let metadata = std::collections::BTreeMap::new();
    let precision = files::safetensors::StorageFormat::F32;
    files::safetensors::write(&path, &tensors, precision, &metadata).unwrap();
    let told =
        scratch.refused(&["generate", "--model", "whole", "--class", "0", "--out", "folder"]);
    assert!(told.contains("norm.weight"), "{told}");
}

#[test]
fn should_refuse_runs_that_cannot_be_trained() {
    let scratch = Scratch::new();
    let train = ["train", "tokenizer", "--stage", "1", "--out", "run", "--data"];
    let refused = |more: &[&str]| scratch.refused(&[&train[..], more].concat());
    assert!(refused(&["nowhere", "--recipe", "mini"]).contains("nowhere"));
    assert!(refused(&["bundled", "--recipe", "mni"]).contains("mini"));
    let told = refused(&["bundled", "--recipe", "mini", "--set", "stepz=3"]);
    assert!(told.contains("did you mean `steps`"), "{told}");
    std::fs::create_dir(scratch.path("recipes")).unwrap();
    let told = refused(&["bundled", "--recipe", "./recipes"]);
    assert!(told.contains("./recipes holds no `tokenizer_stage_1.toml`"), "{told}");
    std::fs::remove_dir(scratch.path("recipes")).unwrap();
    let told = refused(&["bundled", "--recipe", "mini", "--set", "architecture.patch=7"]);
    assert!(told.contains("patches of 7"), "{told}");
}

/// A device that is always full: every write to it fails as on a full disk.
#[test]
fn should_say_so_when_there_is_no_space_left() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let scratch = Scratch::new();
    for arguments in [&["completions", "bash"][..], &["inspect", "mini"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = scratch.command(arguments).stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(told.contains("No space left") && !told.contains("panicked"), "{told}");
    }
}

#[test]
fn should_name_the_setting_that_pictures_of_another_size_need() {
    let scratch = Scratch::new();
    let arguments = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--out", "run"];
    let size = ["--data", "bundled", "--set", "architecture.image={height=128,width=128}"];
    let told = scratch.refused(&[&arguments[..], &size].concat());
    assert!(told.contains("`prefix` is 8") && told.contains("16 or 17"), "{told}");
    // What it advises is enough.
    let advice = ["architecture.prefix=16", "batch=1", "--dry-run"];
    assert!(told.contains(advice[0]), "{told}");
    scratch.ok(&[&arguments[..], &size, &advice].concat());
}

#[test]
fn should_name_a_few_tensors_and_count_the_others() {
    let scratch = Scratch::new();
    scratch.ok(&["export", "mini", "--folder", "model"]);
    let path = scratch.path("model/generator.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    // Other names of the same length leave all else in place.
    let (name, other) = (&b"blocks."[..], &b"plocks."[..]);
    let mut changed = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while let Some(place) = rest.windows(name.len()).position(|window| window == name) {
        changed.extend_from_slice(&rest[..place]);
        changed.extend_from_slice(other);
        rest = &rest[place + name.len()..];
    }
    changed.extend_from_slice(rest);
    std::fs::write(&path, changed).unwrap();
    let told = scratch.refused(&["generate", "--model", "model", "--class", "0", "--out", "x.png"]);
    assert_eq!(told.matches("tensor `").count(), 3, "{told}");
    assert!(told.contains(" more"), "{told}");
}
