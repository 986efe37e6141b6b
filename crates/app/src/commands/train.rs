//! `alitok train`

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use model::Model;
use pixels::DataSet;
use token_cache::TokenCache;
use training::{
    generator::GeneratorTrainer,
    parallel::Communicator,
    recipe::{self, GeneratorRecipe, Recipe, StageOneRecipe, StageTwoRecipe},
    run::Trainer,
    stage_one::StageOne,
    stage_two::StageTwo,
    telemetry::Observer,
};

use crate::{
    args::{RunArgs, TrainGeneratorArgs, TrainTokenizerArgs, TrainVerb},
    models, processes,
    progress::{self, TrainingProgress},
    tuning,
};

/// The processes that train together.
type Processes = Arc<dyn Communicator>;

pub(crate) fn run(verb: &TrainVerb, device: &Device) -> Result<()> {
    tuning::for_training();
    let processes = processes::communicator()?;
    let ended = match verb {
        TrainVerb::Tokenizer(args) if args.stage == 1 => stage_one(args, device, &processes),
        TrainVerb::Tokenizer(args) => stage_two(args, device, &processes),
        TrainVerb::Generator(args) => generator(args, device, &processes),
    };
    if let Err(error) = &ended
        && processes.ranks() > 1
    {
        // The launcher ends this process, too, so the message must come before.
        let which = format!("process {} of {}", processes.rank(), processes.ranks());
        progress::error(&anyhow!("{which}: {error:#}"));
        processes.abort();
    }
    ended
}

fn stage_one(args: &TrainTokenizerArgs, device: &Device, processes: &Processes) -> Result<()> {
    ensure!(args.decoder_from.is_none(), "--decoder-from belongs to stage 2");
    let recipe: StageOneRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let data: Arc<dyn DataSet> = pixels::data::open(&args.data.data, models::home())?.into();
    let mut trainer = StageOne::new(recipe.clone(), data, models::home(), device)?
        .with_communicator(Arc::clone(processes))?
        .strict(args.run.strict);
    if let Some(from) = &args.from {
        let model = Model::read(models::of_run(from))?;
        trainer = trainer.begin_with(&model.config.tokenizer, model.tokenizer_tensors()?)?;
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(pixels::data::open(heldout, models::home())?.into());
    }
    train(trainer, &recipe, &args.run, processes)
}

fn stage_two(args: &TrainTokenizerArgs, device: &Device, processes: &Processes) -> Result<()> {
    let recipe: StageTwoRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let from = args.from.as_ref().context("--from is needed for stage 2")?;
    let first_stage = Model::read(models::of_run(from))?.tokenizer(device)?;
    let data: Arc<dyn DataSet> = pixels::data::open(&args.data.data, models::home())?.into();
    let mut trainer = StageTwo::new(recipe.clone(), first_stage, data, models::home(), device)?
        .with_communicator(Arc::clone(processes))?
        .strict(args.run.strict);
    if let Some(from) = &args.decoder_from {
        let model = Model::read(models::of_run(from))?;
        trainer = trainer.begin_with(&model.config.tokenizer, model.tokenizer_tensors()?)?;
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(pixels::data::open(heldout, models::home())?.into());
    }
    train(trainer, &recipe, &args.run, processes)
}

fn generator(args: &TrainGeneratorArgs, device: &Device, processes: &Processes) -> Result<()> {
    let recipe: GeneratorRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    if let Some(source) = &args.data {
        let data = pixels::data::open(source, models::home())?;
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
    let mut trainer = GeneratorTrainer::new(recipe.clone(), &args.cache, device)?
        .with_communicator(Arc::clone(processes))?
        .strict(args.run.strict);
    if let Some(from) = &args.from {
        let model = Model::read(models::of_run(from))?;
        trainer = trainer.begin_with(model.generator_config()?, model.generator_tensors()?)?;
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(Path::new(heldout))?;
    }
    train(trainer, &recipe, &args.run, processes)
}

fn train<T: Trainer, R: Recipe>(
    trainer: T,
    recipe: &R,
    args: &RunArgs,
    processes: &Processes,
) -> Result<()> {
    let (mut progress, mut quiet) = (TrainingProgress::default(), ());
    let observer: &mut dyn Observer =
        if processes.rank() == 0 { &mut progress } else { &mut quiet };
    Ok(training::run::run(trainer, recipe, &args.out, args.resume, observer)?)
}
