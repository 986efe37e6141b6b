//! How long a run trains, how fast, and how often it saves.

use serde::{Deserialize, Serialize};

use crate::{
    guard::GuardConfig,
    validation::{RecipeError, require},
};

/// How long to train, how fast, and how often to save.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Number of optimizer steps.
    pub steps: u64,
    /// Samples a step.
    pub batch: usize,
    /// Micro-batches that each process cuts its part of a step into, one after another in memory;
    /// it changes results by rounding alone.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Seed of initial values, data order, augmentation and dropout.
    pub seed: u64,
    /// Learning rate at the end of the warm-up.
    pub learning_rate: f64,
    /// Learning rate that the cosine reaches after the last step.
    pub final_learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Number of checkpoints to keep.
    pub keep_checkpoints: usize,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between pictures in `samples/`, if there are to be any: a tokenizer's reconstructions
    /// of some pictures, a generator's samples of some classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_every: Option<u64>,
    /// Steps between evaluations on held-out data, if there are any; every one belongs to a
    /// checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// Whether the checkpoint with the smallest held-out loss is kept as well, and its model in
    /// `best/`.
    #[serde(default)]
    pub keep_best: bool,
    /// How slowly a moving average of the parameters follows them. Where it is set, the average is
    /// what is evaluated and exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Precision of matrix products.
    #[serde(default)]
    pub precision: ComputePrecision,
    /// Whether transformer blocks keep nothing but their inputs for the backward pass and compute
    /// the rest again: a third more work, and far less memory.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// What to do when a loss is no number any more, or spikes.
    #[serde(default)]
    pub guard: GuardConfig,
}

/// In which precision linear layers multiply. Parameters, their gradients and moments, softmax,
/// norms, quantizer and losses have single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputePrecision {
    /// Single precision.
    #[default]
    F32,
    /// Inputs, weights and results of linear layers, and the gradients of each, are rounded to
    /// bfloat16.
    Bf16,
}

fn one() -> usize {
    1
}

impl Schedule {
    /// The learning rate over a run without phases.
    pub fn learning_rates(&self) -> WarmupCosine {
        WarmupCosine {
            peak: self.learning_rate,
            last: self.final_learning_rate,
            warmup: self.warmup_steps,
            steps: self.steps,
        }
    }

    /// What is allowed and probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        let Self { steps, warmup_steps, learning_rate, final_learning_rate, .. } = *self;
        let mut warnings = Vec::new();
        if learning_rate == 0.0 && final_learning_rate == 0.0 {
            warnings.push("the learning rate is 0 throughout: nothing is learned".to_owned());
        } else if warmup_steps >= steps {
            warnings.push(format!(
                "the learning rate rises for {warmup_steps} steps (warmup_steps) and the run ends at \
                 step {steps}: it never reaches {learning_rate}; set warmup_steps to at most {}",
                steps / 10
            ));
        }
        warnings
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<(), RecipeError> {
        let rate = |value: f64| value >= 0.0 && value.is_finite();
        require(self.steps > 0, "steps", "must be at least 1")?;
        require(self.batch > 0, "batch", "must be at least 1")?;
        require(
            self.accumulate > 0 && self.batch.is_multiple_of(self.accumulate),
            "accumulate",
            "must be at least 1 and divide `batch`",
        )?;
        require(self.checkpoint_every > 0, "checkpoint_every", "must be at least 1")?;
        require(self.keep_checkpoints > 0, "keep_checkpoints", "must be at least 1")?;
        require(self.log_every > 0, "log_every", "must be at least 1")?;
        require(
            self.checkpoint_every.is_multiple_of(self.log_every),
            "checkpoint_every",
            "must be a multiple of `log_every`, so that a resumed run logs the same means",
        )?;
        require(
            self.samples_every.is_none_or(|every| every > 0),
            "samples_every",
            "must be at least 1",
        )?;
        require(rate(self.learning_rate), "learning_rate", "must be a number of at least 0")?;
        let last = rate(self.final_learning_rate);
        require(last, "final_learning_rate", "must be a number of at least 0")?;
        require(
            self.evaluate_every
                .is_none_or(|every| every > 0 && every.is_multiple_of(self.checkpoint_every)),
            "evaluate_every",
            "must be a multiple of `checkpoint_every`",
        )?;
        require(
            !self.keep_best || self.evaluate_every.is_some(),
            "keep_best",
            "needs `evaluate_every`, which says how often to look for the best",
        )?;
        let fraction = |value: f64| (0.0..1.0).contains(&value);
        require(
            self.ema_decay.is_none_or(fraction),
            "ema_decay",
            "must be at least 0 and below 1",
        )?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        require(self.guard.spike.is_none_or(positive), "guard.spike", "must be above 0")
    }
}

