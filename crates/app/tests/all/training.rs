//! The whole path through the command line, at toy size: train both stages, cache, train the
//! generator, draw; and a run that is killed and resumed.

use std::{fs, process::Stdio};

use crate::common::{Scratch, integers};

const TOKENIZER: [&str; 10] = [
    "--set",
    "steps=6",
    "batch=4",
    "log_every=1",
    "checkpoint_every=2",
    "warmup_steps=1",
    "architecture.codes=16",
    "architecture.token_size=4",
    "architecture.encoder={width=16,layers=1,heads=2}",
    "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
];

fn stage_one<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--data"];
    [&train[..], &["bundled:heldout", "--out", out], more, &TOKENIZER].concat()
}

#[test]
fn should_go_the_whole_path_from_pictures_to_pictures() {
    let scratch = Scratch::new();
    scratch.ok(&stage_one("one", &[]));
    let log = String::from_utf8(scratch.read("one/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6);
    for key in ["\"loss\"", "\"usage\"", "\"learning_rate\""] {
        assert!(log.lines().all(|line| line.contains(key)), "{key}: {log}");
    }
    assert!(scratch.read("one/recipe.toml").starts_with(b"# The resolved recipe"));
    // The last step is always drawn, whatever `samples_every` says.
    assert!(scratch.read("one/samples/step-00000006.png").starts_with(b"\x89PNG"));

    scratch.ok(&["plot", "one", "one/log.jsonl", "--measure", "loss", "entropy", "--out", "c.svg"]);
    let curves = String::from_utf8(scratch.read("c.svg")).unwrap();
    for word in ["one", "loss", "entropy", "step"] {
        assert!(curves.contains(word), "{word}");
    }
    // Named twice, drawn once, so that no two curves have one name.
    assert_eq!(curves.lines().filter(|line| line.trim() == "one").count(), 2);
    fs::create_dir_all(scratch.path("copies/one")).unwrap();
    fs::copy(scratch.path("one/log.jsonl"), scratch.path("copies/one/log.jsonl")).unwrap();
    scratch.ok(&["plot", "one", "copies/one", "--out", "c.svg"]);
    let curves = String::from_utf8(scratch.read("c.svg")).unwrap();
    assert!(curves.contains("copies/one"), "{curves}");
    // One line of a log is a point, and none is an error.
    let first = log.lines().next().unwrap();
    fs::write(scratch.path("copies/one/log.jsonl"), first).unwrap();
    scratch.ok(&["plot", "copies/one", "--out", "c.svg"]);
    assert!(String::from_utf8(scratch.read("c.svg")).unwrap().contains("<circle"));
    fs::write(scratch.path("copies/one/log.jsonl"), "").unwrap();
    let error = scratch.refused(&["plot", "copies/one", "--out", "d.png"]);
    assert!(error.contains("has no line yet"), "{error}");
    let error = scratch.refused(&["plot", "one", "--measure", "los", "--out", "d.png"]);
    assert!(error.contains("`los`") && error.contains("loss"), "{error}");

    scratch.ok(&[
        "train",
        "tokenizer",
        "--stage",
        "2",
        "--from",
        "one",
        "--recipe",
        "mini",
        "--data",
        "bundled:heldout",
        "--out",
        "two",
        "--set",
        "steps=2",
        "batch=4",
        "log_every=1",
        "checkpoint_every=1",
        "decoder.transformer={width=16,layers=1,heads=2}",
    ]);
    scratch.ok(&[
        "cache",
        "build",
        "--data",
        "bundled:heldout",
        "--model",
        "two",
        "--out",
        "cache",
    ]);
    scratch.ok(&[
        "train",
        "generator",
        "--cache",
        "cache",
        "--data",
        "bundled:heldout",
        "--recipe",
        "mini",
        "--out",
        "three",
        "--set",
        "steps=2",
        "batch=4",
        "log_every=1",
        "checkpoint_every=1",
        "architecture={width=16,layers=1,heads=2}",
    ]);
    scratch.ok(&["generate", "--model", "three", "--class", "Flags", "--out", "t.safetensors"]);
    assert_eq!(integers(&scratch.read("t.safetensors"), "tokens").len(), 72);
    let told = scratch.ok(&["inspect", "three/model"]);
    assert!(told.contains("causal") && told.contains("bidirectional"), "{told}");
}

#[test]
fn should_resume_a_killed_run_to_the_same_weights() {
    let scratch = Scratch::new();
    scratch.ok(&stage_one("whole", &[]));
    let mut run = scratch
        .command(&stage_one("killed", &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let first = scratch.path("killed/checkpoints/step-00000002.safetensors");
    while !first.exists() && run.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // SIGKILL on Unix. Should the run be over already, resuming has nothing to do but export.
    run.kill().unwrap();
    run.wait().unwrap();
    scratch.ok(&stage_one("killed", &["--resume"]));
    let weights = |run: &str| scratch.read(format!("{run}/model/tokenizer.safetensors"));
    assert_eq!(weights("killed"), weights("whole"));

    let told = scratch.refused(&stage_one("whole", &[]));
    assert!(told.contains("--resume"), "{told}");
    let mut other = stage_one("whole", &["--resume"]);
    let data = other.iter_mut().find(|argument| **argument == "bundled:heldout").unwrap();
    *data = "bundled";
    assert!(scratch.refused(&other).contains("another data set"));
}

/// A launcher's word that there are several processes must not be overlooked: each would train
/// alone.
#[cfg(not(feature = "mpi"))]
#[test]
fn should_not_train_alone_where_a_launcher_started_several() {
    let scratch = Scratch::new();
    let mut train = scratch.command(&stage_one("one", &[]));
    let output = train.env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("--features mpi"), "{told}");
    assert!(!scratch.path("one").exists());
}
