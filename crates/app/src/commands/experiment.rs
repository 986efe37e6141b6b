//! `alitok experiment`

mod measures;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use clap::{Args, Subcommand};
use experiment::{Ablation, Unit, UnitFolder};
use measures::{Measurer, Measures};
use model::Model;
use pixels::{DataSet, Picture};
use report::Report;
use token_cache::Shard;
use training::{
    TrainingError,
    cache::{BuildOptions, Views, build},
    recipe::Recipe,
    run::{Trainer, check_recipe, lock},
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

use crate::{
    processes,
    progress::{self, Progress, TrainingProgress},
    reference, tuning,
};

/// Train variants on equal budgets and compare them
#[derive(Debug, Subcommand)]
pub(crate) enum ExperimentVerb {
    Ablation(AblationArgs),
}

/// Does a causal decoder make tokens that are easier to predict? (the paper's Table 3, Fig. 2)
///
/// Trains a tokenizer and a generator a row and seed, measures them, and writes `report.md`,
/// `report.json` and figures. Given again, it goes on where it was interrupted; a second process
/// with the same folder takes rows that nobody works on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok experiment ablation --out runs/ablation
  alitok experiment ablation --plan mine.toml --row A B --out runs/mine
  alitok experiment ablation --out runs/ablation --report-only")]
pub(crate) struct AblationArgs {
    /// A bundled plan (`small`), or a .toml file like those in `recipes/ablation`.
    #[arg(long, default_value = "small")]
    pub(crate) plan: String,
    /// Folder of the experiment.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Work on these rows only. The report has all that are finished.
    #[arg(long = "row", value_name = "NAME", num_args = 1..)]
    pub(crate) rows: Vec<String>,
    /// Train and measure nothing, only write the report of what is finished.
    #[arg(long)]
    pub(crate) report_only: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(verb: &ExperimentVerb, device: Option<pipeline::Device>) -> Result<()> {
    tuning::for_training();
    let ExperimentVerb::Ablation(args) = verb;
    let plan = experiment::read(&args.plan)?;
    for name in &args.rows {
        let known: Vec<&str> = plan.rows.iter().map(|row| row.name.as_str()).collect();
        ensure!(known.contains(&name.as_str()), "no row `{name}`; rows are {}", known.join(", "));
    }
    let laboratory =
        Laboratory { args, plan: &plan, device: reference::device(device, "training")? };
    if !args.report_only {
        ensure!(
            processes::communicator()?.ranks() == 1,
            "each process of an experiment works on rows of its own; start it without a launcher"
        );
        laboratory.work(&mut Measurer::new(&plan, device, laboratory.device.clone()))?;
    }
    let report = laboratory.report()?;
    progress::result(&if args.json { report.to_json()? } else { report.to_markdown() })
}

/// Where an experiment is done.
struct Laboratory<'a> {
    args: &'a AblationArgs,
    plan: &'a Ablation,
    device: Device,
}

/// What became of a unit.
enum Outcome {
    /// It was finished before.
    Finished,
    /// It is finished now.
    Done,
    /// It is in the hands of another process, or needs one that is.
    Waits,
}

impl Laboratory<'_> {
    fn folder(&self, unit: Unit<'_>) -> UnitFolder {
        unit.folder(&self.args.out)
    }

    /// Does what is left to do and in no other hands.
    fn work(&self, measurer: &mut Measurer<'_>) -> Result<()> {
        let mut units = self.plan.units();
        let rows = &self.args.rows;
        units.retain(|unit| rows.is_empty() || rows.contains(&unit.row.name));
        let mut place = 0;
        while let Some(&unit) = units.get(place) {
            match self.advance(unit, measurer).with_context(|| unit.to_string())? {
                Outcome::Finished | Outcome::Waits => place += 1,
                Outcome::Done => {
                    self.report()?;
                    // One that waited may have waited for this one.
                    place = 0;
                }
            }
        }
        Ok(())
    }

    /// Trains and measures a unit, as far as that was not done before.
    fn advance(&self, unit: Unit<'_>, measurer: &mut Measurer<'_>) -> Result<Outcome> {
        if self.finished(unit)?.is_some() {
            return Ok(Outcome::Finished);
        }
        let first_stage = self.plan.first_stage_of(unit);
        if let Some(first_stage) = first_stage
            && self.finished(first_stage)?.is_none()
        {
            return Ok(Outcome::Waits);
        }
        let folder = self.folder(unit);
        std::fs::create_dir_all(folder.path())
            .with_context(|| format!("cannot make {}", folder.path().display()))?;
        let _lock = match lock(folder.path()) {
            Err(TrainingError::RunBusy(_)) => return Ok(Outcome::Waits),
            lock => lock?,
        };
        if self.finished(unit)?.is_some() {
            return Ok(Outcome::Finished);
        }
        progress::note(&format!("row {unit}: {}", unit.row.title));
        let tokens = self.folder(first_stage.unwrap_or(unit));
        let tokenizer = self.train_tokenizer(unit, &folder, &tokens)?;
        if first_stage.is_none() {
            self.train_generator(unit, &folder, &tokenizer)?;
        }
        measurer.measure(&tokenizer, &tokens)?.write(&folder.measures())?;
        Ok(Outcome::Done)
    }

    /// Trains the tokenizer that is a unit's own; returns its run.
    fn train_tokenizer(
        &self,
        unit: Unit<'_>,
        folder: &UnitFolder,
        tokens: &UnitFolder,
    ) -> Result<PathBuf> {
        let data = data(&self.plan.data)?;
        if let Some(recipe) = self.plan.stage_one(unit)? {
            let trainer = StageOne::new(recipe.clone(), data, crate::models::home(), &self.device)?;
            return train(trainer, &recipe, folder.stage_one());
        }
        let recipe = self.plan.stage_two(unit)?.context("a row has a first or a second stage")?;
        let first_stage = Model::read(tokens.stage_one().join("model"))?.tokenizer(&self.device)?;
        let trainer =
            StageTwo::new(recipe.clone(), first_stage, data, crate::models::home(), &self.device)?;
        train(trainer, &recipe, folder.stage_two())
    }

    /// Caches the tokens of a unit's tokenizer, and trains the generator on them.
    fn train_generator(&self, unit: Unit<'_>, folder: &UnitFolder, tokenizer: &Path) -> Result<()> {
        let recipe = self.plan.generator(unit)?;
        let model = Model::read(tokenizer.join("model"))?;
        let encoder = model.tokenizer(&self.device)?.frozen_encoder();
        let encode = |picture: &Picture| encoder.encode_picture(picture.to_unit_planes());
        for (source, views, cache) in [
            (&self.plan.data, self.plan.views, folder.cache()),
            (&self.plan.heldout, Views::Center, folder.heldout_cache()),
        ] {
            let data = data(source)?;
            let mut progress = Progress::new("caching", data.len() as u64);
            // All rows are to see the same pictures.
            let options = BuildOptions { views, shard: Shard::WHOLE, strict: true };
            build(&data, &model, encode, &cache, options, |done, _| {
                progress.set(done as u64);
            })?;
            progress.finish();
        }
        let trainer = GeneratorTrainer::new(recipe.clone(), &folder.cache(), &self.device)?
            .with_heldout(&folder.heldout_cache())?;
        train(trainer, &recipe, folder.generator())?;
        Ok(())
    }

    /// What was measured of a unit, if that is complete and of the plan's recipes.
    fn finished(&self, unit: Unit<'_>) -> Result<Option<Measures>> {
        let folder = self.folder(unit);
        let Some(measures) = Measures::read(&folder.measures())? else { return Ok(None) };
        let mut complete = measures.evaluation == self.plan.evaluation;
        if let Some(recipe) = self.plan.stage_one(unit)? {
            complete &= check_recipe(&folder.stage_one(), &recipe)?;
            complete &= check_recipe(&folder.generator(), &self.plan.generator(unit)?)?;
        }
        if let Some(recipe) = self.plan.stage_two(unit)? {
            complete &= check_recipe(&folder.stage_two(), &recipe)?;
        }
        Ok(complete.then_some(measures))
    }

    /// Writes the report of what is finished.
    fn report(&self) -> Result<Report> {
        let units = self.plan.units().into_iter();
        let found = units.map(|unit| {
            let tokens = self.folder(self.plan.first_stage_of(unit).unwrap_or(unit));
            Ok((unit, self.finished(unit)?.map(|measures| (measures, tokens.generator()))))
        });
        let report = Report::new(found.collect::<Result<Vec<_>>>()?)?;
        report.write(&self.args.out)?;
        Ok(report)
    }
}

fn data(source: &str) -> Result<Arc<dyn DataSet>> {
    Ok(pixels::data::open(source, crate::models::home())?.into())
}

/// Runs a training to its end, from wherever it is; returns its folder.
fn train<T: Trainer, R: Recipe>(trainer: T, recipe: &R, folder: PathBuf) -> Result<PathBuf> {
    training::run::run(trainer, recipe, &folder, true, &mut TrainingProgress::default())?;
    Ok(folder)
}