/// Linear warm-up, then a half cosine down to the final rate (paper, 4.1, following RAR;
/// released code, `utils/lr_schedulers.py`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Rate that the cosine reaches after the last step.
    pub last: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
}

impl WarmupCosine {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let decay = (self.steps.saturating_sub(self.warmup)).max(1);
        let progress = ((step - self.warmup) as f64 / decay as f64).min(1.0);
        let weight = (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
        self.last + (self.peak - self.last) * weight
    }
}

/// The learning rate of a part of a run, where it has one of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OwnRate {
    /// First step of the part.
    pub(crate) from: u64,
    /// Rate at the end of the warm-up; without it, the rate goes on as before.
    pub(crate) peak: Option<f64>,
    /// Rate that the cosine reaches when another part sets its own, or at the end; `peak` if not set.
    pub(crate) last: Option<f64>,
    /// Steps of linear warm-up.
    pub(crate) warmup: u64,
}

impl OwnRate {
    /// Checks the parts of a run, which the recipe calls `key`.
    pub(crate) fn validate(
        parts: &[Self],
        steps: u64,
        key: &'static str,
    ) -> Result<(), RecipeError> {
        let fine = |value: f64| value >= 0.0 && value.is_finite();
        let ascending = parts.windows(2).all(|pair| pair[0].from < pair[1].from);
        require(ascending, key, "must begin one after another: let `from` rise")?;
        let within = parts.iter().all(|part| part.from < steps);
        let problem = "must all begin before the last step: lower `from` or raise `steps`";
        require(within, key, problem)?;
        for part in parts {
            let rates = [part.peak, part.last];
            let problem = "must have learning rates of at least 0";
            require(rates.into_iter().flatten().all(fine), key, problem)?;
            let alone = part.last.is_some() || part.warmup > 0;
            let problem = "must have a `learning_rate` where they have a final one or a warm-up";
            require(part.peak.is_some() || !alone, key, problem)?;
        }
        Ok(())
    }
}

/// The learning rate over a run: one schedule after another.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRates {
    /// First step of each, in order; the first begins with the run.
    parts: Vec<(u64, WarmupCosine)>,
}

impl LearningRates {
    /// A schedule of the whole run, and those that take over from some step on, in order. Each
    /// ends where the next begins, the last with the run.
    pub fn new(whole: WarmupCosine, later: impl IntoIterator<Item = (u64, WarmupCosine)>) -> Self {
        let mut parts = vec![(0, whole)];
        for (first, schedule) in later {
            parts.retain(|(known, _)| *known != first);
            parts.push((first, schedule));
        }
        let mut end = whole.steps;
        for (first, schedule) in parts.iter_mut().rev() {
            schedule.steps = end - *first;
            end = *first;
        }
        Self { parts }
    }

    /// The schedule of the whole run, and those of its parts.
    pub(crate) fn of_parts(whole: WarmupCosine, parts: impl IntoIterator<Item = OwnRate>) -> Self {
        let own = |OwnRate { from, peak, last, warmup }| {
            let peak = peak?;
            let last = last.unwrap_or(peak);
            Some((from, WarmupCosine { peak, last, warmup, steps: 0 }))
        };
        Self::new(whole, parts.into_iter().filter_map(own))
    }

    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let part = self.parts.iter().rev().find(|(first, _)| *first <= step);
        let (first, schedule) = part.expect("the first schedule begins with the run");
        schedule.rate(step - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_let_each_schedule_end_where_the_next_begins() {
        let schedule = |peak, last, warmup| WarmupCosine { peak, last, warmup, steps: 100 };
        let whole = schedule(4.0, 2.0, 10);
        let alone = LearningRates::new(whole, []);
        assert!((0..=100).all(|step| alone.rate(step) == whole.rate(step)));

        let later = [(40, schedule(1.0, 1.0, 0)), (60, schedule(3.0, 0.0, 20))];
        let rates = LearningRates::new(whole, later);
        assert_eq!([0, 5, 10].map(|step| rates.rate(step)), [0.0, 2.0, 4.0]);
        // Half way of the thirty steps after the warm-up, and nearly at their end.
        assert_eq!(rates.rate(25), 3.0);
        assert!(rates.rate(39) > 2.0 && rates.rate(39) < 2.01);
        assert_eq!([40, 59, 60, 70, 80].map(|step| rates.rate(step)), [1.0, 1.0, 0.0, 1.5, 3.0]);
        assert!(rates.rate(99) < 0.02 && rates.rate(100) < 1e-12);
        // One from the start on stands in place of the whole run's.
        let other = LearningRates::new(whole, [(0, schedule(1.0, 1.0, 0))]);
        assert_eq!(other.rate(50), 1.0);
    }
}
