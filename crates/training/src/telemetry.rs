//! What a run tells while it goes on: lines of JSON and TensorBoard's events in files, and an
//! observer.

mod curves;
mod events;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use pixels::Picture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{TrainingError, guard::Trouble, plan::Plan};

pub use crate::measures::Measures;
pub use curves::{Curves, smoothed};

use events::EventFiles;

/// A measure below what is healthy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alarm {
    /// The measure.
    pub what: &'static str,
    /// Its mean since the last report.
    pub value: f64,
    /// Its smallest healthy value.
    pub limit: f64,
}

/// A picture that could not be read, and what became of its place: in a step another picture took
/// it, in a measure on held-out pictures nothing did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BadPicture {
    /// Its name in its data set.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Number of steps done.
    pub step: u64,
    /// Number of steps of the whole run.
    pub steps: u64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Mean measures since the last report, the loss first.
    pub measures: Measures,
    /// Steps a second since the last report.
    pub steps_per_second: f64,
    /// Samples seen since the run began.
    pub samples: u64,
    /// How often that is all of the data.
    pub epoch: f64,
    /// Seconds of training since the run began, those before an interruption included.
    pub seconds: f64,
    /// Measures that are not healthy.
    pub alarms: Vec<Alarm>,
    /// How often a picture could not be read since the run began, on all processes.
    pub bad_pictures: u64,
}

/// Somebody who watches a run.
pub trait Observer {
    /// What the run is about to do; told before its first step.
    fn planned(&mut self, _plan: &Plan) {}
    /// Something that is allowed and probably not meant; told once.
    fn warned(&mut self, _warning: &str) {}
    /// Whether the run should save and end after the step in progress.
    fn wants_to_stop(&self) -> bool {
        false
    }
    /// The run starts, or goes on, at this step.
    fn started(&mut self, step: u64, steps: u64);
    /// One step is done.
    fn stepped(&mut self, step: u64);
    /// A report was written to the log.
    fn reported(&mut self, report: &Report);
    /// A checkpoint was written.
    fn saved(&mut self, checkpoint: &Path);
    /// A checkpoint is damaged, and the run goes on from an older one if there is one.
    fn passed_over(&mut self, _checkpoint: &Path, _reason: &str) {}
    /// Pictures of the run so far were written.
    fn sampled(&mut self, pictures: &Path);
    /// The run has gone back to a checkpoint.
    fn went_back(&mut self, trouble: &Trouble, step: u64);
    /// A picture could not be read, on any of the processes; told each time.
    fn found_bad(&mut self, bad: &BadPicture);
}

/// Nobody watches.
impl Observer for () {
    fn started(&mut self, _step: u64, _steps: u64) {}
    fn stepped(&mut self, _step: u64) {}
    fn reported(&mut self, _report: &Report) {}
    fn saved(&mut self, _checkpoint: &Path) {}
    fn sampled(&mut self, _pictures: &Path) {}
    fn went_back(&mut self, _trouble: &Trouble, _step: u64) {}
    fn found_bad(&mut self, _bad: &BadPicture) {}
}

/// The means of a run since its last report and, on the leading process, its log and events.
pub(crate) struct Log {
    folder: Option<PathBuf>,
    files: Option<Files>,
    sums: Vec<(&'static str, f64, u64)>,
    count: u64,
    since: Instant,
    /// Seconds of training before `since`.
    seconds: f64,
}

/// What the leading process writes.
struct Files {
    path: PathBuf,
    lines: File,
    events: EventFiles,
}

/// The folder of a run's pictures.
const SAMPLES: &str = "samples";

/// The measure that comes first in a report.
const LOSS: &str = "loss";

/// Before the names of what is kept in a checkpoint.
const PREFIX: &str = "log.";

/// The key of a line that tells of a roll-back.
const WENT_BACK: &str = "went_back_to";

impl Log {
    /// Means that go to files in a run's folder, if there is one, once they are open.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        let folder = folder.map(Path::to_owned);
        Self {
            folder,
            files: None,
            sums: Vec::new(),
            count: 0,
            since: Instant::now(),
            seconds: 0.0,
        }
    }

    /// Opens the files and drops what was written after `step`: those steps will be done again.
    pub(crate) fn open(&mut self, step: u64) -> Result<(), TrainingError> {
        self.reopen(step, |line| line["step"].as_u64().is_some_and(|known| known <= step))
    }

    /// Tells that the run goes back to `step` because of some trouble, and drops what was written
    /// after it, save older such lines.
    pub(crate) fn go_back(&mut self, step: u64, trouble: &Trouble) -> Result<(), TrainingError> {
        self.reopen(step, |line| {
            line["step"].as_u64().is_some_and(|known| known <= step)
                || line.get(WENT_BACK).is_some()
        })?;
        let mut line = Map::new();
        line.insert("step".into(), trouble.step.into());
        line.insert(WENT_BACK.into(), step.into());
        line.insert("because".into(), trouble.to_string().into());
        self.append(line)
    }

    fn reopen(&mut self, step: u64, keep: impl Fn(&Value) -> bool) -> Result<(), TrainingError> {
        self.sums.clear();
        self.count = 0;
        self.since = Instant::now();
        self.seconds = 0.0;
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = &folder.join("log.jsonl");
        let error = || TrainingError::file(path);
        let mut kept = String::new();
        if path.exists() {
            let text = std::fs::read(path).map_err(error())?;
            for line in String::from_utf8_lossy(&text).lines() {
                let Ok(values) = serde_json::from_str::<Value>(line) else { continue };
                if keep(&values) {
                    kept.push_str(line);
                    kept.push('\n');
                    self.seconds = values["seconds"].as_f64().unwrap_or(self.seconds);
                }
            }
            files::write_file(path, |file| file.write_all(kept.as_bytes())).map_err(error())?;
        }
        let lines = OpenOptions::new().create(true).append(true).open(path).map_err(error())?;
        let events = EventFiles::open(folder, step)?;
        self.files = Some(Files { path: path.clone(), lines, events });
        Ok(())
    }

