//! Token caching that is killed, runs out of space, or runs twice at once. `TRIALS` in the
//! environment sets the number of kills:
//!
//! ```text
//! TRIALS=100 cargo test --release --workspace --test faults -- --nocapture
//! ```

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed
#![cfg(unix)]

mod common;

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use common::Scratch;
use tokens::{
    cache::TokenCache,
    noise::{Noise, Purpose},
};

const TOKENS: &str = "tokens-00000-of-00001.bin";
const PARTIAL: &str = "tokens-00000-of-00001.bin.partial";
const NAMES: &str = "names-00000-of-00001.txt";

/// A tiny model in `model`.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--out", "model"];
    let settings = [
        "--data",
        "bundled:heldout",
        "--set",
        "steps=1",
        "batch=2",
        "warmup_steps=1",
        "architecture.codes=16",
        "architecture.token_size=4",
        "architecture.encoder={width=16,layers=1,heads=2}",
        "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
    ];
    scratch.ok(&[&train[..], &settings].concat());
    scratch
}

fn build(out: &str) -> [&str; 8] {
    ["cache", "build", "--data", "bundled:heldout", "--model", "model", "--out", out]
}

fn start(scratch: &Scratch, out: &str) -> Child {
    let mut command = scratch.command(&build(out));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The two files of a cache in one shard.
fn content(scratch: &Scratch, cache: &str) -> [Vec<u8>; 2] {
    [TOKENS, NAMES].map(|name| scratch.read(&format!("{cache}/{name}")))
}

#[test]
fn should_lose_and_repeat_nothing_when_it_is_killed() {
    let trials = std::env::var("TRIALS").map_or(10, |trials| trials.parse().unwrap());
    let scratch = scratch();
    let started = Instant::now();
    scratch.ok(&build("whole"));
    let whole_time = started.elapsed();
    let whole = content(&scratch, "whole");

    let (mut kills, mut resumed, mut refused) = (0, 0, 0);
    for trial in 0..trials {
        let cache = format!("killed-{trial}");
        let mut noise = Noise::new(0, Purpose::Order, 1, trial);
        // Killed again and again until a call comes through, each time at a random moment.
        for attempt in 0.. {
            let mut child = start(&scratch, &cache);
            let last = attempt == 2;
            if !last {
                let wait: Duration = whole_time.mul_f64(noise.uniform());
                std::thread::sleep(wait);
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert!(!last, "{}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
            let partial = scratch.path(&format!("{cache}/{PARTIAL}"));
            let large = |metadata: std::fs::Metadata| metadata.len() > 10_000;
            resumed += usize::from(partial.metadata().is_ok_and(large));
            // What a killed run leaves is no cache, unless it was just done.
            match TokenCache::open(scratch.path(&cache)) {
                Ok(cache) => assert!(cache.verify().is_empty()),
                Err(_) => refused += 1,
            }
        }
        assert_eq!(content(&scratch, &cache), whole, "trial {trial}");
        assert!(scratch.path(&format!("{cache}/tokenizer/config.json")).exists());
        std::fs::remove_dir_all(scratch.path(&cache)).unwrap();
    }
    println!(
        "{trials} trials: {kills} kills, {resumed} with records on the disk, {refused} left no \
         cache to read; all {trials} ended in the bytes of an uninterrupted run"
    );
    assert!(kills >= trials / 2, "{kills} of {trials} were killed in time: too few to tell");
}

#[test]
fn should_go_on_after_a_full_disk() {
    let scratch = scratch();
    scratch.ok(&build("whole"));
    // A limit on the size of files ends a write in the middle, as a full disk does.
    let size = content(&scratch, "whole")[0].len();
    let mut limited = std::process::Command::new("bash");
    let blocks = (size / 2) / 1024;
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    limited.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_alitok")]).args(build("limited"));
    let output = limited.current_dir(scratch.path("")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !told.contains("panicked"), "{told}");
    assert!(told.contains("limited") && told.contains("too large"), "{told}");
    assert!(scratch.refused(&["cache", "info", "limited"]).contains("--shard 0/1"));
    scratch.ok(&build("limited"));
    assert_eq!(content(&scratch, "limited"), content(&scratch, "whole"));
}

#[test]
fn should_let_one_of_two_writers_work() {
    let scratch = scratch();
    scratch.ok(&build("whole"));
    let writers: Vec<_> = (0..2).map(|_| start(&scratch, "shared")).collect();
    let outputs: Vec<_> =
        writers.into_iter().map(|writer| writer.wait_with_output().unwrap()).collect();
    assert!(outputs.iter().any(|output| output.status.success()));
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("is being written by another process"), "{told}");
    }
    assert_eq!(content(&scratch, "shared"), content(&scratch, "whole"));
}

#[test]
fn should_say_what_is_damaged_and_exchange_the_rest() {
    let scratch = scratch();
    scratch.ok(&build("whole"));
    assert!(scratch.ok(&["cache", "verify", "whole"]).contains("263 pictures in 1 views"));
    for out in ["lines.jsonl", "folder", "arrays.npz"] {
        scratch.ok(&["cache", "export", "whole", "--out", out]);
    }
    let import = |from: &str, out: &str| {
        scratch.ok(&["cache", "import", from, "--model", "model", "--out", out]);
        scratch.ok(&["cache", "export", out, "--out", &format!("{out}.jsonl")]);
    };
    import("lines.jsonl", "from-lines");
    assert_eq!(scratch.read("from-lines.jsonl"), scratch.read("lines.jsonl"));
    import("folder", "from-folder");
    scratch.ok(&["cache", "verify", "from-folder"]);
    // Sorted by file now, with the same tokens.
    let sorted = |name: &str| {
        let text = String::from_utf8(scratch.read(name)).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted("from-folder.jsonl"), sorted("lines.jsonl"));

    let mut bytes = scratch.read(&format!("whole/{TOKENS}"));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(scratch.path(&format!("whole/{TOKENS}")), bytes).unwrap();
    let told = scratch.refused(&["cache", "verify", "whole"]);
    assert!(told.contains(TOKENS) && told.contains("build this shard again"), "{told}");
    assert!(scratch.refused(&["cache", "export", "whole", "--out", "x.npz"]).contains(TOKENS));
}
