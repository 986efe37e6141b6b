//! `alitok experiment`, at toy size.

use std::process::{Child, Stdio};

use crate::common::Scratch;
use serde_json::Value;

const PLAN: &str = r#"
data = "bundled:heldout"
heldout = "bundled:heldout"
views = "center"

[tokenizer]
set = [
    "steps=4", "batch=4", "log_every=1", "checkpoint_every=1", "warmup_steps=1", "precision=f32",
    "positions=sinusoid", "phases=[]", "clustering.anchor=spread", "augmentation.crop=center",
    "architecture.image={height=32,width=32}", "architecture.codes=16",
    "architecture.token_size=4", "architecture.encoder={width=16,layers=1,heads=2}",
]

[second_stage]
recipe = "mini"
set = [
    "steps=2", "batch=4", "log_every=1", "checkpoint_every=1", "warmup_steps=1",
    "decoder.transformer={width=16,layers=1,heads=2}", "decoder.leading=2",
]

[generator]
recipe = "mini"
set = [
    "steps=4", "batch=4", "log_every=1", "checkpoint_every=2", "evaluate_every=2",
    "warmup_steps=1", "architecture={width=16,layers=1,heads=2}",
]

[evaluation]
samples = 9
seed = 0

[[rows]]
name = "A"
title = "bidirectional decoder"
recipe = "table-3-a"
set = ["architecture.bidirectional_decoder.transformer={width=16,layers=1,heads=2}"]
seeds = [1, 2]

[[rows]]
name = "D"
title = "prefix and auxiliary loss"
recipe = "table-3-d"
set = [
    "architecture.prefix=2",
    "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
]
seeds = [1]

[[rows]]
name = "F"
title = "second stage"
second_stage_of = "D"
seeds = [1]
"#;

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("plan.toml"), PLAN).unwrap();
    scratch
}

fn ablation<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["experiment", "ablation", "--plan", "plan.toml", "--out", out][..], more].concat()
}

fn start(scratch: &Scratch, out: &str) -> Child {
    let mut command = scratch.command(&ablation(out, &[]));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs the experiment and kills it as soon as a file is there.
fn kill_at(scratch: &Scratch, out: &str, file: &str) {
    let mut child = start(scratch, out);
    let path = scratch.path(format!("{out}/{file}"));
    while !path.exists() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn should_go_on_where_it_was_killed_and_repeat_nothing() {
    let scratch = scratch();
    let told = scratch.ok(&ablation("whole", &["--json"]));
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["missing"], Value::Array(Vec::new()));
    let files = ["report.json", "A/seed-2/measures.json", "F/seed-1/measures.json"];

    // In a first stage, in a generator, between two units, in a second stage.
    kill_at(&scratch, "killed", "A/seed-1/stage-1/checkpoints/step-00000002.safetensors");
    kill_at(&scratch, "killed", "A/seed-1/generator/checkpoints/step-00000002.safetensors");
    kill_at(&scratch, "killed", "A/seed-1/measures.json");
    let partial = scratch.ok(&ablation("killed", &["--report-only"]));
    assert!(partial.contains("Missing: D, seed 1; F, seed 1; A, seed 2"), "{partial}");
    kill_at(&scratch, "killed", "F/seed-1/stage-2/checkpoints/step-00000001.safetensors");
    scratch.ok(&ablation("killed", &[]));
    for file in files {
        let read = |out: &str| scratch.read(format!("{out}/{file}"));
        assert!(read("killed") == read("whole"), "{file} differs");
    }

    // Nothing is left to do, so no training writes a line, not even of what it goes on with.
    let log = || scratch.path("whole/A/seed-1/generator/log.jsonl").metadata().unwrap();
    let before = log().modified().unwrap();
    let output = scratch.run(&ablation("whole", &[]));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_closing = told.starts_with("a report in ") && told.lines().count() == 1;
    assert!(output.status.success() && is_closing, "{told}");
    assert_eq!(log().modified().unwrap(), before);

    // Another plan is not mixed with what is there.
    std::fs::write(
        scratch.path("plan.toml"),
        PLAN.replace("\"steps=4\", \"batch=4\"", "\"steps=5\", \"batch=4\""),
    )
    .unwrap();
    let told = scratch.refused(&ablation("whole", &[]));
    assert!(told.contains("`steps` was 4 and is now 5"), "{told}");
}

#[test]
fn should_compare_what_the_rows_have() {
    let scratch = scratch();
    // Both at once: each takes what the other has not begun.
    let mut beside = start(&scratch, "out");
    scratch.ok(&ablation("out", &[]));
    assert!(beside.wait().unwrap().success());
    let told = scratch.ok(&ablation("out", &["--report-only", "--json"]));
    let report: Value = serde_json::from_str(&told).unwrap();
    let seed = |row: usize, place: usize| report["rows"][row]["seeds"][place].clone();
    let (baseline, aligned, second) = (seed(0, 0), seed(1, 0), seed(2, 0));
    // Without a prefix, all tokens are grid tokens.
    assert_eq!(baseline["heldout"]["loss"], baseline["heldout"]["grid_loss"]);
    assert_ne!(aligned["heldout"]["loss"], aligned["heldout"]["grid_loss"]);
    // 4 and 6 tokens a picture.
    for (row, length) in [(&baseline, 4.0), (&aligned, 6.0)] {
        let [loss, picture] =
            ["loss", "picture_loss"].map(|key| row["heldout"][key].as_f64().unwrap());
        assert!((loss * length - picture).abs() < 1e-9, "{loss} and {picture}");
        // As the training's own evaluation, whose batches differ.
        let curve = row["curve"].as_array().unwrap();
        let evaluated = curve.last().unwrap()[2].as_f64().unwrap();
        assert!((loss - evaluated).abs() < 1e-5, "{loss} and {evaluated}");
        // Nothing has been learned yet that could be better than the codes' frequencies.
        assert!(loss > 0.9 * row["code_entropy"].as_f64().unwrap());
    }
    // The second stage has the same tokens and the same generator, and other pictures.
    assert_eq!(second["heldout"], aligned["heldout"]);
    assert_eq!(second["codebook_usage"], aligned["codebook_usage"]);
    assert_ne!(second["reconstruction"], aligned["reconstruction"]);
    assert_ne!(second["sample_distance"], aligned["sample_distance"]);
    assert_ne!(seed(0, 1)["heldout"], baseline["heldout"], "two seeds, two results");
    // A causal decoder looks back whatever it has learned.
    assert!(aligned["attention"].is_null());
    for row in [&baseline, &second] {
        let weights = row["attention"].as_array().unwrap();
        let sum: f64 = weights
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|weight| weight.as_f64().unwrap())
            .sum();
        assert!(sum > 0.0, "{weights:?}");
    }
    let curves = String::from_utf8(scratch.read("out/curves.svg")).unwrap();
    assert!(curves.contains("D: prefix and auxiliary loss") && !curves.contains("F: "), "{curves}");
    let attention = String::from_utf8(scratch.read("out/attention.svg")).unwrap();
    assert!(attention.contains("A (") && attention.contains("F (") && !attention.contains("D ("));
    assert!(scratch.read("out/attention.png").starts_with(b"\x89PNG"));
    let table = String::from_utf8(scratch.read("out/report.md")).unwrap();
    assert!(table.contains("| A | bidirectional decoder | 2 |"), "{table}");
    assert!(!table.contains("Missing"), "{table}");

    let told = scratch.refused(&ablation("out", &["--row", "E"]));
    assert!(told.contains("no row `E`; rows are A, D, F"), "{told}");
}
