//! Exporting a model folder with another model's decoder, or one between the two.

use crate::common::Scratch;
use files::TensorMap;
use files::safetensors::StorageFormat;
use model::{Model, ModelContents};

/// The bundled model without its generator and with changed tensors, in a folder.
fn changed(scratch: &Scratch, name: &str, change: impl Fn(&mut TensorMap)) {
    let model = Model::read(scratch.path("own")).unwrap();
    let mut tensors = model.tokenizer_tensors().unwrap();
    change(&mut tensors);
    let contents = ModelContents {
        config: &model.config,
        classes: &model.classes,
        tokenizer: &tensors,
        generator: Some(&model.generator_tensors().unwrap()),
        format: StorageFormat::F32,
        readme: None,
    };
    contents.write(scratch.path(name)).unwrap();
}

fn shift(tensors: &mut TensorMap, prefix: &str, by: f32) {
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
        tensor.values.iter_mut().for_each(|value| *value += by);
    }
}

#[test]
fn should_go_as_far_towards_another_decoder_as_asked() {
    let scratch = Scratch::new();
    let export = |more: &[&str]| scratch.ok(&[&["export"], more].concat());
    export(&["mini", "--folder", "own"]);
    changed(&scratch, "other", |tensors| shift(tensors, "bidirectional_decoder.", 1.0));
    export(&["own", "--folder", "taken", "--decoder-from", "other"]);
    export(&["own", "--folder", "mixed", "--decoder-from", "other", "--share", "0.25"]);
    let tensors =
        |name: &str| Model::read(scratch.path(name)).unwrap().tokenizer_tensors().unwrap();
    let (own, other, mixed) = (tensors("own"), tensors("other"), tensors("mixed"));
    assert_eq!(tensors("taken"), other);
    for (name, tensor) in &own {
        let by = if name.starts_with("bidirectional_decoder.") { 0.25 } else { 0.0 };
        for (own, mixed) in tensor.values.iter().zip(&mixed[name].values) {
            assert!((own + by - mixed).abs() < 1e-6, "{name}: {own} became {mixed}");
        }
    }
    // The generator comes along.
    assert_eq!(
        scratch.read("mixed/generator.safetensors"),
        scratch.read("own/generator.safetensors")
    );
}

#[test]
fn should_refuse_a_decoder_of_other_tokens() {
    let scratch = Scratch::new();
    scratch.ok(&["export", "mini", "--folder", "own"]);
    changed(&scratch, "other", |tensors| shift(tensors, "quantizer.", 1.0));
    let refused = |more: &[&str]| {
        let told = scratch.refused(&[&["export", "own", "--folder", "out"], more].concat());
        assert!(!scratch.path("out").exists());
        told
    };
    assert!(refused(&["--decoder-from", "other"]).contains("another encoder or codebook"));
    let told = refused(&["--decoder-from", "own", "--share", "1.5"]);
    assert!(told.contains("not from 0 to 1"), "{told}");
    let told = refused(&["--decoder-from", "own", "--share", "NaN"]);
    assert!(told.contains("not from 0 to 1"), "{told}");
    assert!(refused(&["--share", "0.5"]).contains("--decoder-from"));
}
