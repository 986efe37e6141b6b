//! Telling a person how far long work is: a bar on a terminal, plain lines in a log. The only
//! place that prints on standard error.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, IsTerminal, Write},
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use training::{
    guard::Trouble,
    plan::{Plan, Scope},
    telemetry::{Alarm, BadPicture, Observer, Report},
};

use crate::interrupt;

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

/// Whether nobody reads standard output any more, as after `| head`.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// A line on standard output, the command's result. Where nobody reads it, the command goes on without.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    print(format!("{text}\n").as_bytes())
}

/// Bytes on standard output; see [`result`].
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    if UNREAD.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        printed => Ok(printed.context("cannot write to standard output")?),
    }
}

/// When the program began.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Begins to count the time that [`wrote`] tells.
pub(crate) fn start_clock() {
    LazyLock::force(&STARTED);
}

/// The line that closes a command: what it wrote, how many, how long it took, and where it is.
pub(crate) fn wrote(count: usize, what: &str, out: &Path) {
    let plural = if count == 1 { "" } else { "s" };
    closing(&format!("{count} {what}{plural}"), out);
}

/// As [`wrote`], for what is not counted.
pub(crate) fn closing(what: &str, out: &Path) {
    // Whoever closed standard output wants to read no more.
    if UNREAD.load(Ordering::Relaxed) {
        return;
    }
    let mut place = out.display().to_string();
    if out.is_dir() && !place.ends_with('/') {
        place.push('/');
    }
    note(&format!("{what} in {} → {place}", duration(STARTED.elapsed().as_secs_f64())));
}

/// The line that closes a command that has written no file: what it did, how many, and how long it took.
pub(crate) fn did(what: &str, count: usize, of: &str) {
    if UNREAD.load(Ordering::Relaxed) {
        return;
    }
    let plural = if count == 1 { "" } else { "s" };
    note(&format!("{what} {count} {of}{plural} in {}", duration(STARTED.elapsed().as_secs_f64())));
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
        Box::new(TrainingProgress::new(true))
    }
}

/// Seconds as `1 d 2 h`, `2 h 05 min`, `5 min`, `40 s` or `3.8 s`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    // What is not finite becomes a large number that nobody takes for an estimate.
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0 | 1) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number with three digits: `1234`, `123`, `12.3`, `1.23`, `0.0123`, `1.23e-5`.
pub(crate) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.0}").replace("-0", "0");
    }
    let (value, digits) = match magnitude {
        _ if magnitude < 9.995e-4 => return format!("{value:.2e}"),
        _ if magnitude < 9.995e-3 => (value, 5),
        _ if magnitude < 9.995e-2 => (value, 4),
        _ if magnitude < 0.9995 => (value, 3),
        _ if magnitude < 9.995 => (value, 2),
        _ if magnitude < 99.95 => (value, 1),
        _ => (value, 0),
    };
    format!("{value:.digits$}")
}

/// A count with its thousands set apart: `1 234 567`.
pub(crate) fn thousands(count: impl Into<u128>) -> String {
    let digits = count.into().to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for part in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(part.iter().map(|&digit| char::from(digit)));
    }
    text
}

/// What a run is about to do, a line each. The first one is of the whole data set.
pub(crate) fn plan(plan: &Plan) -> Vec<String> {
    let Plan { scope, done, steps, batch, epochs, memory, .. } = plan;
    let Scope { trains, pictures, classes, heldout, image, tokens, parameters, .. } = scope;
    let heldout = heldout
        .map_or_else(String::new, |count| format!(", and {} held out", thousands(count as u128)));
    let available = machine::available_memory()
        .map_or_else(String::new, |bytes| format!(" of {} available", machine::bytes(bytes)));
    let from = if *done > 0 { format!(", from step {done} on") } else { String::new() };
    vec![
        format!("{pictures} pictures in {classes} classes{heldout}"),
        format!("trains     {trains}, {} parameters", thousands(*parameters as u128)),
        format!("pictures   {} x {} pixels, {tokens} tokens each", image.0, image.1),
        format!(
            "steps      {} of {batch} pictures, {} epochs{from}",
            thousands(*steps),
            three_digits(*epochs)
        ),
        format!("memory     about {}{available}", machine::bytes(*memory)),
    ]
}

/// How long steps take, and all of them.
pub(crate) fn pace(seconds: f64, steps: u64) -> String {
    format!(
        "time       about {} for {} steps, {} s each",
        duration(seconds * steps as f64),
        thousands(steps),
        three_digits(seconds)
    )
}

/// Shows a training run.
pub(crate) struct TrainingProgress {
    /// Only one of several processes speaks.
    speaks: bool,
    bar: Option<ProgressBar>,
    bad: BTreeSet<String>,
    /// Alarms that have been told.
    alarms: BTreeSet<&'static str>,
    batch: u64,
    /// When the first step of this process was done, and which one it was.
    first: Option<(Instant, u64)>,
    steps: u64,
    paced: bool,
    explained: bool,
}

/// Most bad pictures that a run tells of; its log lists them all.
const MOST_TOLD: usize = 1000;

