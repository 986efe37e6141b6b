//! Which losses a step has, and what it changes.

use crate::common::{changed, data, home, stage_one, stage_one_recipe, stage_two_recipe};
use burn::tensor::Device;
use files::{HostTensor, TensorMap};
use training::{
    TrainingError,
    run::{Step, Trainer},
    trainers::{StageOne, StageTwo},
};

const DISCRIMINATOR: &str = "discriminator={architecture={patch_gan={channels=4,layers=2}},\
                             learning_rate=1e-3,start=3,every=2}";

const PHASES: &str = "phases=[
    {from=1,perceptual=[{network='efficientnet_lite0',weight=2}]},
    {from=3,perceptual=[{network='efficientnet_lite0',weight=1}],adversarial=0.1}]";

fn take(trainer: &mut impl Trainer, number: u64) -> (Vec<&'static str>, Vec<f64>) {
    let step = Step { number, address: number, learning_rate: 1e-3 };
    trainer.step(step).unwrap().into_iter().unzip()
}

fn section(tensors: &TensorMap, section: &str) -> TensorMap {
    let named = tensors.iter().filter(|(name, _)| name.starts_with(section));
    named.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}

/// Six steps: what each measures, and which parameters it changes.
fn follow(trainer: &mut impl Trainer, codebook: bool) -> Vec<Vec<&'static str>> {
    trainer.start(None, 0).unwrap();
    let mut state = trainer.checkpoint(0).tensors;
    let mut all = Vec::new();
    for number in 0..6 {
        let (names, _) = take(trainer, number);
        let after = trainer.checkpoint(number + 1).tensors;
        let kept = |name: &str| section(&state, name) == section(&after, name);
        let discriminates = number == 4;
        assert_eq!(kept("discriminator."), !discriminates, "step {number}");
        let codes = "model.quantizer.codebook";
        assert!(!codebook || !kept(codes), "step {number}");
        let differs =
            |(name, tensor): (&String, &HostTensor)| name != codes && after[name] != *tensor;
        let changed = section(&state, "model.").iter().any(differs);
        assert_eq!(changed, !discriminates, "step {number}");
        state = after;
        all.push(names);
    }
    all
}

#[test]
fn should_measure_and_learn_what_the_phase_says() {
    let recipe = changed(&stage_one_recipe(6), &[PHASES, DISCRIMINATOR]);
    let begin = ["loss", "reconstruction", "quantizer", "auxiliary"];
    let perceptual = ["perceptual", "auxiliary_perceptual"];
    let codes = ["usage", "perplexity", "entropy"];
    let judge = ["discriminator", "real_logit", "fake_logit", "discriminator_gradient_norm"];
    let last = [&["explained"][..], &codes, &["gradient_norm"]].concat();
    let first = [&begin[..], &last].concat();
    let second = [&begin[..], &perceptual, &last].concat();
    let third = [&begin[..], &perceptual, &["adversarial"], &last].concat();
    let turn = [&judge[..], &codes].concat();
    let expected = vec![first, second.clone(), second, third.clone(), turn, third];
    assert_eq!(follow(&mut stage_one(&recipe), true), expected);

    let recipe = changed(&stage_two_recipe(), &["steps=6", PHASES, DISCRIMINATOR]);
    let first_stage = recipe_tokenizer();
    let mut trainer = StageTwo::new(recipe, first_stage, data(), &home(), &Device::flex()).unwrap();
    let last = ["explained", "gradient_norm"];
    let second = [&["loss", "reconstruction", "perceptual"][..], &last].concat();
    let third = [&["loss", "reconstruction", "perceptual", "adversarial"][..], &last].concat();
    let expected = vec![
        vec!["loss", "explained", "gradient_norm"],
        second.clone(),
        second,
        third.clone(),
        judge.to_vec(),
        third,
    ];
    assert_eq!(follow(&mut trainer, false), expected);
}

fn recipe_tokenizer() -> tokenizer::reference::Tokenizer {
    let initialization = tokenizer::reference::Initialization {
        seed: 1,
        positions: tokenizer::reference::Positions::Random,
        weights: tokenizer::reference::Weights::Small,
    };
    let config = stage_one_recipe(1).architecture;
    config.initialize(&initialization, &Device::flex()).unwrap()
}

#[test]
fn should_add_the_terms_by_their_weights() {
    let measures = |overrides: &[&str]| {
        let mut trainer = stage_one(&changed(&stage_one_recipe(6), overrides));
        trainer.start(None, 0).unwrap();
        let (names, values) = take(&mut trainer, 0);
        let all: std::collections::BTreeMap<_, _> = names.into_iter().zip(values).collect();
        all
    };
    let phase = |weight: f64, adversarial: f64| {
        let perceptual = format!("perceptual=[{{network='efficientnet_lite0',weight={weight}}}]");
        format!("phases=[{{from=0,{perceptual},adversarial={adversarial}}}]")
    };
    let discriminator = DISCRIMINATOR.replace("start=3", "start=0");
    let once = measures(&[&phase(1.0, 0.1), &discriminator, "loss.auxiliary=0.5"]);
    let expected = once["reconstruction"]
        + once["quantizer"]
        + 0.5 * once["auxiliary"]
        + once["perceptual"]
        + 0.5 * once["auxiliary_perceptual"]
        + 0.1 * once["adversarial"];
    assert!((once["loss"] - expected).abs() < 1e-5, "{once:?}");
    assert!(once["perceptual"] > 0.0 && once["auxiliary_perceptual"] > 0.0);
    assert_ne!(once["perceptual"], once["auxiliary_perceptual"]);
    let thrice = measures(&[&phase(3.0, 0.0), "loss.auxiliary=0"]);
    assert!((thrice["perceptual"] / once["perceptual"] - 3.0).abs() < 1e-5);
    assert!(!thrice.contains_key("auxiliary_perceptual") && !thrice.contains_key("adversarial"));
}

#[test]
fn should_refuse_pictures_too_small_for_the_discriminator_and_weights_of_another_network() {
    let large = DISCRIMINATOR.replace("layers=2", "layers=3");
    let recipe = changed(&stage_one_recipe(6), &[PHASES, &large]);
    let refused = StageOne::new(recipe, data(), &home(), &Device::flex());
    let Err(TrainingError::Data(text)) = refused else { panic!("too small a picture was taken") };
    assert!(text.contains("24 pixels"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let tensors = TensorMap::from([("x".to_owned(), HostTensor::new([1], vec![0.0]))]);
    let precision = files::safetensors::StorageFormat::F32;
    files::safetensors::write(&path, &tensors, precision, &Default::default()).unwrap();
    let phases = format!(
        "phases=[{{from=0,perceptual=[{{network='efficientnet_lite0',weight=1,weights='{}'}}]}}]",
        path.display()
    );
    let refused =
        StageOne::new(changed(&stage_one_recipe(6), &[&phases]), data(), &home(), &Device::flex());
    assert!(matches!(refused, Err(TrainingError::Perceptual { .. })));

    // Public weights that nobody fetched, or a file of another network.
    for (network, path) in [("convnext_small", &path), ("lpips_vgg", &path)] {
        let weights = format!("weights='{}'", path.display());
        let term = format!("{{network='{network}',weight=1,{weights}}}");
        let recipe =
            changed(&stage_one_recipe(6), &[&format!("phases=[{{from=0,perceptual=[{term}]}}]")]);
        let refused = StageOne::new(recipe, data(), &home(), &Device::flex());
        let Err(TrainingError::Perceptual { network: named, .. }) = refused else {
            panic!("{network} was made of nothing");
        };
        assert_eq!(named, network);
    }
}
