//! Watching a run's measures: trouble that a run goes back from, and alarms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measures::Measures;

/// What counts as trouble, and how often a run may go back to its last checkpoint because of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// How often a run may go back; the next trouble ends it.
    pub rollbacks: u64,
    /// A loss so many standard deviations above its recent mean is a spike. If not set, only
    /// measures that are no numbers any more are trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike: Option<f64>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self { rollbacks: 3, spike: None }
    }
}

/// Why a run goes back to its last checkpoint, or ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// The step, counted from 1.
    pub step: u64,
    /// The measure.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// For a spike, what is usual.
    pub spike: Option<f64>,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, what, value, .. } = self;
        write!(f, "{what} is {value} at step {step}")?;
        match self.spike {
            None => Ok(()),
            Some(usual) => write!(f, ", a spike over the recent {usual:.4}"),
        }
    }
}

/// Mean and variance of a loss over recent steps, older ones weighing less.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Statistic {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Statistic {
    /// Weight of all older steps against a new one: a memory of about fifty steps.
    const DECAY: f64 = 0.98;
    /// Losses to see before judging.
    const ENOUGH: f64 = 50.0;

    fn follow(&mut self, value: f64) {
        let new = if self.count == 0.0 { 1.0 } else { 1.0 - Self::DECAY };
        let distance = value - self.mean;
        self.mean += new * distance;
        self.variance = (1.0 - new) * (self.variance + new * distance * distance);
        self.count += 1.0;
    }

    fn is_spike(&self, value: f64, deviations: f64) -> bool {
        self.count >= Self::ENOUGH && value > self.mean + deviations * self.variance.sqrt()
    }
}

/// Judges the measures of each step.
///
/// Losses of different terms are not compared: steps that measure different things, as where an
/// adversarial loss begins or takes turns, have statistics of their own.
#[derive(Debug)]
pub(crate) struct Guard {
    config: GuardConfig,
    statistics: BTreeMap<String, Statistic>,
}

/// Before the names of statistics in a checkpoint.
const PREFIX: &str = "guard.";

impl Guard {
    /// A guard that has seen nothing yet.
    pub(crate) fn new(config: GuardConfig) -> Self {
        Self { config, statistics: BTreeMap::new() }
    }

    /// What is wrong with a step's measures, if anything.
    pub(crate) fn judge(&mut self, step: u64, measures: &Measures) -> Option<Trouble> {
        let trouble = |what, value, spike| Some(Trouble { step: step + 1, what, value, spike });
        if let Some((what, value)) = measures.iter().find(|(_, value)| !value.is_finite()) {
            return trouble(*what, *value, None);
        }
        let (Some(deviations), Some((what, loss))) = (self.config.spike, measures.first()) else {
            return None;
        };
        let names: Vec<&str> = measures.iter().map(|(name, _)| *name).collect();
        let statistic = self.statistics.entry(names.join(",")).or_default();
        if statistic.is_spike(*loss, deviations) {
            return trouble(*what, *loss, Some(statistic.mean));
        }
        statistic.follow(*loss);
        None
    }

    /// Adds what it remembers to a checkpoint's numbers.
    pub(crate) fn save(&self, numbers: &mut BTreeMap<String, f64>) {
        for (names, statistic) in &self.statistics {
            let Statistic { count, mean, variance } = *statistic;
            for (part, value) in [("count", count), ("mean", mean), ("variance", variance)] {
                numbers.insert(format!("{PREFIX}{part}.{names}"), value);
            }
        }
    }

    /// Remembers what a checkpoint's numbers say, and nothing else.
    pub(crate) fn restore(&mut self, numbers: &BTreeMap<String, f64>) {
        self.statistics.clear();
        for (key, &value) in numbers {
            let Some((part, names)) = key.strip_prefix(PREFIX).and_then(|key| key.split_once('.'))
            else {
                continue;
            };
            let statistic = self.statistics.entry(names.to_owned()).or_default();
            match part {
                "count" => statistic.count = value,
                "mean" => statistic.mean = value,
                _ => statistic.variance = value,
            }
        }
    }
}

/// When a codebook's use is a reason for an alarm, as fractions of what a step could use: all
/// codes, or as many as a step has tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookAlarms {
    /// Smallest fraction of codes that a step should choose at all.
    pub usage: f64,
    /// Smallest perplexity of the chosen codes: the exponential of their entropy, that is how many
    /// codes are used as if evenly.
    pub perplexity: f64,
}

impl Default for CodebookAlarms {
    fn default() -> Self {
        Self { usage: 0.05, perplexity: 0.01 }
    }
}

impl CodebookAlarms {
    /// The smallest healthy values of the measures `usage` and `perplexity`.
    pub(crate) fn limits(&self, codes: usize, tokens: usize) -> Vec<(&'static str, f64)> {
        let reachable = codes.min(tokens) as f64;
        vec![
            ("usage", self.usage * reachable / codes as f64),
            ("perplexity", self.perplexity * reachable),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(guard: &mut Guard, loss: f64) -> Option<Trouble> {
        guard.judge(7, &vec![("loss", loss), ("usage", 0.5)])
    }

    fn wave(step: u64) -> f64 {
        1.0 + 0.1 * (step as f64).sin()
    }

    #[test]
    fn should_tell_spikes_from_noise_and_remember_over_a_checkpoint() {
        let mut guard = Guard::new(GuardConfig { rollbacks: 1, spike: Some(6.0) });
        // Too early to judge, and forgotten when it is not.
        assert_eq!(judge(&mut guard, 30.0), None);
        for step in 0..800 {
            assert_eq!(judge(&mut guard, wave(step)), None, "step {step}");
        }
        let mut numbers = BTreeMap::from([("updates".to_owned(), 3.0)]);
        guard.save(&mut numbers);
        let mut resumed = Guard::new(guard.config);
        resumed.restore(&numbers);
        assert_eq!(resumed.statistics, guard.statistics);
        let trouble = judge(&mut resumed, 2.0).expect("a spike");
        assert_eq!((trouble.step, trouble.what, trouble.value), (8, "loss", 2.0));
        // A fall is none, and other terms are another loss.
        assert_eq!(judge(&mut guard, 0.1), None);
        assert_eq!(guard.judge(8, &vec![("loss", 5.0), ("adversarial", 4.0)]), None);
    }

    #[test]
    fn should_notice_what_is_no_number_in_any_measure() {
        let mut guard = Guard::new(GuardConfig::default());
        assert_eq!(judge(&mut guard, 1e30), None);
        assert!(judge(&mut guard, f64::NAN).is_some());
        let trouble = guard.judge(0, &vec![("loss", 1.0), ("gradient_norm", f64::INFINITY)]);
        assert_eq!(trouble.expect("trouble").what, "gradient_norm");
    }

    #[test]
    fn should_ask_no_more_of_a_codebook_than_a_step_can_use() {
        let alarms = CodebookAlarms { usage: 0.5, perplexity: 0.25 };
        assert_eq!(alarms.limits(100, 1000), [("usage", 0.5), ("perplexity", 25.0)]);
        assert_eq!(alarms.limits(100, 40), [("usage", 0.2), ("perplexity", 10.0)]);
    }
}
