//! Training with products in bfloat16.

use crate::common::{generator_recipe, stage_one, stage_one_recipe, token_cache};
use burn::tensor::Device;
use files::TensorMap;
use pipeline::cache::Views;
use training::{
    run::{Step, Trainer},
    schedule::ComputePrecision,
    trainers::GeneratorTrainer,
};

/// Losses over some steps, and the state afterwards.
fn course(mut trainer: impl Trainer, steps: u64) -> (Vec<f64>, TensorMap) {
    trainer.start(None, 0).unwrap();
    let losses = (0..steps)
        .map(|number| {
            let step = Step { number, address: number, learning_rate: 3e-3 };
            trainer.step(step).unwrap()[0].1
        })
        .collect();
    (losses, trainer.checkpoint(steps).tensors)
}

fn check(train: impl Fn(ComputePrecision) -> (Vec<f64>, TensorMap)) {
    let (single, _) = train(ComputePrecision::F32);
    let (half, tensors) = train(ComputePrecision::Bf16);
    assert_ne!(half, single, "the setting reaches the products");
    assert!(single.last().unwrap() < &(0.97 * single[0]), "something was learned: {single:?}");
    for (step, (half, single)) in half.iter().zip(&single).enumerate() {
        assert!((half - single).abs() < 0.01 * single, "step {step}: {half} and {single}");
    }
    // Small updates are not lost: parameters have more digits than bfloat16.
    let weights = tensors.iter().filter(|(name, _)| name.ends_with("down.weight"));
    for (name, weight) in weights {
        let fine = weight.values.iter().filter(|value| value.to_bits() & 0xffff != 0).count();
        assert!(fine * 10 > weight.values.len() * 9, "{name} was rounded");
    }
}

#[test]
fn should_learn_in_bfloat16_as_in_single_precision() {
    let cache = token_cache(Views::Center);
    check(|precision| {
        let mut recipe = generator_recipe();
        recipe.schedule.precision = precision;
        recipe.schedule.accumulate = 2;
        let trainer = GeneratorTrainer::new(recipe, cache.path(), &Device::flex()).unwrap();
        course(trainer, 40)
    });
    check(|precision| {
        let mut recipe = stage_one_recipe(40);
        recipe.schedule.precision = precision;
        recipe.schedule.activation_checkpointing = true;
        course(stage_one(&recipe), 40)
    });
}
