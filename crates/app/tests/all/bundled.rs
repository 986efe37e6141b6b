//! The bundled model and data through the command line.

use crate::common::{Scratch, integers};
use pixels::Picture;

/// A picture of the held-out side, written as a file.
fn held_out(scratch: &Scratch, index: usize, name: &str) {
    let data = pixels::data::open("bundled:heldout", &crate::common::home()).unwrap();
    data.picture(index).unwrap().write_png(scratch.path(name)).unwrap();
}

#[test]
fn should_draw_the_same_pictures_from_the_same_seed_in_any_batch() {
    let scratch = Scratch::new();
    let generate = |more: &[&str]| {
        let arguments = ["generate", "--class", "flags", "Food & Drink", "--seed", "5"];
        scratch.ok(&[&arguments[..], more].concat());
    };
    generate(&["--count", "3", "--out", "six.safetensors"]);
    generate(&["--count", "3", "--batch", "1", "--out", "one-by-one.safetensors"]);
    generate(&["--count", "1", "--out", "two.safetensors"]);
    let six = scratch.read("six.safetensors");
    assert_eq!(six, scratch.read("one-by-one.safetensors"));
    let (six_tokens, two) = (integers(&six, "tokens"), scratch.read("two.safetensors"));
    assert_eq!(integers(&two, "tokens"), six_tokens[..144]);
    let labels = integers(&six, "labels");
    assert_eq!(labels, [labels[0], labels[1]].repeat(3));
    assert_ne!(labels[0], labels[1]);

    scratch.ok(&["generate", "--class", "flags", "--seed", "6", "--out", "other.safetensors"]);
    assert_ne!(integers(&scratch.read("other.safetensors"), "tokens"), six_tokens[..72]);
}

#[test]
fn should_write_grids_folders_and_arrays_of_the_same_pictures() {
    let scratch = Scratch::new();
    for out in ["grid.png", "folder", "arrays.npz"] {
        scratch.ok(&["generate", "--class", "0", "--count", "2", "--out", out]);
    }
    let first = scratch.picture("folder/0000.png");
    let second = scratch.picture("folder/0001.png");
    let grid = Picture::read(scratch.path("grid.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 + 64 + 2 + 64 + 2, 2 + 64 + 2));
    let row = |line: usize, left: usize| {
        let start = 3 * (line * grid.width() + left);
        &grid.rgb()[start..start + 3 * 64]
    };
    for line in 0..64 {
        assert_eq!(row(2 + line, 2), &first[3 * 64 * line..3 * 64 * (line + 1)]);
        assert_eq!(row(2 + line, 68), &second[3 * 64 * line..3 * 64 * (line + 1)]);
    }
    let (header, pixels) = npz_member(&scratch.path("arrays.npz"), "arr_0.npy");
    assert!(header.contains("'|u1'") && header.contains("(2, 64, 64, 3"), "{header}");
    assert_eq!(pixels, [first, second].concat());
}

/// Header and bytes of an array in an `.npz` file.
fn npz_member(path: &std::path::Path, name: &str) -> (String, Vec<u8>) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name(name).unwrap(), &mut bytes).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values = bytes.split_off(10 + length);
    (String::from_utf8(bytes.split_off(10)).unwrap(), values)
}

