//! Token caching that is killed, runs out of space, or runs twice at once. `TRIALS` in the
//! environment sets the number of kills:
//!
//! ```text
//! TRIALS=100 cargo test --release --workspace --test faults -- --nocapture
//! ```

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::common::Scratch;
use files::npz::ArchiveReader;
use token_cache::TokenCache;
use tokens::noise::{Noise, Purpose};

const TOKENS: &str = "tokens-00000-of-00001.bin";
const PARTIAL: &str = "tokens-00000-of-00001.bin.partial";
const NAMES: &str = "names-00000-of-00001.txt";

/// Settings of a tiny tokenizer.
const SMALL: [&str; 4] = [
    "architecture.codes=16",
    "architecture.token_size=4",
    "architecture.encoder={width=16,layers=1,heads=2}",
    "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
];

/// A tiny model in `model`.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--out", "model"];
    let settings = ["--data", "bundled:heldout", "--set", "steps=1", "batch=2", "warmup_steps=1"];
    scratch.ok(&[&train[..], &settings, &SMALL].concat());
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
    [TOKENS, NAMES].map(|name| scratch.read(format!("{cache}/{name}")))
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
            let partial = scratch.path(format!("{cache}/{PARTIAL}"));
            let large = |metadata: std::fs::Metadata| metadata.len() > 10_000;
            resumed += usize::from(partial.metadata().is_ok_and(large));
            // What a killed run leaves is no cache, unless it was just done.
            match TokenCache::open(scratch.path(&cache)) {
                Ok(cache) => assert!(cache.verify().is_empty()),
                Err(_) => refused += 1,
            }
        }
        assert_eq!(content(&scratch, &cache), whole, "trial {trial}");
        assert!(scratch.path(format!("{cache}/tokenizer/config.json")).exists());
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
fn should_leave_out_what_is_no_picture_and_say_so() {
    let scratch = scratch();
    let data = pixels::data::open("bundled:heldout", &crate::common::home()).unwrap();
    for class in ["cats", "dogs"] {
        std::fs::create_dir_all(scratch.path(format!("data/{class}"))).unwrap();
    }
    for index in 0..6 {
        let file = format!("data/{}/{index}.png", ["cats", "dogs"][index % 2]);
        data.picture(index).unwrap().write_png(scratch.path(&file)).unwrap();
    }
    let png = scratch.read("data/cats/0.png");
    // An empty file, a text, a cut picture, and one that says it has 60,000 pixels a side.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let checksum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    let bad: [(&str, &[u8]); 4] = [
        ("cats/a.jpg", b""),
        ("cats/z.png", b"a picture of a cat"),
        ("dogs/b.png", &png[..png.len() / 2]),
        ("dogs/c.png", &bomb),
    ];
    for (name, content) in bad {
        std::fs::write(scratch.path(format!("data/{name}")), content).unwrap();
    }
    // A PNG that is called JPEG is read for what it is.
    std::fs::write(scratch.path("data/dogs/d.jpg"), &png).unwrap();

    let build = ["cache", "build", "--data", "data", "--model", "model", "--out"];
    let output = scratch.run(&[&build[..], &["cache"]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let verified = scratch.ok(&["cache", "verify", "cache"]);
    let inspected = scratch.ok(&["data", "inspect", "data"]);
    for (name, _) in bad {
        assert!(told.contains(&format!("left out: {name}: ")), "{told}");
        assert!(verified.contains(&format!("left out: {name}: ")), "{verified}");
        assert!(inspected.contains(&format!("unreadable: {name}: ")), "{inspected}");
    }
    assert!(told.contains("4 pictures of shard 0/1"), "{told}");
    assert!(verified.contains("7 pictures in 1 views, all sound"), "{verified}");
    for (out, pictures) in [("c.npz", 7), ("c.jsonl", 7)] {
        scratch.ok(&["cache", "export", "cache", "--out", out]);
        if out == "c.jsonl" {
            let lines = String::from_utf8(scratch.read(out)).unwrap();
            assert_eq!(lines.lines().count(), pictures);
        } else {
            let mut file = ArchiveReader::open(&scratch.path(out)).unwrap();
            let (shape, codes) = file.integers("codes", 1 << 16).unwrap();
            assert_eq!(
                (shape[0], file.integers("labels", 99).unwrap().1),
                (7, vec![0, 0, 0, 1, 1, 1, 1])
            );
            assert!(codes.iter().all(|&code| code < 16));
        }
    }
    let strict = scratch.run(&[&build[..], &["strict", "--strict"]].concat());
    let told = String::from_utf8(strict.stderr).unwrap();
    assert!(!strict.status.success() && told.contains("a.jpg"), "{told}");

    let train = ["train", "tokenizer", "--stage", "1", "--recipe", "mini", "--data", "data"];
    let settings =
        ["--set", "steps=3", "batch=4", "warmup_steps=1", "log_every=3", "checkpoint_every=3"];
    let mut arguments = [&train[..], &["--out", "run"], &settings, &SMALL].concat();
    let output = scratch.run(&arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let log = String::from_utf8(scratch.read("run/log.jsonl")).unwrap();
    let listed = log.lines().filter(|line| line.contains("\"bad_picture\"")).count();
    assert!(listed > 0 && log.contains(&format!("\"bad_pictures\":{listed}")), "{log}");
    assert!(told.contains("bad picture: ") && told.contains("bad pictures so far"), "{told}");
    arguments[9] = "strict-run";
    arguments.push("--strict");
    let output = scratch.run(&arguments);
    assert!(!output.status.success());
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
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

    let mut bytes = scratch.read(format!("whole/{TOKENS}"));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(scratch.path(format!("whole/{TOKENS}")), bytes).unwrap();
    let told = scratch.refused(&["cache", "verify", "whole"]);
    assert!(told.contains(TOKENS) && told.contains("build this shard again"), "{told}");
    assert!(scratch.refused(&["cache", "export", "whole", "--out", "x.npz"]).contains(TOKENS));
}
