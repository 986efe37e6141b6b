//! The authors' files through the command line: import, encode, decode, generate, export, against
//! what their code makes of the same files (tests/fixtures/released_tiny).

use crate::common::{Scratch, fixture, integers, pictures_u8};

/// Pixels may differ by one level where a value falls on the edge between two.
fn assert_pictures(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len());
    let worst = got.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "pixels differ by {worst:?} levels");
}

#[test]
fn should_import_the_released_files_and_make_the_same_tokens_and_pictures() {
    let scratch = Scratch::new();
    let tiny = |name: &str| fixture("released_tiny").join(name).display().to_string();
    let expected = std::fs::read(tiny("expected.safetensors")).unwrap();
    let told =
        scratch.ok(&["import", &tiny("tokenizer.pth"), &tiny("generator.bin"), "--out", "model"]);
    assert!(told.contains("273 tokens (17 prefix, 16 × 16 grid)"), "{told}");
    assert!(told.contains("32 leading tokens"), "{told}");

    let images: Vec<String> = (0..3).map(|i| tiny(&format!("image_{i}.png"))).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let encode = ["encode", "--model", "model", "--out", "tokens.safetensors"];
    scratch.ok(&[&encode[..], &images[..]].concat());
    let tokens = scratch.read("tokens.safetensors");
    assert_eq!(integers(&tokens, "tokens"), integers(&expected, "tokens"));

    scratch.ok(&["decode", "tokens.safetensors", "--model", "model", "--out", "decoded"]);
    let recon = pictures_u8(&expected, "recon_u8");
    for (index, expected) in recon.chunks(256 * 256 * 3).enumerate() {
        assert_pictures(&scratch.picture(&format!("decoded/image_{index}.png")), expected);
    }

    let generate = [
        "generate",
        "--model",
        "model",
        "--class",
        "3",
        "9",
        "0",
        "--guidance",
        "4",
        "--guidance-power",
        "1.3",
        "--temperature",
        "0",
    ];
    scratch.ok(&[&generate[..], &["--out", "greedy.safetensors"]].concat());
    let greedy = scratch.read("greedy.safetensors");
    assert_eq!(integers(&greedy, "tokens"), integers(&expected, "greedy_tokens"));
    assert_eq!(integers(&greedy, "labels"), [3, 9, 0]);
    scratch.ok(&["decode", "greedy.safetensors", "--model", "model", "--out", "greedy"]);
    let greedy = pictures_u8(&expected, "greedy_u8");
    for (index, expected) in greedy.chunks(256 * 256 * 3).enumerate() {
        assert_pictures(&scratch.picture(&format!("greedy/{index:04}.png")), expected);
    }

    // And back: what the export writes imports to the same folder.
    scratch.ok(&["export", "model", "--tokenizer", "back.pth", "--generator", "back.bin"]);
    scratch.ok(&["import", "back.pth", "back.bin", "--out", "again"]);
    for file in ["tokenizer.safetensors", "generator.safetensors", "config.json"] {
        assert_eq!(scratch.read(format!("again/{file}")), scratch.read(format!("model/{file}")));
    }
}