/// Measures, and what they are.
const LEGEND: [(&str, &str); 14] = [
    ("loss", "what is minimized"),
    ("reconstruction", "mean squared error of the pictures"),
    ("quantizer", "distance of features from their codes"),
    ("auxiliary", "error of the first row as the prefix rebuilds it"),
    ("perceptual", "distance in a network's eyes"),
    ("adversarial", "how well the discriminator tells them apart"),
    ("explained", "share of the pictures' variance; 0 is the mean picture"),
    ("usage", "share of the codes in use"),
    ("perplexity", "codes in use, as if evenly"),
    ("entropy", "bits a token"),
    ("accuracy", "share of tokens guessed right"),
    ("gradient_norm", "size of the step's gradient"),
    ("heldout_loss", "loss on pictures that are not learned from"),
    ("learning_rate", "of the last step"),
];

impl TrainingProgress {
    pub(crate) fn new(speaks: bool) -> Self {
        Self {
            speaks,
            bar: None,
            bad: BTreeSet::new(),
            alarms: BTreeSet::new(),
            batch: 0,
            first: None,
            steps: 0,
            paced: false,
            explained: false,
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            _ if !self.speaks => {}
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }

    /// Says what a whole run has made.
    pub(crate) fn finish(mut self, steps: u64, time: Duration, folder: &Path) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.line(&format!(
            "{} steps, this time in {} → {}",
            thousands(steps),
            duration(time.as_secs_f64()),
            folder.join("model").display()
        ));
    }
}

impl Observer for TrainingProgress {
    fn planned(&mut self, about: &Plan) {
        self.batch = about.batch as u64;
        for line in plan(about) {
            self.line(&line);
        }
    }

    fn warned(&mut self, warning: &str) {
        self.line(&format!("warning: {warning}"));
    }

    fn wants_to_stop(&self) -> bool {
        interrupt::is_asked()
    }

    fn started(&mut self, step: u64, steps: u64) {
        self.steps = steps;
        if self.speaks
            && let Some(bar) = Progress::new("training", steps).bar.take()
        {
            bar.set_position(step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn stepped(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
        // The first step fills memory and caches, too.
        let (since, first) = *self.first.get_or_insert_with(|| (Instant::now(), step));
        if step == first + 2 && !self.paced {
            self.paced = true;
            let seconds = since.elapsed().as_secs_f64() / 2.0;
            self.line(&pace(seconds, self.steps - first + 1));
        }
    }

    fn reported(&mut self, report: &Report) {
        let Report { step, steps, learning_rate, steps_per_second, .. } = report;
        if !self.explained {
            self.explained = true;
            for (name, meaning) in LEGEND {
                let is_measured = report.measures.iter().any(|(known, _)| *known == name);
                if is_measured || name == "learning_rate" {
                    self.line(&format!("  {name:<16}{meaning}"));
                }
            }
        }
        let left = duration((steps - step) as f64 / steps_per_second);
        let pictures = three_digits(steps_per_second * self.batch as f64);
        let width = steps.to_string().len();
        self.line(&format!(
            "step {step:>width$}/{steps}  epoch {}  {pictures} pictures/s  {left} left",
            three_digits(report.epoch)
        ));
        // Short lines, one below the other.
        let measures = report.measures.iter().copied().chain([("learning_rate", *learning_rate)]);
        let cells: Vec<String> =
            measures.map(|(name, value)| format!("{name} {:<9}", three_digits(value))).collect();
        for cells in cells.chunks(4) {
            self.line(format!("  {}", cells.join(" ")).trim_end());
        }
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
                Some(format!("{name} {}", three_digits(*value)))
            });
            bar.set_message(shown.collect::<Vec<_>>().join("  "));
        }
        for Alarm { what, value, limit } in &report.alarms {
            if !self.alarms.insert(what) {
                continue;
            }
            let (value, limit) = (three_digits(*value), three_digits(*limit));
            let advice = match *what {
                "explained" => {
                    "; the reconstructions are no better than the mean picture: raise the learning \
                     rate or warmup_steps, or train longer"
                }
                "usage" | "perplexity" => {
                    "; most codes are unused: make the batch larger or the codebook smaller"
                }
                _ => "",
            };
            self.line(&format!("warning: {what} is {value}, below {limit}{advice}"));
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

    fn passed_over(&mut self, checkpoint: &Path, reason: &str) {
        self.line(&format!(
            "passed over {}: {reason}; going on from an older checkpoint",
            checkpoint.display()
        ));
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
    use super::{duration, thousands, three_digits};

    #[test]
    fn should_say_how_long_in_the_units_that_matter() {
        let said = [0.4, 59.4, 100.0, 3599.0, 7500.0, 93_600.0].map(duration);
        assert_eq!(said, ["0.4 s", "59 s", "100 s", "59 min", "2 h 05 min", "1 d 2 h"]);
    }

    #[test]
    fn should_say_numbers_with_three_digits() {
        let said = [0.0, -0.0, 1234.5, 123.4, -12.34, 1.2345, 0.12345, 0.0123, 0.00123, 1.234e-5]
            .map(three_digits);
        let expected =
            ["0", "0", "1234", "123", "-12.3", "1.23", "0.123", "0.0123", "0.00123", "1.23e-5"];
        assert_eq!(said, expected);
        assert_eq!([0u64, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1 000", "1 234 567"]);
    }
}
