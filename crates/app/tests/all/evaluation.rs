//! Measuring sets of pictures by the command line, with the network that comes along.

use crate::common::Scratch;
use pixels::Picture;

/// Pictures of stripes whose width, place and colours go by rule.
fn folder(scratch: &Scratch, name: &str, count: usize, shift: usize) {
    std::fs::create_dir(scratch.path(name)).unwrap();
    for index in 0..count {
        let value = |at: usize| -> u8 {
            let (x, y, c) = (at / 3 % 32, at / 96, at % 3);
            ((x * (index + 1 + shift) + y * (index % 5) + c * 40 * shift + index * 9) % 256) as u8
        };
        let picture = Picture::new(32, 32, (0..32 * 32 * 3).map(value).collect()).unwrap();
        picture.write_png(scratch.path(format!("{name}/{index:03}.png"))).unwrap();
    }
}

fn number(json: &str, key: &str) -> f64 {
    let object: serde_json::Value = serde_json::from_str(json).unwrap();
    object[key].as_f64().unwrap_or_else(|| panic!("{key} in {json}"))
}

#[test]
fn should_measure_sets_and_never_call_the_stand_in_fid() {
    let scratch = Scratch::new();
    folder(&scratch, "samples", 20, 0);
    folder(&scratch, "reference", 13, 3);
    let compare = |reference: &str| {
        let arguments =
            ["evaluate", "generation", "--samples", "samples", "--reference", reference, "--json"];
        let output = scratch.run(&arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("50000") && told.contains("no FID"), "{told}");
        String::from_utf8(output.stdout).unwrap()
    };
    let same = compare("samples");
    assert!(number(&same, "lite_frechet_distance").abs() < 1e-6, "{same}");
    assert_eq!((number(&same, "lite_precision"), number(&same, "lite_recall")), (1.0, 1.0));
    let other = compare("reference");
    let distance = number(&other, "lite_frechet_distance");
    assert!(distance > 0.01, "{other}");
    let object: serde_json::Value = serde_json::from_str(&other).unwrap();
    for name in ["fid", "sfid", "kid", "inception_score", "precision", "recall"] {
        assert!(object.get(name).is_none(), "{name} in {other}");
    }

    // The same reference as statistics.
    let statistics = |purpose: &str, out: &str| {
        let arguments = ["evaluate", "statistics", "--data", "reference", "--purpose", purpose];
        scratch.ok(&[&arguments[..], &["--out", out]].concat());
    };
    statistics("generation", "set.safetensors");
    let by_statistics = compare("set.safetensors");
    assert_eq!(number(&by_statistics, "lite_frechet_distance"), distance);
    assert_eq!(number(&by_statistics, "reference"), 13.0);

    // Under the protocol notes become an error.
    statistics("reconstruction", "own.safetensors");
    let arguments = ["evaluate", "generation", "--samples", "samples", "--protocol", "--reference"];
    let refused = |reference: &str| scratch.refused(&[&arguments[..], &[reference]].concat());
    let told = refused("set.safetensors");
    assert!(told.contains("50000") && !told.contains("rFID"), "{told}");
    assert!(refused("own.safetensors").contains("rFID"));
    assert!(refused("bundled:heldout").contains("rFID"));
}

#[test]
fn should_refuse_references_that_are_none() {
    let scratch = Scratch::new();
    folder(&scratch, "samples", 3, 0);
    std::fs::write(scratch.path("text.npz"), "text").unwrap();
    std::fs::write(scratch.path("text.safetensors"), "text").unwrap();
    let arguments = ["evaluate", "generation", "--samples", "samples", "--reference"];
    let refused = |more: &[&str]| scratch.refused(&[&arguments[..], more].concat());
    for name in ["text.npz", "text.safetensors", "missing"] {
        assert!(refused(&[name]).contains(name));
    }
    assert!(refused(&["samples", "--extractor", "vgg"]).contains("inception=FILE"));
    assert!(refused(&["samples", "--extractor", "inception=none.pth"]).contains("none.pth"));
}
