//! A toy data set and toy recipes.

#![allow(dead_code)] // each test file uses a part of it

use std::{
    cell::RefCell,
    collections::VecDeque,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
pub(crate) use fixtures::home;
use model::Model;
use pipeline::cache::{BuildOptions, Views, build};
use pixels::{DataSet, Picture, PixelsError};
use token_cache::Shard;
use tokens::noise::{Noise, Purpose};
use training::{
    Checkpoint, TrainingError,
    communicator::Communicator,
    guard::Trouble,
    plan::Scope,
    recipe::{self, GeneratorRecipe, Recipe, StageOneRecipe, StageTwoRecipe, TextRecipe},
    run::{Limit, Step, Trainer},
    telemetry::{BadPicture, Measures, Observer, Report},
    trainers::{CachedPictures, StageOne, TextTrainer},
};

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

/// The toy data set, with one or two captions of every picture but the last.
struct Told {
    pictures: Arc<dyn DataSet>,
    captions: Vec<Vec<String>>,
}

impl DataSet for Told {
    fn len(&self) -> usize {
        self.pictures.len()
    }
    fn classes(&self) -> &[String] {
        self.pictures.classes()
    }
    fn label(&self, index: usize) -> usize {
        self.pictures.label(index)
    }
    fn name(&self, index: usize) -> &str {
        self.pictures.name(index)
    }
    fn captions(&self, index: usize) -> &[String] {
        &self.captions[index]
    }
    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        self.pictures.picture(index)
    }
}

pub(crate) fn captioned_data() -> Arc<dyn DataSet> {
    let of = |index: usize| match index {
        9 => Vec::new(),
        _ if index.is_multiple_of(3) => {
            vec![format!("picture {index}"), format!("noise of all colours {index}")]
        }
        _ => vec![format!("the picture {index} of ten")],
    };
    Arc::new(Told { pictures: data(), captions: (0..10).map(of).collect() })
}

pub(crate) const SMALL: [&str; 10] = [
    "batch=4",
    "samples_every=2",
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
        "samples_every=2",
        "checkpoint_every=2",
        "warmup_steps=1",
        "decoder.transformer={width=16,layers=1,heads=2}",
    ];
    recipe::read("mini", &overrides.map(String::from)).unwrap()
}

/// Both losses from the first step on, and a discriminator that takes turns.
pub(crate) const ADVERSARIAL: [&str; 2] = [
    "phases=[{from=0,perceptual=[{network='efficientnet_lite0',weight=0.5}],adversarial=0.1}]",
    "discriminator={architecture={blur_down={hidden=32,stages=1}},learning_rate=1e-3,start=0,\
     every=2,lecam=0.05}",
];

/// A toy recipe with settings changed.
pub(crate) fn changed<R: Recipe>(recipe: &R, overrides: &[&str]) -> R {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    let table = toml::Table::try_from(recipe).unwrap();
    std::fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|&text| text.into()).collect();
    recipe::read(path.to_str().unwrap(), &overrides).unwrap()
}

pub(crate) fn generator_recipe() -> GeneratorRecipe {
    let overrides = [
        "steps=4",
        "batch=4",
        "log_every=1",
        "samples_every=2",
        "checkpoint_every=2",
        "warmup_steps=1",
        "architecture={width=16,layers=1,heads=2}",
    ];
    recipe::read("mini", &overrides.map(String::from)).unwrap()
}

/// A toy recipe whose language model stays as it is for two of four steps.
pub(crate) fn text_recipe() -> TextRecipe {
    let overrides = [
        "steps=4",
        "batch=4",
        "log_every=1",
        "samples_every=2",
        "checkpoint_every=2",
        "warmup_steps=1",
        "precision=f32",
        "caption_dropout=0.3",
        "text_weight=0.5",
        "prompts=['picture 3','nothing']",
        "stages=[{from=0,language=0.0,image_side=1.0},{from=2,language=0.5,image_side=1.0}]",
        "architecture={vocabulary=280,width=16,layers=1,heads=2,key_value_heads=1,hidden=24}",
    ];
    recipe::read("mini-text", &overrides.map(String::from)).unwrap()
}

