//! A toy data set and toy recipes.

#![allow(dead_code)] // each test file uses a part of it

use std::sync::Arc;

use pixels::{DataSet, Picture, PixelsError};
use tokens::noise::{Noise, Purpose};
use training::recipe::{self, GeneratorRecipe, StageOneRecipe, StageTwoRecipe};

/// Pictures of two colours, made up on the spot.
struct Checkers {
    classes: Vec<String>,
}

impl DataSet for Checkers {
    fn len(&self) -> usize {
        10
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn label(&self, index: usize) -> usize {
        index % 2
    }
    fn name(&self, index: usize) -> &str {
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][index]
    }
    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let mut noise = Noise::new(9, Purpose::Augmentation, 0, index as u64);
        let rgb = (0..16 * 16 * 3).map(|_| noise.below(256) as u8).collect();
        Picture::new(16, 16, rgb)
    }
}

pub(crate) fn data() -> Arc<dyn DataSet> {
    Arc::new(Checkers { classes: vec!["even".into(), "odd".into()] })
}

pub(crate) const SMALL: [&str; 9] = [
    "batch=4",
    "log_every=1",
    "checkpoint_every=2",
    "warmup_steps=1",
    "architecture.image={height=16,width=16}",
    "architecture.prefix=2",
    "architecture.codes=16",
    "architecture.encoder={width=16,layers=1,heads=2}",
    "architecture.causal_decoder.transformer={width=16,layers=1,heads=2}",
];

pub(crate) fn stage_one_recipe(steps: u64) -> StageOneRecipe {
    let mut overrides: Vec<String> = SMALL.map(String::from).to_vec();
    overrides.push(format!("steps={steps}"));
    overrides.push("augmentation={crop={random_resized={smallest_area=0.5}},flip=true}".into());
    recipe::read("mini", &overrides).unwrap()
}

pub(crate) fn stage_two_recipe() -> StageTwoRecipe {
    let overrides = [
        "steps=4",
        "batch=4",
        "log_every=1",
        "checkpoint_every=2",
        "warmup_steps=1",
        "decoder.transformer={width=16,layers=1,heads=2}",
    ];
    recipe::read("mini", &overrides.map(String::from)).unwrap()
}

pub(crate) fn generator_recipe() -> GeneratorRecipe {
    let overrides = [
        "steps=4",
        "batch=4",
        "log_every=1",
        "checkpoint_every=2",
        "warmup_steps=1",
        "architecture={width=16,layers=1,heads=2}",
    ];
    recipe::read("mini", &overrides.map(String::from)).unwrap()
}