#[test]
fn should_reconstruct_as_encode_and_decode_do_and_keep_what_complete_is_told_to() {
    let scratch = Scratch::new();
    held_out(&scratch, 0, "a.png");
    held_out(&scratch, 9, "b.png");
    let told = scratch.ok(&["reconstruct", "a.png", "b.png", "--out", "rebuilt"]);
    let psnr: Vec<f64> = told
        .lines()
        .map(|line| line.split("PSNR ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(psnr.len() == 2 && psnr.iter().all(|psnr| *psnr > 14.0), "{told}");
    scratch.ok(&["encode", "a.png", "b.png", "--out", "t.safetensors"]);
    scratch.ok(&["decode", "t.safetensors", "--out", "decoded"]);
    assert_eq!(scratch.read("decoded/a.png"), scratch.read("rebuilt/a.png"));
    assert_eq!(scratch.read("decoded/b.png"), scratch.read("rebuilt/b.png"));

    let tokens = scratch.read("t.safetensors");
    let tokens = integers(&tokens, "tokens");
    let complete = ["complete", "a.png", "--rows", "3", "--class", "1", "--count", "2"];
    scratch.ok(&[&complete[..], &["--out", "c.safetensors"]].concat());
    let completed = scratch.read("c.safetensors");
    let completed = integers(&completed, "tokens");
    // 8 prefix tokens and three rows of 8 stay, the rest is drawn anew for each.
    for sequence in completed.chunks(72) {
        assert_eq!(sequence[..32], tokens[..32]);
    }
    assert_ne!(completed[32..72], completed[72 + 32..]);
}

#[test]
fn should_cache_in_shards_what_it_caches_at_once_and_export_it() {
    let scratch = Scratch::new();
    let build = |out: &str, shard: &str| {
        scratch.ok(&[
            "cache",
            "build",
            "--data",
            "bundled:heldout",
            "--model",
            "mini",
            "--out",
            out,
            "--shard",
            shard,
        ]);
    };
    build("whole", "0/1");
    for shard in (0..7).rev() {
        build("sevenths", &format!("{shard}/7"));
    }
    for cache in ["whole", "sevenths"] {
        let told = scratch.ok(&["cache", "info", cache]);
        assert!(told.contains("pictures      263"), "{told}");
        scratch.ok(&["cache", "export", cache, "--out", &format!("{cache}.npz")]);
    }
    assert_eq!(scratch.read("whole.npz"), scratch.read("sevenths.npz"));

    // The ninth record is what `encode` makes of the ninth picture.
    held_out(&scratch, 9, "ninth.png");
    scratch.ok(&["encode", "ninth.png", "--out", "ninth.safetensors"]);
    let tokens = integers(&scratch.read("ninth.safetensors"), "tokens");
    let whole = scratch.path("whole.npz");
    let (header, codes) = npz_member(&whole, "codes.npy");
    assert!(header.contains("'<u2'") && header.contains("(263, 1, 72"), "{header}");
    let codes: Vec<i64> =
        codes.chunks(2).map(|b| u16::from_le_bytes(b.try_into().unwrap()).into()).collect();
    assert_eq!(codes[9 * 72..10 * 72], tokens);
    let (header, labels) = npz_member(&whole, "labels.npy");
    assert!(header.contains("'<i8'") && labels.len() == 263 * 8, "{header}");
    let (header, _) = npz_member(&whole, "names.npy");
    assert!(header.contains("'<U") && header.contains("(263,"), "{header}");
}

#[test]
fn should_describe_itself() {
    let scratch = Scratch::new();
    let told = scratch.ok(&["inspect", "mini"]);
    for expected in ["64 × 64 pixels", "72 tokens", "causal", "bidirectional", "Food & Drink"] {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(scratch.ok(&["completions", shell]).contains("alitok"));
    }
    scratch.ok(&["man", "--out", "share/man1"]);
    let page = std::fs::read_to_string(scratch.path("share/man1/alitok-data-inspect.1")).unwrap();
    assert!(page.contains(".TH alitok-data-inspect 1"), "{page}");
    assert!(scratch.path("share/man1/alitok.1").exists());
    assert!(scratch.ok(&["generate", "--help"]).contains("Examples"));
    let told = scratch.ok(&[
        "evaluate",
        "reconstruction",
        "--data",
        "bundled:heldout",
        "--model",
        "mini",
        "--json",
    ]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["images"], 263);
    // The mean of the training pictures has 11.2 dB.
    assert!(told["psnr"].as_f64().unwrap() > 20.0, "{told}");
}

#[test]
fn should_measure_the_engine_and_place_a_peer_beside() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("peer.json"), r#"{"ms_per_step": 1.5}"#).unwrap();
    let bench = ["bench", "generator", "--preset", "mini", "--layout", "mini", "--steps", "3"];
    let json: serde_json::Value = serde_json::from_str(
        &scratch.ok(&[&bench[..], &["--precision", "int8", "--batch", "2", "--json"]].concat()),
    )
    .unwrap();
    assert_eq!((&json["tokens"], &json["steps_timed"]), (&72.into(), &3.into()));
    let number = |key: &str| json[key].as_f64().unwrap();
    assert!(number("percent_of_limit") > 0.0 && number("peak_bytes") > 0.0);
    let per_image = number("ms_per_step") / 1e3 * 72.0 / 2.0;
    assert!((number("seconds_per_image") / per_image - 1.0).abs() < 1e-9);
    let told = scratch.ok(&[&bench[..], &["--no-cache", "--against", "peer.json"]].concat());
    let line = told.lines().find(|line| line.starts_with("ms_per_step ")).unwrap();
    assert!(line.ends_with("1.5000"), "{told}");

    let told = scratch.ok(&[
        "bench",
        "tokenizer",
        "--preset",
        "mini",
        "--steps",
        "1",
        "--batch",
        "2",
        "--json",
    ]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    for key in ["encode_seconds_per_image", "decode_seconds_per_image"] {
        assert!(told[key].as_f64().unwrap() > 0.0, "{key} in {told}");
    }
}

#[test]
fn should_keep_the_reference_path_beside_the_engine() {
    let scratch = Scratch::new();
    held_out(&scratch, 3, "a.png");
    for device in ["cpu", "reference"] {
        let out = format!("{device}.safetensors");
        scratch.ok(&["generate", "--class", "2", "--device", device, "--out", &out]);
        let out = format!("{device}-e.safetensors");
        scratch.ok(&["encode", "a.png", "--device", device, "--out", &out]);
    }
    for end in [".safetensors", "-e.safetensors"] {
        let read = |device: &str| scratch.read(format!("{device}{end}"));
        assert_eq!(read("cpu"), read("reference"), "{end}");
    }
    let reference = ["generate", "--class", "2", "--device", "reference", "--out", "x.png"];
    let told = scratch.refused(&[&reference[..], &["--precision", "bf16"]].concat());
    assert!(told.contains("f32 only"), "{told}");
}
