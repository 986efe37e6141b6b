//! Telling a person how far long work is: a bar on a terminal, plain lines in a log. The only
//! place that prints on standard error.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use training::{
    guard::Trouble,
    telemetry::{Alarm, BadPicture, Observer, Report},
};

/// How often a log gets a line.
const INTERVAL: Duration = Duration::from_secs(10);

/// One paragraph: what, where, what to do.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Transparent errors repeat their source's words.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    note(&format!("error: {text}"));
}

/// A line on standard error.
pub(crate) fn note(text: &str) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line on standard output, the command's result.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// Progress of work whose size is known.
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{prefix} {bar:32} {pos}/{len} {per_sec} eta {eta} {msg}";
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                .with_style(
                    ProgressStyle::with_template(style).expect("the template is well formed"),
                )
                .with_prefix(what)
        });
        let now = Instant::now();
        Self { what, bar, total, started: now, told: now }
    }

    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64();
            note(&format!("{} {done}/{} after {seconds:.0} s", self.what, self.total));
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a result as one JSON object with sorted keys.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    result(&serde_json::to_value(value)?.to_string())
}

/// Shows how far a measurement is.
#[derive(Default)]
pub(crate) struct Watcher {
    current: Option<(&'static str, Progress)>,
}

impl evaluation::Observer for Watcher {
    fn progress(&mut self, what: &'static str, done: u64, total: u64) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != what) {
            self.current = Some((what, Progress::new(what, total)));
        }
        if let Some((_, progress)) = &mut self.current {
            progress.set(done);
        }
        if done >= total
            && let Some((_, progress)) = self.current.take()
        {
            progress.finish();
        }
    }

    fn departure(&mut self, text: &str) {
        note(&format!("NOTE: {text}"));
    }

    fn note(&mut self, text: &str) {
        note(text);
    }
}

impl experiment::Observer for Watcher {
    fn training(&mut self) -> Box<dyn Observer + '_> {
        Box::<TrainingProgress>::default()
    }
}

/// Seconds as `1 d 2 h`, `2 h 05 min`, `5 min` or `40 s`.
fn duration(seconds: f64) -> String {
    // What is not finite becomes a large number that nobody takes for an estimate.
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Shows a training run.
#[derive(Default)]
pub(crate) struct TrainingProgress {
    bar: Option<ProgressBar>,
    bad: BTreeSet<String>,
}

/// Most bad pictures that a run tells of; its log lists them all.
const MOST_TOLD: usize = 1000;

impl TrainingProgress {
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }
}

impl Observer for TrainingProgress {
    fn started(&mut self, step: u64, steps: u64) {
        if step > 0 {
            note(&format!("continuing at step {step} of {steps}"));
        }
        let mut progress = Progress::new("training", steps);
        if let Some(bar) = progress.bar.take() {
            bar.set_position(step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn stepped(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    fn reported(&mut self, report: &Report) {
        let Report { step, steps, learning_rate, steps_per_second, .. } = report;
        let left = duration((steps - step) as f64 / steps_per_second);
        let mut text = format!("step {step}/{steps}  {steps_per_second:.2} steps/s  {left} left");
        for (name, value) in &report.measures {
            text.push_str(&format!("  {name} {value:.4}"));
        }
        text.push_str(&format!("  learning_rate {learning_rate:.2e}"));
        self.line(&text);
        if report.bad_pictures > 0 {
            self.line(&format!(
                "bad pictures so far: {}, listed in log.jsonl",
                report.bad_pictures
            ));
        }
        if let Some(bar) = &self.bar {
            // What fits beside a bar; the lines above have the rest.
            let shown = ["loss", "accuracy", "usage"].into_iter().filter_map(|name| {
                let (_, value) = report.measures.iter().find(|(known, _)| *known == name)?;
                Some(format!("{name} {value:.4}"))
            });
            bar.set_message(shown.collect::<Vec<_>>().join("  "));
        }
        for Alarm { what, value, limit } in &report.alarms {
            self.line(&format!("alarm: {what} is {value:.4}, below {limit:.4}"));
        }
    }

    fn saved(&mut self, checkpoint: &Path) {
        self.line(&format!("saved {}", checkpoint.display()));
    }

    fn found_bad(&mut self, bad: &BadPicture) {
        if self.bad.len() < MOST_TOLD && self.bad.insert(bad.name.clone()) {
            self.line(&format!("bad picture: {}: {}", bad.name, bad.reason));
        }
    }

    fn sampled(&mut self, pictures: &Path) {
        self.line(&format!("drew {}", pictures.display()));
    }

    fn went_back(&mut self, trouble: &Trouble, step: u64) {
        self.line(&format!("{trouble}; going back to step {step}, on with other data"));
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn should_say_how_long_in_the_units_that_matter() {
        let said = [0.4, 59.9, 60.0, 3599.0, 7500.0, 93_600.0].map(duration);
        assert_eq!(said, ["0 s", "59 s", "1 min", "59 min", "2 h 05 min", "1 d 2 h"]);
    }
}