    fn append(&mut self, line: Map<String, Value>) -> Result<(), TrainingError> {
        let Some(Files { path, lines, .. }) = &mut self.files else { return Ok(()) };
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        lines.write_all(text.as_bytes()).map_err(TrainingError::file(path))
    }

    /// Adds the measures of a step. Not every step need have the same.
    pub(crate) fn add(&mut self, measures: &Measures) {
        for &(name, value) in measures {
            match self.sums.iter_mut().find(|(known, ..)| *known == name) {
                Some((_, sum, count)) => {
                    *sum += value;
                    *count += 1;
                }
                None => self.sums.push((name, value, 1)),
            }
        }
        self.count += 1;
    }

    /// The means since the last report.
    pub(crate) fn report(&mut self, step: u64, steps: u64, learning_rate: f64) -> Report {
        let mean = |(name, sum, count): (&'static str, f64, u64)| (name, sum / count as f64);
        let mut measures: Measures = self.sums.drain(..).map(mean).collect();
        // Steps that only a discriminator learns in have no loss, and may come before one that has.
        if let Some(place) = measures.iter().position(|(name, _)| *name == LOSS) {
            measures[..=place].rotate_right(1);
        }
        let elapsed = self.since.elapsed().as_secs_f64();
        let steps_per_second = self.count.max(1) as f64 / elapsed.max(1e-9);
        self.count = 0;
        self.seconds += elapsed;
        self.since = Instant::now();
        Report {
            step,
            steps,
            learning_rate,
            measures,
            steps_per_second,
            samples: 0,
            epoch: 0.0,
            seconds: self.seconds,
            alarms: Vec::new(),
            bad_pictures: 0,
        }
    }

    /// Adds what belongs to the next report to a checkpoint's numbers.
    pub(crate) fn save(&self, numbers: &mut BTreeMap<String, f64>) {
        if self.count > 0 {
            numbers.insert(format!("{PREFIX}count"), self.count as f64);
        }
        for (place, (name, sum, count)) in self.sums.iter().enumerate() {
            numbers.insert(format!("{PREFIX}sum.{place:03}.{name}"), *sum);
            numbers.insert(format!("{PREFIX}steps.{place:03}.{name}"), *count as f64);
        }
    }

    /// Takes it from a checkpoint's numbers.
    pub(crate) fn restore(&mut self, numbers: &BTreeMap<String, f64>) {
        let number = |key: String| numbers.get(&key).copied().unwrap_or_default();
        self.count = number(format!("{PREFIX}count")) as u64;
        let sum = format!("{PREFIX}sum.");
        self.sums = numbers
            .range(sum.clone()..)
            .map_while(|(key, &value)| {
                let (place, name) = key.strip_prefix(&sum)?.split_once('.')?;
                let steps = number(format!("{PREFIX}steps.{place}.{name}")) as u64;
                // Names of measures are few and live as long as the program; this is once a run.
                let name: &'static str = name.to_owned().leak();
                Some((name, value, steps))
            })
            .collect();
    }

    /// Lists a bad picture that was met up to `step`.
    pub(crate) fn list_bad(&mut self, step: u64, bad: &BadPicture) -> Result<(), TrainingError> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("bad_picture".into(), bad.name.clone().into());
        line.insert("because".into(), bad.reason.clone().into());
        self.append(line)
    }

    /// Writes pictures of a step. Returns where to, on the leading process.
    pub(crate) fn write_samples(
        &mut self,
        step: u64,
        pictures: &Picture,
    ) -> Result<Option<PathBuf>, TrainingError> {
        let (Some(folder), Some(files)) = (&self.folder, &mut self.files) else { return Ok(None) };
        let folder = folder.join(SAMPLES);
        std::fs::create_dir_all(&folder).map_err(TrainingError::file(&folder))?;
        let path = folder.join(format!("step-{step:08}.png"));
        pictures.write_png(&path)?;
        files.events.add_picture(step, SAMPLES, pictures)?;
        Ok(Some(path))
    }

    /// Writes a report as one line, and as an event.
    pub(crate) fn write(&mut self, report: &Report) -> Result<(), TrainingError> {
        let mut line = Map::new();
        line.insert("step".into(), report.step.into());
        for (name, value) in &report.measures {
            line.insert((*name).into(), (*value).into());
        }
        line.insert("learning_rate".into(), report.learning_rate.into());
        line.insert("steps_per_second".into(), report.steps_per_second.into());
        line.insert("samples".into(), report.samples.into());
        line.insert("epoch".into(), report.epoch.into());
        line.insert("seconds".into(), report.seconds.into());
        if report.bad_pictures > 0 {
            line.insert("bad_pictures".into(), report.bad_pictures.into());
        }
        if !report.alarms.is_empty() {
            let alarms: Vec<&str> = report.alarms.iter().map(|alarm| alarm.what).collect();
            line.insert("alarms".into(), alarms.into());
        }
        self.append(line)?;
        let Some(files) = &mut self.files else { return Ok(()) };
        let rates = [
            ("learning_rate", report.learning_rate),
            ("steps_per_second", report.steps_per_second),
        ];
        files.events.add_numbers(report.step, report.measures.iter().copied().chain(rates))
    }
}
