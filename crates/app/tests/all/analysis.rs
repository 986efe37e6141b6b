//! Figures of the bundled model through the command line.

use crate::common::{Scratch, home};
use serde_json::Value;

const HELD_OUT: &str = "bundled:heldout";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn should_show_where_patches_look_in_either_decoder() {
    let scratch = Scratch::new();
    let look = |decoder: &str, out: &str| {
        let arguments = ["analyze", "attention", "--data", HELD_OUT, "--count", "3", "--json"];
        let rest = ["--decoder", decoder, "--patch", "2,5", "--out", out];
        let found = json(&scratch.ok(&[&arguments[..], &rest].concat()));
        let share = found["models"][0]["preceding_share"].as_f64().unwrap();
        let pattern = found["models"][0]["local_pattern"].clone();
        (share, pattern[0][0].as_f64().unwrap(), pattern[2][2].as_f64().unwrap())
    };
    let (share, before, behind) = look("causal", "causal.png");
    assert!(share == 1.0 && before > 0.0 && behind == 0.0, "{share} {before} {behind}");
    let (share, before, behind) = look("bidirectional", "bidirectional.svg");
    assert!(share > 0.0 && share < 1.0 && before > 0.0 && behind > 0.0, "{share}");
    assert!(scratch.read("causal.png").starts_with(b"\x89PNG"));
    let svg = String::from_utf8(scratch.read("bidirectional.svg")).unwrap();
    assert!(svg.contains("row 2, column 5") && svg.contains("<image "));
}

#[test]
fn should_judge_tokens_of_a_cache_as_those_of_its_data() {
    let scratch = Scratch::new();
    scratch.ok(&["cache", "build", "--data", HELD_OUT, "--out", "cache"]);
    let predict = |more: &[&str]| {
        let arguments = ["analyze", "predictability", "--count", "20", "--json"];
        json(&scratch.ok(&[&arguments[..], more].concat()))
    };
    let of_cache = predict(&["--cache", "cache", "--out", "a.png"]);
    let of_data = predict(&["--data", HELD_OUT, "--out", "b.svg"]);
    assert_eq!(of_cache, of_data);
    assert_eq!(of_cache["losses"].as_array().unwrap().len(), 72);
    let (loss, blind) = (of_cache["loss"].as_f64().unwrap(), 4096_f64.ln());
    assert!(loss > 1.0 && loss < blind, "{loss}");
    assert_ne!(predict(&["--unconditional", "--out", "c.png"])["loss"], of_cache["loss"]);
    assert!(scratch.read("b.svg").starts_with(b"<svg"));
}

#[test]
fn should_lay_out_the_codes_that_pictures_use() {
    let scratch = Scratch::new();
    let arguments = ["analyze", "codes", "--data", HELD_OUT, "--count", "20", "--out"];
    let told = scratch.ok(&[&arguments[..], &["codes.svg"]].concat());
    assert!(told.contains("20 pictures use ") && told.contains(" of 4096 codes"), "{told}");
    scratch.ok(&[&arguments[..], &["again.svg"]].concat());
    assert_eq!(scratch.read("codes.svg"), scratch.read("again.svg"));
    let told = scratch.refused(&[&arguments[..], &["x.png", "--class", "Cars"]].concat());
    assert!(told.contains("Food & Drink"), "{told}");
}

#[test]
fn should_put_reconstructions_beside_their_originals() {
    let scratch = Scratch::new();
    let data = pixels::data::open(HELD_OUT, &home()).unwrap();
    data.picture(0).unwrap().write_png(scratch.path("a.png")).unwrap();
    let arguments = ["analyze", "reconstructions", "a.png", "--out"];
    let told = scratch.ok(&[&arguments[..], &["figure.svg"]].concat());
    assert!(told.contains("a.png: enlarged 16 x 16 pixels at "), "{told}");
    let svg = String::from_utf8(scratch.read("figure.svg")).unwrap();
    assert!(svg.contains("original") && svg.contains("mini, causal, "));
    // Original, causal and bidirectional, each as a whole and in part.
    assert_eq!(svg.matches("<image ").count(), 6);
    let told = scratch.refused(&[&arguments[..], &["x.png", "--region", "60,0,8"]].concat());
    assert!(told.contains("64 x 64"), "{told}");
    let told = scratch.refused(&[&arguments[..], &["x.pdf"]].concat());
    assert!(told.contains(".svg or .png"), "{told}");
}
