//! The loop that all trainers share.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use model::check_free;
use pixels::Picture;
use settings::{SettingsError, collect_paths, to_table};
use toml::{Table, Value};

use crate::{
    TrainingError,
    checkpoint::{Checkpoint, HELDOUT},
    communicator::{Communicator, gather_bytes},
    guard::{Guard, Trouble},
    plan::{Plan, Scope},
    recipe::Recipe,
    schedule::{LearningRates, Schedule},
    telemetry::{Alarm, BadPicture, Log, Measures, Observer, Report},
    validation::RecipeError,
};

/// A checkpoint's count of pictures that could not be read.
const BAD_PICTURES: &str = "bad_pictures";

/// One step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Counted from 0. Learning rate and phases follow it.
    pub number: u64,
    /// Where its data and its randomness are read from: `number`, and one more for each step whose
    /// data a roll-back has left behind.
    pub address: u64,
    /// The learning rate.
    pub learning_rate: f64,
}

/// The smallest healthy value of a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// The measure.
    pub what: &'static str,
    /// Its smallest healthy value.
    pub least: f64,
    /// The share of the run's steps after which it is to be reached; never before the warm-up ends.
    pub after: f64,
}

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// In a folder without a run.
    New,
    /// From the newest checkpoint, or anew if there is none.
    Resume,
    /// As `Resume`; the recipe may have another number of steps than before.
    Extend,
}

/// Name of the input that tells the labels of the pictures.
pub(crate) const LABELS: &str = "labels of the data set";
/// Name of the input that tells the labels of the held-out pictures.
pub(crate) const HELDOUT_LABELS: &str = "labels of the held-out data set";

