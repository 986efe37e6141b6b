//! Trains and measures what a plan describes.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use files::Home;
use model::Model;
use pipeline::Compute;
use pipeline::cache::{BuildOptions, Views, build};
use pixels::{DataSet, Picture};
use token_cache::Shard;
use training::{
    TrainingError,
    recipe::Recipe,
    run::{Begin, Trainer, check_recipe, lock},
    telemetry,
    trainers::{GeneratorTrainer, StageOne, StageTwo},
};

use crate::{
    Ablation, Report, RunError, Unit, UnitFolder,
    measures::{Measurer, Measures},
};

/// Watches an experiment.
pub trait Observer: evaluation::Observer {
    /// A training begins, which this one watches.
    fn training(&mut self) -> Box<dyn telemetry::Observer + '_>;
}

/// What an experiment is done with.
#[derive(Debug, Clone)]
pub struct Equipment {
    /// Where models are trained, and looked into.
    pub device: Device,
    /// What encodes, decodes and draws what is measured.
    pub compute: Compute,
    /// Root of bundled things: data, and the network that compares pictures.
    pub home: Home,
}

/// A plan on its way to a report, in a folder. It can be killed at any time and goes on where it was;
/// several processes can work in one folder.
#[derive(Debug)]
pub struct Laboratory<'a> {
    plan: &'a Ablation,
    folder: PathBuf,
}

/// What became of a unit.
enum Outcome {
    /// It was finished before.
    Finished,
    /// It is finished now.
    Done,
    /// Another process works on it, or on one that it needs.
    Waits,
}

impl<'a> Laboratory<'a> {
    /// The plan's experiment in a folder. Nothing is done yet.
    pub fn new(plan: &'a Ablation, folder: impl Into<PathBuf>) -> Self {
        Self { plan, folder: folder.into() }
    }

    fn folder(&self, unit: Unit<'_>) -> UnitFolder {
        unit.folder(&self.folder)
    }

    /// Checks that the plan has these rows.
    ///
    /// # Errors
    /// If it lacks one.
    pub fn check_rows(&self, rows: &[String]) -> Result<(), RunError> {
        let known = || self.plan.rows.iter().map(|row| &row.name);
        match rows.iter().find(|name| !known().any(|row| row == *name)) {
            None => Ok(()),
            Some(name) => {
                let (name, known) = (name.clone(), known().cloned().collect());
                Err(RunError::NoRow { name, known })
            }
        }
    }

