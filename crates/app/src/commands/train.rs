//! `alitok train`

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use pixels::DataSet;
use tokens::cache::TokenCache;
use training::{
    generator::GeneratorTrainer,
    recipe::{self, GeneratorRecipe, StageOneRecipe, StageTwoRecipe},
    run::run as train,
    stage_one::StageOne,
    stage_two::StageTwo,
};
use weights::ModelFolder;

use crate::{
    args::{TrainGeneratorArgs, TrainTokenizerArgs, TrainVerb},
    model,
    progress::TrainingProgress,
};

pub(crate) fn run(verb: &TrainVerb, device: &Device) -> Result<()> {
    match verb {
        TrainVerb::Tokenizer(args) if args.stage == 1 => stage_one(args, device),
        TrainVerb::Tokenizer(args) => stage_two(args, device),
        TrainVerb::Generator(args) => generator(args, device),
    }
}

fn stage_one(args: &TrainTokenizerArgs, device: &Device) -> Result<()> {
    ensure!(args.from.is_none(), "--from belongs to stage 2; stage 1 starts from nothing");
    let recipe: StageOneRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let data: Arc<dyn DataSet> = pixels::data::open(&args.data.data)?.into();
    let trainer = StageOne::new(recipe.clone(), data, device)?;
    let mut observer = TrainingProgress::default();
    Ok(train(trainer, &recipe, &args.run.out, args.run.resume, &mut observer)?)
}

fn stage_two(args: &TrainTokenizerArgs, device: &Device) -> Result<()> {
    let recipe: StageTwoRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let from = args.from.as_ref().context("--from is needed for stage 2")?;
    let first_stage = ModelFolder::read(model::of_run(from))?.tokenizer(device)?;
    let data: Arc<dyn DataSet> = pixels::data::open(&args.data.data)?.into();
    let trainer = StageTwo::new(recipe.clone(), first_stage, data, device)?;
    let mut observer = TrainingProgress::default();
    Ok(train(trainer, &recipe, &args.run.out, args.run.resume, &mut observer)?)
}

fn generator(args: &TrainGeneratorArgs, device: &Device) -> Result<()> {
    let recipe: GeneratorRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    if let Some(source) = &args.data {
        let data = pixels::data::open(source)?;
        let cache = TokenCache::open(&args.cache)?;
        ensure!(
            data.classes() == cache.header().classes && data.len() == cache.len(),
            "{} was not made from {source}: it holds {} pictures in {} classes, not {} in {}",
            args.cache.display(),
            cache.len(),
            cache.header().classes.len(),
            data.len(),
            data.classes().len(),
        );
    }
    let trainer = GeneratorTrainer::new(recipe.clone(), &args.cache, device)?;
    let mut observer = TrainingProgress::default();
    Ok(train(trainer, &recipe, &args.run.out, args.run.resume, &mut observer)?)
}
