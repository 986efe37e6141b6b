//! Devices, threads, and what the program says about itself.

use crate::common::Scratch;

const GENERATE: [&str; 5] = ["generate", "--class", "2", "--out", "x.safetensors"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn should_take_the_device_before_or_after_the_verb() {
    let scratch = Scratch::new();
    for device in ["cpu", "reference", "reference:flex", "reference:flex:0"] {
        scratch.ok(&with(&GENERATE, &["--device", device]));
        let after = scratch.read("x.safetensors");
        scratch.ok(&with(&["--device", device], &GENERATE));
        assert_eq!(scratch.read("x.safetensors"), after, "{device}");
    }
}

#[test]
fn should_say_that_models_are_no_longer_packed_into_files() {
    let scratch = Scratch::new();
    let told = scratch.refused(&["pack", "mini", "--precision", "bf16", "--out", "mini.packed"]);
    assert!(told.contains("packed on all threads at start"), "{told}");
    assert!(!scratch.path("mini.packed").exists());
}

#[test]
fn should_say_what_to_write_in_place_of_old_devices_and_engines() {
    let scratch = Scratch::new();
    for (old, new) in [
        (["--device", "wgpu"], "`reference:wgpu`"),
        (["--device", "flex"], "`cpu`"),
        (["--engine", "packed"], "`--device cpu`"),
        (["--engine", "burn"], "`--device reference`"),
        (["--packed", "mini.packed"], "--precision"),
    ] {
        let output = scratch.run(&with(&GENERATE, &old));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{old:?}");
        assert!(told.contains(new), "{old:?}: {told}");
    }
    let told = scratch.ok(&["generate", "--help"]);
    assert!(told.contains("--device") && !told.contains("--engine"), "{told}");
}

#[test]
fn should_say_how_to_get_a_device_that_is_not_compiled_in() {
    let scratch = Scratch::new();
    let output = scratch.run(&with(&GENERATE, &["--device", "cuda"]));
    assert_eq!(output.status.code(), Some(1));
    let told = scratch.refused(&with(&GENERATE, &["--device", "cuda"]));
    assert!(told.contains("without the device") && told.contains("reference:cuda"), "{told}");
    let told = scratch.refused(&with(&GENERATE, &["--device", "reference:rocm"]));
    assert!(told.contains("--features reference-rocm"), "{told}");
}

#[test]
fn should_name_a_device_that_trains() {
    let scratch = Scratch::new();
    let train = ["train", "generator", "--cache", "c", "--recipe", "mini", "--out", "r"];
    for (device, instead) in
        [("cpu", "`reference`"), ("gpu", "`reference:wgpu`"), ("cuda", "`reference:cuda`")]
    {
        let told = scratch.refused(&with(&train, &["--device", device]));
        assert!(told.contains(&format!("training runs on {instead}")), "{device}: {told}");
    }
    let told = scratch.refused(&["bench", "tokenizer", "--device", "reference"]);
    assert!(told.contains("--device cpu"), "{told}");
}

#[test]
fn should_draw_the_same_with_any_number_of_threads() {
    let scratch = Scratch::new();
    scratch.ok(&GENERATE);
    let expected = scratch.read("x.safetensors");
    for threads in ["1", "3"] {
        scratch.ok(&with(&GENERATE, &["--threads", threads]));
        assert_eq!(scratch.read("x.safetensors"), expected, "{threads} threads");
    }
    assert_eq!(scratch.run(&with(&GENERATE, &["--threads", "0"])).status.code(), Some(2));
}

#[test]
fn should_compute_on_as_many_threads_as_it_is_told() {
    let scratch = Scratch::new();
    let told = scratch.ok(&["devices", "--threads", "3"]);
    assert!(told.contains(" 3 threads"), "{told}");
    let bench = ["bench", "generator", "--preset", "mini", "--layout", "mini", "--steps", "1"];
    let told = scratch.ok(&with(&bench, &["--json", "--threads", "1"]));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["threads"], 1);
}

#[test]
fn should_list_devices() {
    let told = Scratch::new().ok(&["devices"]);
    let line = |device: &str| {
        let mut lines = told.lines();
        lines.find(|line| line.split(' ').next() == Some(device)).unwrap_or_default().to_owned()
    };
    assert!(line("cpu").contains("threads") && line("cpu").contains("kernels"), "{told}");
    assert!(line("reference:flex").contains("train"), "{told}");
    assert!(line("gpu").contains("our shaders"), "{told}");
    assert!(line("cuda").contains("not compiled in"), "{told}");
}

#[test]
fn should_say_what_a_bug_report_needs() {
    let scratch = Scratch::new();
    let told = scratch.ok(&["--version", "--verbose"]);
    for what in ["revision", "rustc ", "target", "features", "processor", "memory", "threads"] {
        assert!(told.contains(what), "{what} in {told}");
    }
    assert_eq!(scratch.ok(&["--verbose", "-V"]), told);
    assert_eq!(scratch.ok(&["--version"]).lines().count(), 1);
}
