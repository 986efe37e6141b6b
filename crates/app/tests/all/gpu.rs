//! The device `gpu`: on a GPU, or on a driver that computes on the processor.

use std::{fs, io::Write};

use crate::common::{Scratch, fixture, integers};

/// A folder to work in, if there is a GPU or such a driver. Tests that find neither do nothing and say so.
fn scratch() -> Option<Scratch> {
    let scratch = Scratch::new();
    if scratch.ok(&["devices"]).contains("our shaders, --gpu 0: ") {
        return Some(scratch);
    }
    // Past the test harness, which keeps what passing tests print to itself.
    let _ = writeln!(
        std::io::stderr(),
        "NOT TESTED: no GPU and no software driver; install mesa-vulkan-drivers"
    );
    None
}

/// Most levels of 256 between two pictures.
fn difference(left: &[u8], right: &[u8]) -> u8 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| left.abs_diff(*right)).max().unwrap_or(0)
}

#[test]
fn should_draw_the_pictures_of_the_cpu() {
    let Some(scratch) = scratch() else { return };
    // A guided picture and one without guidance, of different classes.
    for (name, guidance) in [("guided", "3"), ("plain", "1")] {
        let draw = |out: &str, device: &[&str]| {
            let arguments = ["generate", "--class", "Flags", "Objects", "--guidance", guidance];
            scratch.ok(&[&arguments[..], &["--seed", "4", "--out", out], device].concat());
            scratch.path(out)
        };
        let tokens = |device: &[&str]| fs::read(draw("x.safetensors", device)).unwrap();
        let expected = tokens(&[]);
        assert_eq!(integers(&expected, "tokens").len(), 2 * 72);
        // Nothing in the file says what drew it.
        assert_eq!(tokens(&["--device", "gpu"]), expected, "{name}");
        draw("cpu.png", &[]);
        draw("gpu.png", &["--device", "gpu", "--gpu", "0"]);
        let difference = difference(&scratch.picture("cpu.png"), &scratch.picture("gpu.png"));
        assert!(difference <= 1, "{name}: {difference} levels");
    }
}

#[test]
fn should_encode_complete_and_decode_as_the_cpu() {
    let Some(scratch) = scratch() else { return };
    let photo = fixture("photo_0.png").display().to_string();
    let run = |arguments: &[&str], out: &str, device: &str| {
        scratch.ok(&[arguments, &["--device", device, "--out", out]].concat());
    };
    for device in ["cpu", "gpu"] {
        run(&["encode", &photo], &format!("{device}.safetensors"), device);
        let complete = ["complete", &photo, "--rows", "3", "--class", "Objects"];
        run(&complete, &format!("completed-{device}.safetensors"), device);
    }
    for name in ["", "completed-"] {
        let read = |device: &str| scratch.read(format!("{name}{device}.safetensors"));
        assert_eq!(read("gpu"), read("cpu"), "{name}");
    }
    for kind in ["causal", "bidirectional"] {
        for device in ["cpu", "gpu"] {
            let decode = ["decode", "cpu.safetensors", "--decoder", kind];
            run(&decode, &format!("{kind}-{device}"), device);
        }
        let picture = |device: &str| scratch.picture(&format!("{kind}-{device}/photo_0.png"));
        let difference = difference(&picture("gpu"), &picture("cpu"));
        assert!(difference <= 1, "{kind}: {difference} levels");
    }
    let told = scratch.ok(&["reconstruct", &photo, "--device", "gpu", "--out", "rebuilt"]);
    assert!(told.contains("PSNR") || told.contains("dB"), "{told}");
}

#[test]
fn should_say_which_gpus_there_are_and_what_they_cannot() {
    let Some(scratch) = scratch() else { return };
    let generate = ["generate", "--class", "2", "--out", "x.safetensors"];
    let refused = |more: &[&str]| scratch.refused(&[&generate[..], more].concat());
    let told = refused(&["--device", "gpu", "--gpu", "no such thing"]);
    assert!(told.contains("no GPU is called `no such thing`; there are 0 ("), "{told}");
    let told = refused(&["--gpu", "0"]);
    assert!(told.contains("write --device gpu"), "{told}");
    let told = refused(&["--device", "gpu", "--precision", "int4"]);
    assert!(told.contains("`gpu` computes in f32, bf16 and int8 only"), "{told}");
    let told = refused(&["--device", "gpu", "--drafts", "own"]);
    assert!(told.contains("drafts need the device `cpu`"), "{told}");
}
