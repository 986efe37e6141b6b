//! Shows how far a training is.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use training::{
    guard::Trouble,
    plan::{Plan, Scope},
    telemetry::{Alarm, BadPicture, Observer, Report},
};

use crate::{
    interrupt,
    progress::{Progress, duration, note, thousands, three_digits},
};

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
            && let Some(bar) = Progress::new("training", steps).into_bar()
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
