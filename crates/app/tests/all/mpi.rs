//! Training on processes that `mpirun` starts: `cargo test --release --features mpi --test mpi`.

use std::process::{Command, Stdio};

use crate::common::Scratch;

const RECIPE: [&str; 11] = [
    "--set",
    "steps=6",
    "batch=4",
    "log_every=1",
    "checkpoint_every=2",
    "warmup_steps=1",
    "evaluate_every=6",
    "architecture.codes=16",
    "architecture.token_size=4",
    "architecture.encoder={width=16,layers=1,heads=2}",
    "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
];

fn stage_one<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--data"];
    let data = ["bundled:heldout", "--heldout", "bundled:heldout", "--out", out];
    [&train[..], &data, &RECIPE, more].concat()
}

/// The program on `ranks` processes.
fn launch(scratch: &Scratch, ranks: &str, arguments: &[&str]) -> Command {
    let alone = scratch.command(arguments);
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", ranks]);
    command.arg(alone.get_program()).args(alone.get_args());
    if let Some(folder) = alone.get_current_dir() {
        command.current_dir(folder);
    }
    command.stdout(Stdio::null());
    command
}

/// One measure over the log of a run.
fn course(scratch: &Scratch, run: &str, measure: &str) -> Vec<f64> {
    let log = String::from_utf8(scratch.read(&format!("{run}/log.jsonl"))).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    log.lines().filter_map(|text| line(text)[measure].as_f64()).collect()
}

#[test]
fn should_train_alike_on_one_process_and_on_several() {
    let scratch = Scratch::new();
    scratch.ok(&stage_one("alone", &[]));
    for ranks in ["1", "2", "4"] {
        assert!(launch(&scratch, ranks, &stage_one(ranks, &[])).status().unwrap().success());
        for measure in ["loss", "gradient_norm", "heldout_loss"] {
            let (got, expected) =
                (course(&scratch, ranks, measure), course(&scratch, "alone", measure));
            assert_eq!(got.len(), if measure == "heldout_loss" { 1 } else { 6 });
            for (got, expected) in got.iter().zip(&expected) {
                let near = (got - expected).abs() <= 1e-4 * expected;
                assert!(near, "{ranks} ranks, {measure}: {got} not {expected}");
            }
        }
    }
}

#[test]
fn should_end_with_one_killed_process_and_resume_on_another_number() {
    let scratch = Scratch::new();
    let steps = ["--set", "steps=40"];
    let arguments = stage_one("killed", &steps);
    let mut run = launch(&scratch, "2", &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let first = scratch.path("killed/checkpoints/step-00000002.safetensors");
    while !first.exists() && run.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // The launcher's children are the ranks.
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let children = std::fs::read_to_string(children).unwrap();
    let rank = children.split_whitespace().next_back().unwrap();
    assert!(Command::new("kill").args(["-9", rank]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("signal 9"), "{told}");
    assert!(course(&scratch, "killed", "loss").len() < 40);

    let resume = ["--resume", "--set", "steps=40"];
    let resumed = launch(&scratch, "4", &stage_one("killed", &resume)).status().unwrap();
    assert!(resumed.success());
    assert_eq!(course(&scratch, "killed", "loss").len(), 40);
}

#[test]
fn should_end_all_processes_with_the_error_of_one() {
    let scratch = Scratch::new();
    let mut uneven = stage_one("uneven", &[]);
    *uneven.iter_mut().find(|argument| **argument == "batch=4").unwrap() = "batch=3";
    let output = launch(&scratch, "2", &uneven).output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("make `batch` a multiple of 2"), "{told}");
    assert!(!scratch.path("uneven").exists());
}
