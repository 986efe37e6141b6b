//! What a run tells while it goes on: lines of JSON in a file, and an observer.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::{Map, Value};

use crate::TrainingError;

/// Named numbers of a step, or their means over several.
pub type Measures = Vec<(&'static str, f64)>;

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
}

/// Somebody who watches a run.
pub trait Observer {
    /// The run starts, or goes on, at this step.
    fn started(&mut self, step: u64, steps: u64);
    /// One step is done.
    fn stepped(&mut self, step: u64);
    /// A report was written to the log.
    fn reported(&mut self, report: &Report);
    /// A checkpoint was written.
    fn saved(&mut self, checkpoint: &Path);
}

/// The means of a run since its last report and, on the leading process, its log.
pub(crate) struct Log {
    file: Option<LogFile>,
    sums: Vec<(&'static str, f64)>,
    count: u64,
    since: Instant,
}

/// `log.jsonl`.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens a log and drops what was written after `step`: those steps will be done again.
    fn open(path: &Path, step: u64) -> Result<Self, TrainingError> {
        let error = || TrainingError::file(path);
        let mut kept = String::new();
        if path.exists() {
            let text = std::fs::read(path).map_err(error())?;
            for line in String::from_utf8_lossy(&text).lines() {
                let known = serde_json::from_str::<Map<String, Value>>(line)
                    .ok()
                    .and_then(|line| line.get("step")?.as_u64());
                if known.is_some_and(|known| known <= step) {
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
            tokens::files::write_file(path, |file| file.write_all(kept.as_bytes()))
                .map_err(error())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(error())?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(&mut self, line: Map<String, Value>) -> Result<(), TrainingError> {
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(TrainingError::file(&self.path))
    }
}

impl Log {
    /// Means that go to a file after `step`, if there is one.
    pub(crate) fn new(file: Option<(&Path, u64)>) -> Result<Self, TrainingError> {
        let file = file.map(|(path, step)| LogFile::open(path, step)).transpose()?;
        Ok(Self { file, sums: Vec::new(), count: 0, since: Instant::now() })
    }

    pub(crate) fn add(&mut self, measures: &Measures) {
        if self.count == 0 {
            self.sums.clone_from(measures);
        } else {
            for ((_, sum), (_, value)) in self.sums.iter_mut().zip(measures) {
                *sum += value;
            }
        }
        self.count += 1;
    }

    pub(crate) fn report(
        &mut self,
        step: u64,
        steps: u64,
        learning_rate: f64,
    ) -> Result<Report, TrainingError> {
        let count = self.count.max(1) as f64;
        let measures = self.sums.drain(..).map(|(name, sum)| (name, sum / count)).collect();
        let steps_per_second = count / self.since.elapsed().as_secs_f64().max(1e-9);
        self.count = 0;
        self.since = Instant::now();
        let report = Report { step, steps, learning_rate, measures, steps_per_second };
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        for (name, value) in &report.measures {
            line.insert((*name).into(), (*value).into());
        }
        line.insert("learning_rate".into(), learning_rate.into());
        line.insert("steps_per_second".into(), steps_per_second.into());
        if let Some(file) = &mut self.file {
            file.write(line)?;
        }
        Ok(report)
    }
}
