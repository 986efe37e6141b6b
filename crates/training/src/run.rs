//! The loop that all three trainers share.

use std::{io::Write, path::Path};

use toml::{Table, Value};
use weights::model_folder::check_free;

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    parallel::Communicator,
    recipe::{Recipe, RecipeError, collect_paths, to_table},
    telemetry::{Log, Measures, Observer},
};

/// One of the three trainings.
pub trait Trainer {
    /// Talks to the other processes of this training.
    fn communicator(&self) -> &dyn Communicator;

    /// What the run is made from besides its recipe, by name: a resumed run must have the same.
    fn inputs(&self) -> Vec<(&'static str, String)>;

    /// Prepares to go on with this step. Called once, before the first step.
    ///
    /// # Errors
    /// If the checkpoint does not fit the model.
    fn start(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainingError>;

    /// Does one step. Returns what was measured, the loss first.
    ///
    /// # Errors
    /// If data cannot be read.
    fn step(&mut self, step: u64, learning_rate: f64) -> Result<Measures, TrainingError>;

    /// All that changes in training.
    fn checkpoint(&self, step: u64) -> Checkpoint;

    /// Writes the model as a model folder.
    ///
    /// # Errors
    /// If it cannot be written.
    fn export(&self, folder: &Path) -> Result<(), TrainingError>;
}

/// Runs a training in `folder`, from the start or from its newest checkpoint.
///
/// The folder gets `recipe.toml` (resolved), `log.jsonl`, `checkpoints/` and `model/`. Where several
/// processes train together, all must see the folder; rank 0 alone writes to it.
///
/// # Errors
/// If the folder already holds a run and `resume` is not set, if the recipe is not the one the
/// run was started with, or if anything cannot be read or written.
pub fn run<T: Trainer, R: Recipe>(
    mut trainer: T,
    recipe: &R,
    folder: &Path,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<(), TrainingError> {
    let schedule = *recipe.schedule();
    let rates = schedule.learning_rates();
    let leads = trainer.communicator().rank() == 0;
    let checkpoints = folder.join("checkpoints");
    let model = folder.join("model");
    if leads {
        claim(folder, recipe, resume)?;
        check_free(&model)?;
    }
    trainer.communicator().barrier()?;

    // Once: for some trainers that means a digest of a whole model.
    let inputs = trainer.inputs();
    let checkpoint = if resume { Checkpoint::latest(&checkpoints)? } else { None };
    let first = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
    if let Some(checkpoint) = &checkpoint {
        for (what, now) in &inputs {
            let before = checkpoint.inputs.get(*what).cloned().unwrap_or_default();
            if before != *now {
                return Err(TrainingError::InputChanged { what, before, now: now.clone() });
            }
        }
    }
    trainer.start(checkpoint)?;
    let log_path = folder.join("log.jsonl");
    let mut log = Log::new(leads.then_some((log_path.as_path(), first)))?;
    observer.started(first, schedule.steps);

    for step in first..schedule.steps {
        let rate = rates.rate(step);
        let measures = trainer.step(step, rate)?;
        if let Some((what, value)) = measures.iter().find(|(_, value)| !value.is_finite()) {
            return Err(TrainingError::NotFinite { step: step + 1, what, value: *value });
        }
        log.add(&measures);
        let done = step + 1;
        observer.stepped(done);
        let last = done == schedule.steps;
        if last || done % schedule.log_every == 0 {
            observer.reported(&log.report(done, schedule.steps, rate)?);
        }
        if leads && (last || done % schedule.checkpoint_every == 0) {
            let mut checkpoint = trainer.checkpoint(done);
            let named = inputs.iter().map(|(what, now)| ((*what).to_owned(), now.clone()));
            checkpoint.inputs = named.collect();
            let path = checkpoint.write(&checkpoints, schedule.keep_checkpoints)?;
            trainer.export(&model)?;
            observer.saved(&path);
        }
    }
    if leads && first >= schedule.steps {
        // All steps were done before; what was interrupted may be their export.
        trainer.export(&model)?;
    }
    // Nobody goes on, for example to read the model, before it is written.
    Ok(trainer.communicator().barrier()?)
}

/// Makes the run's folder, or checks that it may be continued.
fn claim<R: Recipe>(folder: &Path, recipe: &R, resume: bool) -> Result<(), TrainingError> {
    let path = folder.join("recipe.toml");
    let now = to_table(recipe);
    if path.exists() {
        if !resume {
            return Err(TrainingError::RunExists(folder.to_owned()));
        }
        let text = std::fs::read_to_string(&path).map_err(TrainingError::file(&path))?;
        // Through the recipe's type, so that settings which are younger than the run have their
        // defaults.
        let before: R = toml::from_str(&text).map_err(|error| RecipeError::Parse {
            name: path.display().to_string(),
            problem: error.to_string(),
        })?;
        let before = to_table(&before);
        return match difference(&before, &now) {
            None => Ok(()),
            Some((key, before, now)) => {
                Err(TrainingError::RecipeChanged { path: folder.to_owned(), key, before, now })
            }
        };
    }
    if folder.join("checkpoints").exists() || folder.join("log.jsonl").exists() {
        return Err(TrainingError::NoRecipe(folder.to_owned()));
    }
    std::fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
    let text =
        format!("# The resolved recipe of this run, alitok {}.\n", env!("CARGO_PKG_VERSION"))
            + &toml::to_string(&now).expect("a table of plain values can be written");
    tokens::files::write_file(&path, |file| file.write_all(text.as_bytes()))
        .map_err(TrainingError::file(&path))
}

/// The first setting that matters to the result and differs, and both its values.
fn difference(before: &Table, now: &Table) -> Option<(String, String, String)> {
    const FREE: [&str; 4] = ["accumulate", "checkpoint_every", "keep_checkpoints", "log_every"];
    let mut paths = Vec::new();
    collect_paths(before, "", &mut paths);
    collect_paths(now, "", &mut paths);
    let show = |value: Option<&Value>| value.map_or_else(|| "not set".into(), Value::to_string);
    paths.into_iter().filter(|path| !FREE.contains(&path.as_str())).find_map(|path| {
        let (old, new) = (lookup(before, &path), lookup(now, &path));
        let is_table = matches!(old.or(new), Some(Value::Table(_)));
        (!is_table && old != new).then(|| (path.clone(), show(old), show(new)))
    })
}

fn lookup<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let mut keys = path.split('.');
    let first = table.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}