    /// Does what is left of these rows, or of all without any, as far as no other process works on it.
    /// The report is written after each unit.
    ///
    /// # Errors
    /// If the plan lacks a row or names no data, or something cannot be trained or measured.
    pub fn work(
        &self,
        rows: &[String],
        equipment: &Equipment,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        self.check_rows(rows)?;
        if self.plan.data.is_empty() || self.plan.heldout.is_empty() {
            return Err(RunError::NoData);
        }
        let mut measurer = Measurer::new(self.plan, equipment);
        let mut units = self.plan.units();
        units.retain(|unit| rows.is_empty() || rows.contains(&unit.row.name));
        let mut place = 0;
        while let Some(&unit) = units.get(place) {
            let outcome = self.advance(unit, &mut measurer, observer).map_err(|source| {
                RunError::Unit { unit: unit.to_string(), source: source.into() }
            })?;
            match outcome {
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
    fn advance(
        &self,
        unit: Unit<'_>,
        measurer: &mut Measurer<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, RunError> {
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
        std::fs::create_dir_all(folder.path()).map_err(RunError::file("make", folder.path()))?;
        let _lock = match lock(folder.path()) {
            Err(TrainingError::RunBusy(_)) => return Ok(Outcome::Waits),
            lock => lock?,
        };
        if self.finished(unit)?.is_some() {
            return Ok(Outcome::Finished);
        }
        observer.note(&format!("row {unit}: {}", unit.row.title));
        let tokens = self.folder(first_stage.unwrap_or(unit));
        let equipment = measurer.equipment();
        let tokenizer = self.train_tokenizer(unit, &folder, &tokens, equipment, observer)?;
        if first_stage.is_none() {
            self.train_generator(unit, &folder, &tokenizer, equipment, observer)?;
        }
        measurer.measure(&tokenizer, &tokens, observer)?.write(&folder.measures())?;
        Ok(Outcome::Done)
    }

    /// Trains the tokenizer that is a unit's own; returns its run.
    fn train_tokenizer(
        &self,
        unit: Unit<'_>,
        folder: &UnitFolder,
        tokens: &UnitFolder,
        equipment: &Equipment,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf, RunError> {
        let Equipment { device, home, .. } = equipment;
        let data = data(&self.plan.data, home)?;
        if let Some(recipe) = self.plan.stage_one(unit)? {
            let trainer = StageOne::new(recipe.clone(), data, home, device)?;
            return train(trainer, &recipe, folder.stage_one(), observer);
        }
        let recipe = self.plan.stage_two(unit)?;
        let recipe = recipe.ok_or(RunError::TooLittle("a row has a first or a second stage"))?;
        let first_stage = Model::read(tokens.stage_one().join("model"))?.tokenizer(device)?;
        let trainer = StageTwo::new(recipe.clone(), first_stage, data, home, device)?;
        train(trainer, &recipe, folder.stage_two(), observer)
    }

    /// Caches the tokens of a unit's tokenizer, and trains the generator on them.
    fn train_generator(
        &self,
        unit: Unit<'_>,
        folder: &UnitFolder,
        tokenizer: &Path,
        equipment: &Equipment,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let Equipment { device, home, .. } = equipment;
        let recipe = self.plan.generator(unit)?;
        let model = Model::read(tokenizer.join("model"))?;
        let encoder = model.tokenizer(device)?.frozen_encoder();
        let encode = |picture: &Picture| Ok(encoder.encode_picture(picture.to_unit_planes()));
        for (source, views, cache) in [
            (&self.plan.data, self.plan.views, folder.cache()),
            (&self.plan.heldout, Views::Center, folder.heldout_cache()),
        ] {
            let data = data(source, home)?;
            let total = data.len() as u64;
            observer.progress("caching", 0, total);
            // All rows must see the same pictures.
            let options = BuildOptions { views, shard: Shard::WHOLE, strict: true };
            build(&data, &model, encode, &cache, options, |done, _| {
                observer.progress("caching", done as u64, total);
                ControlFlow::Continue(())
            })?;
            observer.progress("caching", total, total);
        }
        let trainer = GeneratorTrainer::new(recipe.clone(), &folder.cache(), device)?
            .with_heldout(&folder.heldout_cache())?;
        train(trainer, &recipe, folder.generator(), observer)?;
        Ok(())
    }

    /// What was measured of a unit, if that is complete and of the plan's recipes.
    fn finished(&self, unit: Unit<'_>) -> Result<Option<Measures>, RunError> {
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

    /// Writes the report of what is finished, and returns it.
    ///
    /// # Errors
    /// If measures or logs are damaged, or the report cannot be written.
    pub fn report(&self) -> Result<Report, RunError> {
        let units = self.plan.units().into_iter();
        let found = units.map(|unit| {
            let tokens = self.folder(self.plan.first_stage_of(unit).unwrap_or(unit));
            Ok((unit, self.finished(unit)?.map(|measures| (measures, tokens.generator()))))
        });
        let report = Report::new(found.collect::<Result<Vec<_>, RunError>>()?)?;
        report.write(&self.folder)?;
        Ok(report)
    }
}

fn data(source: &str, home: &Home) -> Result<Arc<dyn DataSet>, RunError> {
    Ok(pixels::data::open(source, home)?.into())
}

/// Runs a training to its end, from wherever it is; returns its folder.
fn train<T: Trainer, R: Recipe>(
    trainer: T,
    recipe: &R,
    folder: PathBuf,
    observer: &mut dyn Observer,
) -> Result<PathBuf, RunError> {
    training::run::run(trainer, recipe, &folder, Begin::Resume, &mut *observer.training())?;
    Ok(folder)
}
