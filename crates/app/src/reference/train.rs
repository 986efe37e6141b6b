//! `alitok train`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use generator::GeneratorConfig;
use model::{Model, tokenizer_digest};
use pipeline::cache::{self, is_cache};
use token_cache::TokenCache;
use tokenizer::TokenizerConfig;
use training::{
    communicator::Communicator,
    recipe::{
        self, GeneratorRecipe, GeneratorSize, Recipe, StageOneRecipe, StageTwoRecipe, TextRecipe,
    },
    run::{Begin, Trainer},
    trainers::{CachedPictures, GeneratorTrainer, StageOne, StageTwo, TextTrainer},
};

use crate::{
    commands::train::{RunArgs, TrainGeneratorArgs, TrainTextArgs, TrainTokenizerArgs, TrainVerb},
    interrupt, models, progress,
    reference::{
        communicator::communicator,
        device,
        training_progress::{self, TrainingProgress},
    },
    sources, tuning,
};

/// The processes that train together.
type Processes = Arc<dyn Communicator>;

pub(crate) fn run(verb: &TrainVerb, device: Option<pipeline::Device>) -> Result<()> {
    let device = &device::training(device, "training")?;
    tuning::for_training();
    let processes = communicator()?;
    let ended = match verb {
        TrainVerb::Tokenizer(args) if args.stage == 1 => stage_one(args, device, &processes),
        TrainVerb::Tokenizer(args) => stage_two(args, device, &processes),
        TrainVerb::Generator(args) => generator(args, device, &processes),
        TrainVerb::Text(args) => text(args, device, &processes),
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
    let mut recipe: StageOneRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let from = args.from.as_deref().map(models::open).transpose()?;
    if let Some(model) = &from
        && !sets(&args.run.overrides, "architecture")
    {
        recipe.architecture = first_stage_of(&model.config.tokenizer, &recipe.architecture)?;
    }
    let data = sources::open(&args.data.data, args.run.strict)?;
    let mut trainer = StageOne::new(recipe.clone(), data, models::home(), device)?
        .with_communicator(Arc::clone(processes))?
        .strict(args.run.strict);
    if let Some(model) = &from {
        trainer = trainer.begin_with(&model.config.tokenizer, model.tokenizer_tensors()?)?;
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(sources::open(heldout, args.run.strict)?);
    }
    if let Some(share) = args.run.heldout_share {
        trainer = trainer.hold_out(share)?;
    }
    train(trainer, &recipe, &args.run, processes)
}

/// Whether an assignment changes a setting of this section.
fn sets(overrides: &[String], section: &str) -> bool {
    overrides.iter().any(|assignment| {
        let rest = assignment.trim().strip_prefix(section);
        rest.is_some_and(|rest| rest.starts_with(['.', '=', ' ']))
    })
}

/// The architecture of a tokenizer that is trained on, with its first decoder, for pictures of the
/// recipe's size.
fn first_stage_of(model: &TokenizerConfig, recipe: &TokenizerConfig) -> Result<TokenizerConfig> {
    ensure!(
        model.causal_decoder.is_some(),
        "the model to begin with has no causal decoder, which stage 1 trains; name another with --from"
    );
    let prefix = if model.patch == recipe.patch {
        recipe.prefix
    } else {
        // As many more than columns as the model has.
        let columns = |config: &TokenizerConfig| config.image.width / config.patch.max(1);
        (recipe.image.width / model.patch.max(1) + model.prefix)
            .checked_sub(columns(model))
            .context("the model to begin with has fewer prefix tokens than columns")?
    };
    Ok(TokenizerConfig {
        image: recipe.image,
        prefix,
        bidirectional_decoder: None,
        ..model.clone()
    })
}

fn stage_two(args: &TrainTokenizerArgs, device: &Device, processes: &Processes) -> Result<()> {
    let mut recipe: StageTwoRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let from = args.from.as_ref().context("--from is needed for stage 2")?;
    let first_stage = models::open(from)?.tokenizer(device)?;
    let decoder_from = args.decoder_from.as_deref().map(models::open).transpose()?;
    if let Some(decoder) =
        decoder_from.as_ref().and_then(|model| model.config.tokenizer.bidirectional_decoder)
        && !sets(&args.run.overrides, "decoder")
    {
        // Leading tokens follow the size of the pictures, which is the recipe's.
        recipe.decoder.transformer = decoder.transformer;
    }
    let data = sources::open(&args.data.data, args.run.strict)?;
    let mut trainer = StageTwo::new(recipe.clone(), first_stage, data, models::home(), device)?
        .with_communicator(Arc::clone(processes))?
        .strict(args.run.strict);
    if let Some(model) = &decoder_from {
        trainer = trainer.begin_with(&model.config.tokenizer, model.tokenizer_tensors()?)?;
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(sources::open(heldout, args.run.strict)?);
    }
    if let Some(share) = args.run.heldout_share {
        trainer = trainer.hold_out(share)?;
    }
    train(trainer, &recipe, &args.run, processes)
}

fn generator(args: &TrainGeneratorArgs, device: &Device, processes: &Processes) -> Result<()> {
    let mut recipe: GeneratorRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let from = args.from.as_deref().map(models::open).transpose()?;
    if let Some(model) = &from
        && !sets(&args.run.overrides, "architecture")
    {
        let GeneratorConfig { width, layers, heads, .. } = *model.generator_config()?;
        recipe.architecture = GeneratorSize { width, layers, heads };
    }
    if let Some(source) = &args.data {
        let data = sources::open(source, args.run.strict)?;
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
    if let Some(model) = &from {
        let (config, tensors) = (model.generator_config()?, model.generator_tensors()?);
        trainer = trainer.begin_with(config, &model.classes, tensors)?;
        if let Some(kept) = trainer.classes_kept()
            && processes.rank() == 0
        {
            progress::note(&kept.to_string());
        }
    }
    if let Some(heldout) = &args.run.heldout {
        trainer = trainer.with_heldout(Path::new(heldout))?;
    }
    if let Some(share) = args.run.heldout_share {
        trainer = trainer.hold_out(share)?;
    }
    train(trainer, &recipe, &args.run, processes)
}

fn text(args: &TrainTextArgs, device: &Device, processes: &Processes) -> Result<()> {
    let mut recipe: TextRecipe = recipe::read(&args.run.recipe, &args.run.overrides)?;
    let model = args.model.as_deref().map(models::open).transpose()?;
    let from = model.as_ref().filter(|model| model.config.language.is_some());
    if from.is_some() && !sets(&args.run.overrides, "architecture") {
        recipe.architecture = None;
    }
    let cache = cached(args, &args.data, "cache", model.as_ref(), processes)?;
    let mut pictures = CachedPictures::open(&cache, &recipe.schedule)?.strict(args.run.strict);
    if let Some(heldout) = &args.run.heldout {
        let heldout = cached(args, heldout, "heldout-cache", model.as_ref(), processes)?;
        pictures = pictures.with_heldout(&heldout)?;
    }
    if let Some(share) = args.run.heldout_share {
        pictures = pictures.hold_out(share)?;
    }
    let trainer = TextTrainer::new(recipe.clone(), pictures, from, device)?
        .with_communicator(Arc::clone(processes))?;
    train(trainer, &recipe, &args.run, processes)
}

/// The token cache that is named, or that of the pictures that are named, which is made in the run's
/// folder.
fn cached(
    args: &TrainTextArgs,
    source: &str,
    name: &str,
    model: Option<&Model>,
    processes: &Processes,
) -> Result<PathBuf> {
    if is_cache(Path::new(source)) {
        if let Some(model) = model {
            let digest = tokenizer_digest(&model.tokenizer_tensors()?);
            TokenCache::open(Path::new(source))?.check_tokenizer(&digest)?;
        }
        return Ok(source.into());
    }
    let model = model.context(
        "--model is needed: its tokenizer makes the tokens of the pictures; a token cache would have \
         one of its own",
    )?;
    let folder = args.run.out.join(name);
    let is_made = folder.join(cache::TOKENIZER).exists();
    ensure!(
        !args.run.dry_run || is_made,
        "--dry-run writes nothing, and the tokens of {source} are not cached yet; `alitok cache build \
         --data {source} --model {} --out CACHE` does that, then give --data CACHE",
        args.model.as_deref().unwrap_or_default()
    );
    if args.run.dry_run {
        return Ok(folder);
    }
    if processes.rank() == 0 {
        let run = args.run.out.join("recipe.toml");
        ensure!(
            args.run.resume || args.run.extend || !run.exists(),
            "{} already holds a run; give --resume to continue it, or another --out",
            args.run.out.display()
        );
        super::cache::center(source, model, &folder, args.run.strict)?;
    }
    // The others find it whole.
    processes.barrier()?;
    Ok(folder)
}

fn train<T: Trainer, R: Recipe>(
    trainer: T,
    recipe: &R,
    args: &RunArgs,
    processes: &Processes,
) -> Result<()> {
    if args.dry_run {
        return dry_run(trainer, recipe, processes);
    }
    interrupt::will_finish("saving after this step; the same again ends at once");
    let begin = match (args.extend, args.resume) {
        (true, _) => Begin::Extend,
        (false, true) => Begin::Resume,
        (false, false) => Begin::New,
    };
    let started = Instant::now();
    let mut progress = TrainingProgress::new(processes.rank() == 0);
    training::run::run(trainer, recipe, &args.out, begin, &mut progress)?;
    progress.finish(recipe.schedule().steps, started.elapsed(), &args.out);
    Ok(())
}

/// Says what a run would do.
fn dry_run<T: Trainer, R: Recipe>(trainer: T, recipe: &R, processes: &Processes) -> Result<()> {
    /// Seconds that timing takes about at most, unless a single step takes longer.
    const PATIENCE: f64 = 20.0;
    let plan = training::run::plan(&trainer, recipe)?;
    let seconds = training::run::time_steps(trainer, recipe, 3, PATIENCE)?;
    if processes.rank() > 0 {
        return Ok(());
    }
    for line in training_progress::plan(&plan)
        .into_iter()
        .chain([training_progress::pace(seconds, plan.steps)])
    {
        progress::result(&line)?;
    }
    let warnings = recipe.schedule().warnings();
    for warning in warnings.iter().chain(&plan.scope.warnings) {
        progress::note(&format!("warning: {warning}"));
    }
    Ok(())
}