pub(crate) fn text_trainer(recipe: &TextRecipe, cache: &Path) -> TextTrainer {
    let pictures = CachedPictures::open(cache, &recipe.schedule).unwrap();
    TextTrainer::new(recipe.clone(), pictures, None, &Device::flex()).unwrap()
}

pub(crate) fn stage_one(recipe: &StageOneRecipe) -> StageOne {
    StageOne::new(recipe.clone(), data(), &home(), &Device::flex()).unwrap()
}

/// A token cache of the toy data set, made by a tokenizer that has learned nothing.
pub(crate) fn token_cache(views: Views) -> tempfile::TempDir {
    token_cache_of(data(), views)
}

/// A token cache of the toy data set with captions.
pub(crate) fn captioned_cache() -> tempfile::TempDir {
    token_cache_of(captioned_data(), Views::Mirrored)
}

fn token_cache_of(data: Arc<dyn DataSet>, views: Views) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    stage_one(&stage_one_recipe(1)).export(&model).unwrap();
    let model = Model::read(&model).unwrap();
    let encoder = model.tokenizer(&Device::flex()).unwrap().frozen_encoder();
    let cache = tempfile::tempdir().unwrap();
    let encode = |picture: &Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
    let options = BuildOptions { views, shard: Shard::WHOLE, strict: true };
    build(&data, &model, encode, cache.path(), options, |_, _| ControlFlow::Continue(())).unwrap();
    cache
}

/// Writes down what a run reports.
#[derive(Default)]
pub(crate) struct Reports {
    pub(crate) all: Vec<Report>,
    pub(crate) bad: Vec<BadPicture>,
    pub(crate) passed_over: Vec<PathBuf>,
}

impl Observer for Reports {
    fn started(&mut self, _step: u64, _steps: u64) {}
    fn stepped(&mut self, _step: u64) {}
    fn reported(&mut self, report: &Report) {
        self.all.push(report.clone());
    }
    fn saved(&mut self, _checkpoint: &Path) {}
    fn passed_over(&mut self, checkpoint: &Path, _reason: &str) {
        self.passed_over.push(checkpoint.to_owned());
    }
    fn sampled(&mut self, _pictures: &Path) {}
    fn went_back(&mut self, _trouble: &Trouble, _step: u64) {}
    fn found_bad(&mut self, bad: &BadPicture) {
        self.bad.push(bad.clone());
    }
}

/// A trainer whose steps go through a function of the test, and whose held-out losses may be given.
pub(crate) struct Hooked<T, F> {
    pub(crate) trainer: T,
    pub(crate) step: F,
    pub(crate) heldout: RefCell<VecDeque<f64>>,
}

impl<T: Trainer, F: FnMut(&mut T, Step) -> Result<Measures, TrainingError>> Hooked<T, F> {
    pub(crate) fn new(trainer: T, step: F) -> Self {
        Self { trainer, step, heldout: RefCell::default() }
    }
}

impl<T: Trainer, F: FnMut(&mut T, Step) -> Result<Measures, TrainingError>> Trainer
    for Hooked<T, F>
{
    fn communicator(&self) -> &dyn Communicator {
        self.trainer.communicator()
    }
    fn inputs(&self) -> Vec<(&'static str, String)> {
        self.trainer.inputs()
    }
    fn start(&mut self, checkpoint: Option<Checkpoint>, address: u64) -> Result<(), TrainingError> {
        self.trainer.start(checkpoint, address)
    }
    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        (self.step)(&mut self.trainer, step)
    }
    fn scope(&self) -> Scope {
        self.trainer.scope()
    }
    fn limits(&self) -> Vec<Limit> {
        self.trainer.limits()
    }
    fn has_heldout(&self) -> bool {
        self.trainer.has_heldout() || !self.heldout.borrow().is_empty()
    }
    fn evaluate(&mut self) -> Result<f64, TrainingError> {
        let given = self.heldout.borrow_mut().pop_front();
        given.map_or_else(|| self.trainer.evaluate(), Ok)
    }
    fn take_bad(&mut self) -> Vec<BadPicture> {
        self.trainer.take_bad()
    }
    fn samples(&self) -> Result<Picture, TrainingError> {
        self.trainer.samples()
    }
    fn checkpoint(&self, step: u64) -> Checkpoint {
        self.trainer.checkpoint(step)
    }
    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        self.trainer.export(folder)
    }
}
