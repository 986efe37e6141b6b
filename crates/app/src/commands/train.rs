//! `alitok train`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};
use burn::tensor::Device;
use clap::{Args, Subcommand};
use generator::GeneratorConfig;
use token_cache::TokenCache;
use tokenizer::TokenizerConfig;
use training::{
    communicator::Communicator,
    recipe::{self, GeneratorRecipe, GeneratorSize, Recipe, StageOneRecipe, StageTwoRecipe},
    run::{Begin, Trainer},
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

use crate::{
    args::DataArgs,
    interrupt, models, processes,
    progress::{self, TrainingProgress},
    reference, sources, tuning,
};

/// Train a tokenizer or a generator
#[derive(Debug, Subcommand)]
pub(crate) enum TrainVerb {
    Tokenizer(TrainTokenizerArgs),
    Generator(TrainGeneratorArgs),
}

/// Train a tokenizer: its encoder and first decoder, or its second decoder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok train tokenizer --stage 1 --recipe mini --data bundled --out runs/stage-1
  alitok train tokenizer --stage 2 --from runs/stage-1 --recipe mini --data bundled --out runs/stage-2")]
pub(crate) struct TrainTokenizerArgs {
    /// 1: encoder, codebook and first decoder. 2: bidirectional decoder.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) stage: u8,
    /// `mini`, or a run or model folder. Stage 1 goes on from its parameters, fitted to the size of
    /// the recipe's pictures, instead of beginning at random; the architecture is the model's, unless
    /// --set changes it. Stage 2 needs the first stage's.
    #[arg(long, value_name = "MODEL", required_if_eq("stage", "2"))]
    pub(crate) from: Option<String>,
    /// Stage 2: begin with this model's bidirectional decoder, fitted to the size of the first
    /// stage's pictures, instead of at random.
    #[arg(long, value_name = "MODEL")]
    pub(crate) decoder_from: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Train a generator on a token cache
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok train generator --cache runs/cache --recipe mini --out runs/generator")]
pub(crate) struct TrainGeneratorArgs {
    /// The token cache.
    #[arg(long)]
    pub(crate) cache: PathBuf,
    /// `mini`, or a run or model folder whose generator to go on from, instead of beginning at random;
    /// its classes, which are matched by name, and the size of its pictures may differ. The
    /// architecture is the model's, unless --set changes it.
    #[arg(long, value_name = "MODEL")]
    pub(crate) from: Option<String>,
    /// The data set that was cached, to check that it has the cache's classes and pictures.
    #[arg(long)]
    pub(crate) data: Option<String>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A bundled recipe (`mini`, `quick`, or one of the paper's such as `paper` and `paper-b`; the
    /// folder `recipes` has them all), or a .toml file.
    #[arg(long)]
    pub(crate) recipe: String,
    /// Folder of the run.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Continue from the newest checkpoint, or start if there is none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Continue as with --resume, and let the run have another number of steps than it had.
    #[arg(long)]
    pub(crate) extend: bool,
    /// Say what the run would do and how long it would take, from a few steps; train and write
    /// nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Data that are not trained on, as `--data` or, for a generator, a token cache; the recipe's
    /// `evaluate_every` says when the loss on them is measured.
    #[arg(long, value_name = "DATA")]
    pub(crate) heldout: Option<String>,
    /// Hold a share of the pictures out, such as 0.05, and measure the loss on them. Their names decide,
    /// so that a tokenizer and a generator hold the same ones out.
    #[arg(long, value_name = "X", conflicts_with = "heldout", allow_negative_numbers = true)]
    pub(crate) heldout_share: Option<f64>,
    /// End at the first picture that cannot be read, instead of listing it and learning from
    /// another in its place, and for samples without picture or class, instead of leaving them out.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Change settings of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) overrides: Vec<String>,
}

/// The processes that train together.
type Processes = Arc<dyn Communicator>;

pub(crate) fn run(verb: &TrainVerb, device: Option<pipeline::Device>) -> Result<()> {
    let device = &reference::device(device, "training")?;
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
    for line in progress::plan(&plan).into_iter().chain([progress::pace(seconds, plan.steps)]) {
        progress::result(&line)?;
    }
    let warnings = recipe.schedule().warnings();
    for warning in warnings.iter().chain(&plan.scope.warnings) {
        progress::note(&format!("warning: {warning}"));
    }
    Ok(())
}