/// Holds what a run is made from against what its checkpoint recorded.
fn check_inputs(
    recorded: &BTreeMap<String, String>,
    inputs: &[(&'static str, String)],
) -> Result<(), TrainingError> {
    for &(what, ref now) in inputs {
        let before = recorded.get(what);
        if before.is_none() && [LABELS, HELDOUT_LABELS].contains(&what) {
            // A run from before they were recorded; its older checksum is compared.
            continue;
        }
        let before = before.cloned().unwrap_or_default();
        if before != *now {
            return Err(TrainingError::InputChanged { what, before, now: now.clone() });
        }
    }
    Ok(())
}

/// One of the trainings.
pub trait Trainer {
    /// Talks to the other processes of this training.
    fn communicator(&self) -> &dyn Communicator;

    /// What it works with.
    fn scope(&self) -> Scope;

    /// What the run is made from besides its recipe, by name: a resumed run must have the same.
    fn inputs(&self) -> Vec<(&'static str, String)>;

    /// Prepares to go on with the step at this address. Called before the first step, and again
    /// with an older checkpoint when the run goes back.
    ///
    /// # Errors
    /// If the checkpoint does not fit the model.
    fn start(&mut self, checkpoint: Option<Checkpoint>, address: u64) -> Result<(), TrainingError>;

    /// Does one step. Returns what was measured, the loss first; the same on all processes.
    ///
    /// # Errors
    /// If data cannot be read.
    fn step(&mut self, step: Step) -> Result<Measures, TrainingError>;

    /// The smallest healthy values of some measures.
    fn limits(&self) -> Vec<Limit> {
        Vec::new()
    }

    /// Whether there are data to evaluate on.
    fn has_heldout(&self) -> bool;

    /// The loss on held-out data, without dropout and augmentation; the same on all processes.
    ///
    /// # Errors
    /// If there are none, or they cannot be read.
    fn evaluate(&mut self) -> Result<f64, TrainingError>;

    /// The pictures that could not be read since this was asked last, on this process.
    fn take_bad(&mut self) -> Vec<BadPicture> {
        Vec::new()
    }

    /// Pictures by which a person sees how far the training is: always of the same originals or
    /// the same noise. Called on the leading process alone, so nothing of it may wait for others.
    ///
    /// # Errors
    /// If data cannot be read.
    fn samples(&self) -> Result<Picture, TrainingError>;

    /// All that changes in training.
    fn checkpoint(&self, step: u64) -> Checkpoint;

    /// Writes the model as a model folder.
    ///
    /// # Errors
    /// If it cannot be written.
    fn export(&self, folder: &Path) -> Result<(), TrainingError>;
}

/// Runs a training in `folder`, from the start or from its newest checkpoint. Before the first step the
/// observer is told what it is about to do; when the observer wants it to stop, it ends after the step in
/// progress with a checkpoint, and [`TrainingError::Interrupted`].
///
/// The folder gets `recipe.toml` (resolved), `log.jsonl`, TensorBoard's event files,
/// `checkpoints/`, `model/` and, where the recipe asks for them, `samples/` and `best/`. Where several processes train together, all must see the
/// folder; rank 0 alone writes to it.
///
/// # Errors
/// If the folder already holds a run and is to begin a new one, if another process trains in it, if
/// the recipe is not the one the run was started with, if the training fails more often than its
/// guard allows, or if anything cannot be read or written.
pub fn run<T: Trainer, R: Recipe>(
    trainer: T,
    recipe: &R,
    folder: &Path,
    begin: Begin,
    observer: &mut dyn Observer,
) -> Result<(), TrainingError> {
    let schedule = *recipe.schedule();
    let scope = trainer.scope();
    check_activations(&plan_of(scope.clone(), 0, &schedule, trainer.communicator().ranks()))?;
    if schedule.evaluate_every.is_some() && !trainer.has_heldout() {
        return Err(TrainingError::NoHeldout);
    }
    let leads = trainer.communicator().rank() == 0;
    let folders = Folders {
        checkpoints: folder.join("checkpoints"),
        model: folder.join("model"),
        best: folder.join("best"),
    };
    // Held until the run is over.
    let mut _lock = None;
    if leads {
        _lock = Some(claim(folder, recipe, begin)?);
        check_free(&folders.model)?;
        check_free(&folders.best)?;
        for folder in [folder, &folders.checkpoints] {
            files::remove_incomplete(folder).map_err(TrainingError::file(folder))?;
        }
    }
    trainer.communicator().barrier()?;
    let mut run = Run {
        rates: recipe.learning_rates(),
        // Once: for some trainers that means a digest of a whole model.
        inputs: trainer.inputs(),
        log: Log::new(leads.then_some(folder)),
        guard: Guard::new(schedule.guard),
        step: 0,
        skipped: 0,
        rollbacks: 0,
        bad: 0,
        saved: None,
        pictures: scope.learned,
        trainer,
        schedule,
        folders,
        observer,
    };
    run.begin(begin != Begin::New, scope)?;
    while run.step < schedule.steps {
        run.advance()?;
        if run.is_to_stop()? {
            return Err(run.stop()?);
        }
    }
    // Nobody goes on, for example to read the model, before it is written.
    Ok(run.trainer.communicator().barrier()?)
}

struct Folders {
    checkpoints: PathBuf,
    model: PathBuf,
    best: PathBuf,
}

struct Run<'a, T> {
    trainer: T,
    schedule: Schedule,
    rates: LearningRates,
    folders: Folders,
    inputs: Vec<(&'static str, String)>,
    observer: &'a mut dyn Observer,
    log: Log,
    guard: Guard,
    /// Steps done.
    step: u64,
    /// Steps whose data were left behind.
    skipped: u64,
    rollbacks: u64,
    /// How often a picture could not be read, on all processes.
    bad: u64,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    /// Pictures that are learned from.
    pictures: usize,
}

/// Copies of the parameters that a training keeps: themselves, gradients, two moments, an average.
fn copies(schedule: &Schedule) -> u64 {
    4 + u64::from(schedule.ema_decay.is_some())
}

/// Refuses a training whose parameters alone, with gradients and moments, do not fit memory. To be
/// asked before a model is built.
pub(crate) fn check_parameters(
    parameters: usize,
    schedule: &Schedule,
) -> Result<(), TrainingError> {
    let Some(available) = machine::available_memory() else { return Ok(()) };
    let needed = (parameters as u64).saturating_mul(4 * copies(schedule));
    if needed <= available {
        return Ok(());
    }
    Err(TrainingError::Memory { parameters, needed, available })
}

/// Refuses a training whose activations cannot fit memory, even if the estimate of them is four times
/// too large.
fn check_activations(plan: &Plan) -> Result<(), TrainingError> {
    match machine::available_memory() {
        Some(available) if plan.memory / 4 > available => {
            Err(TrainingError::Activations { batch: plan.batch, needed: plan.memory, available })
        }
        _ => Ok(()),
    }
}

/// What a training is about to do, for people: nothing is trained or written.
///
/// # Errors
/// If it cannot work: there is nothing to evaluate on, or memory is too small.
pub fn plan<T: Trainer, R: Recipe>(trainer: &T, recipe: &R) -> Result<Plan, TrainingError> {
    let schedule = recipe.schedule();
    if schedule.evaluate_every.is_some() && !trainer.has_heldout() {
        return Err(TrainingError::NoHeldout);
    }
    let plan = plan_of(trainer.scope(), 0, schedule, trainer.communicator().ranks());
    check_activations(&plan)?;
    Ok(plan)
}

/// Seconds that a step takes, over up to `most` steps after the first, or fewer where they take
/// more than `seconds` together. The trainer has learned from them and cannot be used further.
///
/// # Errors
/// If a step cannot be done.
pub fn time_steps<T: Trainer, R: Recipe>(
    mut trainer: T,
    recipe: &R,
    most: u64,
    seconds: f64,
) -> Result<f64, TrainingError> {
    let rates = recipe.learning_rates();
    trainer.start(None, 0)?;
    let mut step =
        |number| trainer.step(Step { number, address: number, learning_rate: rates.rate(number) });
    // The first step fills memory and caches, too.
    let mut since = Instant::now();
    step(0)?;
    let first = since.elapsed().as_secs_f64();
    since = Instant::now();
    let mut done = 0;
    while done < most && first + since.elapsed().as_secs_f64() < seconds {
        done += 1;
        step(done)?;
    }
    Ok(if done == 0 { first } else { since.elapsed().as_secs_f64() / done as f64 })
}

fn plan_of(scope: Scope, done: u64, schedule: &Schedule, ranks: usize) -> Plan {
    let side_by_side = schedule.batch.div_ceil(ranks).div_ceil(schedule.accumulate);
    Plan::new(scope, (done, schedule.steps), schedule.batch, side_by_side, copies(schedule))
}

impl<T: Trainer> Run<'_, T> {
    fn leads(&self) -> bool {
        self.trainer.communicator().rank() == 0
    }

    /// The newest checkpoint that is sound.
    fn latest(&mut self) -> Result<Option<Checkpoint>, TrainingError> {
        let observer = &mut self.observer;
        Checkpoint::latest(&self.folders.checkpoints, &mut |path, error| {
            observer.passed_over(path, &error.to_string());
        })
    }

    /// Starts, or goes on from the newest checkpoint.
    fn begin(&mut self, resume: bool, scope: Scope) -> Result<(), TrainingError> {
        let checkpoint = if resume { self.latest()? } else { None };
        let found = checkpoint.is_some();
        if let Some(checkpoint) = &checkpoint {
            check_inputs(&checkpoint.inputs, &self.inputs)?;
            self.step = checkpoint.step;
            self.skipped = checkpoint.number_or_zero("skipped") as u64;
            self.rollbacks = checkpoint.number_or_zero("rollbacks") as u64;
            self.bad = checkpoint.number_or_zero(BAD_PICTURES) as u64;
            self.guard.restore(&checkpoint.numbers);
            self.saved = Some(checkpoint.step);
        }
        let kept = checkpoint.as_ref().map(|checkpoint| checkpoint.numbers.clone());
        self.trainer.start(checkpoint, self.step + self.skipped)?;
        self.log.open(self.step)?;
        self.log.restore(&kept.unwrap_or_default());
        let ranks = self.trainer.communicator().ranks();
        let plan = plan_of(scope, self.step, &self.schedule, ranks);
        self.observer.planned(&plan);
        for warning in self.schedule.warnings().iter().chain(&plan.scope.warnings) {
            self.observer.warned(warning);
        }
        self.observer.started(self.step, self.schedule.steps);
        if !self.leads() {
            return Ok(());
        }
        if !found && self.schedule.guard.rollbacks > 0 {
            // Something to go back to from the first steps.
            self.save(None)?;
        } else if found {
            // What was interrupted may be the export of this checkpoint.
            self.trainer.export(&self.folders.model)?;
            if self.schedule.keep_best
                && Checkpoint::best(&self.folders.checkpoints)? == Some(self.step)
            {
                self.trainer.export(&self.folders.best)?;
            }
        }
        Ok(())
    }

    /// Does one step and what follows it, or goes back.
    fn advance(&mut self) -> Result<(), TrainingError> {
        let step = Step {
            number: self.step,
            address: self.step + self.skipped,
            learning_rate: self.rates.rate(self.step),
        };
        let measures = self.trainer.step(step)?;
        if let Some(trouble) = self.guard.judge(step.number, &measures) {
            return self.go_back(trouble);
        }
        self.log.add(&measures);
        self.step += 1;
        self.observer.stepped(self.step);
        let done = self.step;
        let last = done == self.schedule.steps;
        let due = |every: u64| last || done.is_multiple_of(every);
        let heldout = match self.schedule.evaluate_every {
            Some(every) if due(every) => Some(self.trainer.evaluate()?),
            _ => None,
        };
        if due(self.schedule.log_every) {
            self.list_bad()?;
            let mut report = self.log.report(self.step, self.schedule.steps, step.learning_rate);
            self.raise_alarms(&mut report);
            report.bad_pictures = self.bad;
            report.samples = self.step * self.schedule.batch as u64;
            report.epoch = report.samples as f64 / self.pictures.max(1) as f64;
            report.measures.extend(heldout.map(|loss| (HELDOUT, loss)));
            self.log.write(&report)?;
            self.observer.reported(&report);
        }
        if self.leads() && self.schedule.samples_every.is_some_and(due) {
            let pictures = self.trainer.samples()?;
            if let Some(path) = self.log.write_samples(self.step, &pictures)? {
                self.observer.sampled(&path);
            }
        }
        if self.leads() && due(self.schedule.checkpoint_every) {
            self.save(heldout)?;
        }
        Ok(())
    }

    /// Counts and lists the pictures that could not be read on any process.
    fn list_bad(&mut self) -> Result<(), TrainingError> {
        let mut bytes = Vec::new();
        for bad in self.trainer.take_bad() {
            bytes.extend(serde_json::to_vec(&bad).expect("it is two texts"));
            bytes.push(b'\n');
        }
        let bytes = gather_bytes(self.trainer.communicator(), bytes)?;
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for bad in lines.filter_map(|line| serde_json::from_slice::<BadPicture>(line).ok()) {
            self.bad += 1;
            self.log.list_bad(self.step, &bad)?;
            self.observer.found_bad(&bad);
        }
        Ok(())
    }

    /// Compares a report with what is healthy, once the warm-up is over.
    fn raise_alarms(&self, report: &mut Report) {
        if self.step <= self.schedule.warmup_steps {
            return;
        }
        for Limit { what, least, after } in self.trainer.limits() {
            if self.step as f64 <= after * self.schedule.steps as f64 {
                continue;
            }
            let value = report.measures.iter().find(|(name, _)| *name == what);
            report.alarms.extend(
                value.filter(|(_, value)| *value < least).map(|&(what, value)| Alarm {
                    what,
                    value,
                    limit: least,
                }),
            );
        }
    }

    /// Whether any process was asked to stop: all must end after the same step.
    fn is_to_stop(&self) -> Result<bool, TrainingError> {
        let asked = self.observer.wants_to_stop();
        if self.trainer.communicator().ranks() == 1 {
            return Ok(asked);
        }
        let mut votes = [f32::from(u8::from(asked))];
        self.trainer.communicator().sum(&mut votes)?;
        Ok(votes[0] > 0.0)
    }

    /// Saves what is not saved yet, and says that the run was stopped.
    fn stop(&mut self) -> Result<TrainingError, TrainingError> {
        let (step, steps) = (self.step, self.schedule.steps);
        self.list_bad()?;
        if self.leads() && step > 0 && self.saved != Some(step) {
            self.save(None)?;
        }
        self.trainer.communicator().barrier()?;
        Ok(TrainingError::Interrupted { step, steps, saved: step > 0 })
    }

    fn save(&mut self, heldout: Option<f64>) -> Result<(), TrainingError> {
        let mut checkpoint = self.trainer.checkpoint(self.step);
        let named = self.inputs.iter().map(|(what, now)| ((*what).to_owned(), now.clone()));
        checkpoint.inputs = named.collect();
        let numbers = &mut checkpoint.numbers;
        numbers.insert("skipped".into(), self.skipped as f64);
        numbers.insert("rollbacks".into(), self.rollbacks as f64);
        numbers.insert(BAD_PICTURES.into(), self.bad as f64);
        numbers.extend(heldout.map(|loss| (HELDOUT.into(), loss)));
        self.guard.save(numbers);
        self.log.save(numbers);
        let Schedule { keep_checkpoints, keep_best, .. } = self.schedule;
        let checkpoints = &self.folders.checkpoints;
        let path = checkpoint.write(checkpoints, keep_checkpoints, keep_best)?;
        self.trainer.export(&self.folders.model)?;
        if keep_best && Checkpoint::best(checkpoints)? == Some(self.step) {
            self.trainer.export(&self.folders.best)?;
        }
        self.saved = Some(self.step);
        self.observer.saved(&path);
        Ok(())
    }

    /// Goes back to the newest checkpoint, and on from there with data that come after those of
    /// the step that failed.
    fn go_back(&mut self, trouble: Trouble) -> Result<(), TrainingError> {
        if self.rollbacks == self.schedule.guard.rollbacks {
            let rollbacks = self.rollbacks;
            return Err(TrainingError::Diverged { trouble, rollbacks });
        }
        let checkpoint = self.latest()?;
        let back = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.step);
        let reached = self.step;
        self.step = back;
        let bad = |checkpoint: &Checkpoint| checkpoint.number_or_zero(BAD_PICTURES) as u64;
        self.bad = checkpoint.as_ref().map_or(0, bad);
        self.skipped += reached + 1 - back;
        self.rollbacks += 1;
        // A lasting change of level is a spike once and usual afterwards.
        self.guard = Guard::new(self.schedule.guard);
        self.log.go_back(back, &trouble)?;
        self.observer.went_back(&trouble, back);
        self.trainer.start(checkpoint, self.step + self.skipped)
    }
}

/// Makes the run's folder, or checks that it may be continued; nobody else may until the lock is
/// dropped.
fn claim<R: Recipe>(folder: &Path, recipe: &R, begin: Begin) -> Result<File, TrainingError> {
    let path = folder.join("recipe.toml");
    if path.exists() && begin == Begin::New {
        return Err(TrainingError::RunExists(folder.to_owned()));
    }
    if !path.exists() && (folder.join("checkpoints").exists() || folder.join("log.jsonl").exists())
    {
        return Err(TrainingError::NoRecipe(folder.to_owned()));
    }
    std::fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
    let lock = lock(folder)?;
    let may_change: &[&str] = if begin == Begin::Extend { &["steps"] } else { &[] };
    if compare_recipe(folder, recipe, may_change)? && begin != Begin::Extend {
        return Ok(lock);
    }
    let text =
        format!("# The resolved recipe of this run, alitok {}.\n", env!("CARGO_PKG_VERSION"))
            + &toml::to_string(&to_table(recipe)).expect("a table of plain values can be written");
    files::write_file(&path, |file| file.write_all(text.as_bytes()))
        .map_err(TrainingError::file(&path))?;
    Ok(lock)
}

/// Whether the folder holds a run, which must be one of this recipe, save for how often it logs and
/// saves, and how a step is cut.
///
/// # Errors
/// If it is a run of another recipe, or its recipe cannot be read.
pub fn check_recipe<R: Recipe>(folder: &Path, recipe: &R) -> Result<bool, TrainingError> {
    compare_recipe(folder, recipe, &[])
}

/// [`check_recipe`], where some settings may be others.
fn compare_recipe<R: Recipe>(
    folder: &Path,
    recipe: &R,
    may_change: &[&str],
) -> Result<bool, TrainingError> {
    let path = folder.join("recipe.toml");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        text => text.map_err(TrainingError::file(&path))?,
    };
    // Through the recipe's type, so that settings which are younger than the run have their
    // defaults.
    let before: R = toml::from_str(&text).map_err(|error| {
        RecipeError::Settings(SettingsError::Parse {
            kind: "recipe",
            name: path.display().to_string(),
            problem: error.to_string(),
        })
    })?;
    match difference(&to_table(&before), &to_table(recipe), may_change) {
        None => Ok(true),
        Some((key, before, now)) => {
            let path = folder.to_owned();
            Err(TrainingError::RecipeChanged { path, key, before, now })
        }
    }
}

