//! Training that begins with a model: for pictures of another size, or other classes.

use crate::common::{
    Reports, changed, data, generator_recipe, home, stage_one, stage_one_recipe, stage_two_recipe,
    token_cache,
};
use burn::tensor::Device;
use files::TensorMap;
use operations::parameters::collect;
use pipeline::cache::Views;
use tokenizer::reference::{Initialization, Positions, Weights};
use training::{
    TrainingError,
    run::{Begin, Trainer, run},
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

/// A tokenizer of pictures of 16 pixels with both decoders, by name.
fn small() -> (tokenizer::TokenizerConfig, TensorMap) {
    let mut config = stage_one_recipe(1).architecture;
    config.bidirectional_decoder = Some(stage_two_recipe().decoder);
    let initialization =
        Initialization { seed: 5, positions: Positions::Random, weights: Weights::Small };
    let model = config.initialize(&initialization, &Device::flex()).unwrap();
    (config, collect(&model))
}

fn model_of(trainer: &impl Trainer) -> TensorMap {
    let tensors = trainer.checkpoint(0).tensors.into_iter();
    tensors.filter_map(|(name, t)| Some((name.strip_prefix("model.")?.to_owned(), t))).collect()
}

const LARGE: [&str; 2] = ["architecture.image={height=32,width=32}", "architecture.prefix=4"];

#[test]
fn should_go_on_with_larger_pictures_in_both_stages() {
    let device = Device::flex();
    let (config, tensors) = small();
    let mut recipe = changed(&stage_one_recipe(2), &LARGE);
    recipe.schedule.ema_decay = Some(0.9);
    let begin = || {
        let trainer = StageOne::new(recipe.clone(), data(), &home(), &device).unwrap();
        trainer.begin_with(&config, tensors.clone()).unwrap()
    };
    let first = model_of(&begin());
    let resized = tokenizer::reference::resize(tensors.clone(), &config, &recipe.architecture);
    assert!(!first.is_empty());
    for (name, tensor) in &first {
        assert_eq!(*tensor, resized[name], "{name}");
        let is_table = name.ends_with("positions") || name.ends_with("latents.tokens");
        assert_eq!(*tensor != tensors[name], is_table, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    run(begin(), &recipe, folder.path(), Begin::New, &mut Reports::default()).unwrap();
    // A resumed run began as the other did.
    let other = StageOne::new(recipe.clone(), data(), &home(), &device).unwrap();
    let resumed = run(other, &recipe, folder.path(), Begin::Resume, &mut Reports::default());
    assert!(matches!(resumed, Err(TrainingError::InputChanged { .. })), "{resumed:?}");
    run(begin(), &recipe, folder.path(), Begin::Resume, &mut Reports::default()).unwrap();

    let model = model::Model::read(folder.path().join("model")).unwrap();
    let first_stage = model.tokenizer(&device).unwrap();
    let mut large = model.config.tokenizer.clone();
    large.bidirectional_decoder = Some(stage_two_recipe().decoder);
    let trainer = StageTwo::new(stage_two_recipe(), first_stage, data(), &home(), &device).unwrap();
    let trainer = trainer.begin_with(&config, tensors.clone()).unwrap();
    let resized = tokenizer::reference::resize(tensors.clone(), &config, &large);
    let decoder = model_of(&trainer);
    assert!(!decoder.is_empty());
    for (name, tensor) in decoder {
        assert_eq!(tensor, resized[&format!("bidirectional_decoder.{name}")], "{name}");
    }
}

#[test]
fn should_refuse_a_model_of_another_architecture() {
    let (config, tensors) = small();
    let other = changed(&stage_one_recipe(1), &["architecture.codes=8"]);
    let refused = stage_one(&other).begin_with(&config, tensors);
    let Err(TrainingError::Initial(problem)) = refused else { panic!("it was accepted") };
    assert!(problem.contains("codebook"), "{problem}");
}

#[test]
fn should_keep_a_generator_and_forget_the_classes_of_its_old_pictures() {
    let device = Device::flex();
    let cache = token_cache(Views::Center);
    let classes = data().classes().len();
    let recipe = generator_recipe();
    let trainer = || GeneratorTrainer::new(recipe.clone(), cache.path(), &device).unwrap();
    let header = token_cache::TokenCache::open(cache.path()).unwrap().header().clone();
    let config = |classes| generator::GeneratorConfig {
        layout: header.layout,
        codes: header.codes,
        classes,
        width: recipe.architecture.width,
        layers: recipe.architecture.layers,
        heads: recipe.architecture.heads,
        key_value_heads: None,
    };
    let names = &header.classes;
    let reversed: Vec<String> = names.iter().rev().cloned().collect();
    let strangers: Vec<String> = (0..7).map(|class| format!("stranger {class}")).collect();
    // By name: with the same names in another order, every class keeps what was learned of it.
    for old in [names.clone(), reversed, strangers] {
        let known = model::ClassNames::new(old.clone());
        let same = old == *names;
        let old_names = old;
        let old = old_names.len();
        let config = config(old);
        let tensors = collect(&config.initialize(11, &device).unwrap());
        let begun = model_of(&trainer().begin_with(&config, &known, tensors.clone()).unwrap());
        for (name, tensor) in &tensors {
            if name != "embedding.weight" || same {
                assert_eq!(begun[name], *tensor, "{name}");
            }
        }
        let width = config.width;
        let rows = |tensors: &TensorMap| -> Vec<Vec<f32>> {
            tensors["embedding.weight"].values.chunks(width).map(<[f32]>::to_vec).collect()
        };
        let (before, after) = (rows(&tensors), rows(&begun));
        assert_eq!(after.len(), header.codes + classes + 2);
        assert_eq!(after[..=header.codes], before[..=header.codes]);
        assert_eq!(after.last(), before.last(), "no class");
        for (label, name) in names.iter().enumerate() {
            let row = match old_names.iter().position(|known| known == name) {
                Some(old) => Some(&before[header.codes + 1 + old]),
                None => before.last(),
            };
            assert_eq!(Some(&after[header.codes + 1 + label]), row, "{name}");
        }
    }
}