/// Locks a run's folder against other processes. The system drops the lock with the process,
/// however that ends.
///
/// # Errors
/// If another process holds it, or the folder cannot be written to.
pub fn lock(folder: &Path) -> Result<File, TrainingError> {
    let path = folder.join(".lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(TrainingError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainingError::RunBusy(folder.to_owned())),
        // Some network file systems have no locks; a run is better than none.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(TrainingError::file(&path)(error)),
    }
}

/// The first setting that matters to the result and differs, and both its values.
fn difference(
    before: &Table,
    now: &Table,
    may_change: &[&str],
) -> Option<(String, String, String)> {
    const FREE: [&str; 8] = [
        "accumulate",
        "activation_checkpointing",
        "checkpoint_every",
        "guard.rollbacks",
        "keep_best",
        "keep_checkpoints",
        "log_every",
        "samples_every",
    ];
    let mut paths = Vec::new();
    collect_paths(before, "", &mut paths);
    collect_paths(now, "", &mut paths);
    let show = |value: Option<&Value>| value.map_or_else(|| "not set".into(), Value::to_string);
    let is_free = |path: &str| FREE.contains(&path) || may_change.contains(&path);
    paths.into_iter().filter(|path| !is_free(path)).find_map(|path| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_hold_a_run_to_the_checksums_that_it_recorded() {
        let now =
            |labels: &str| vec![("data set", "2 pictures".to_owned()), (LABELS, labels.to_owned())];
        let recorded = |inputs: &[(&str, &str)]| -> BTreeMap<String, String> {
            inputs.iter().map(|&(what, value)| (what.to_owned(), value.to_owned())).collect()
        };
        let both = recorded(&[("data set", "2 pictures"), (LABELS, "checksum 1")]);
        assert!(check_inputs(&both, &now("checksum 1")).is_ok());
        assert!(check_inputs(&both, &now("checksum 2")).is_err());
        // A run from before labels were recorded.
        let old = recorded(&[("data set", "2 pictures")]);
        assert!(check_inputs(&old, &now("checksum 1")).is_ok());
        let other = recorded(&[("data set", "3 pictures")]);
        assert!(check_inputs(&other, &now("checksum 1")).is_err());
    }
}
