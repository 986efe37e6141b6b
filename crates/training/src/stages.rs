//! Stages of a language model's training: which half of it learns, and how fast, from which step on.

use serde::{Deserialize, Serialize};

use crate::{
    schedule::{LearningRates, OwnRate, Schedule},
    validation::{RecipeError, require},
};

/// From some step on, until the next stage or the end. Without stages, or before the first, both
/// halves learn at the run's learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// First step.
    pub from: u64,
    /// Learning rate of the language model, as a multiple of the run's; 0 leaves it as it is.
    pub language: f64,
    /// Learning rate of the image side, adaptor and head, as a multiple of the run's; 0 leaves it as
    /// it is.
    pub image_side: f64,
    /// Learning rate at the end of this stage's own warm-up. If not set, the learning rate goes on
    /// as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Learning rate that the cosine reaches when another stage sets its own, or at the end;
    /// `learning_rate` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_learning_rate: Option<f64>,
    /// Steps of linear warm-up to this stage's `learning_rate`.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Stage {
    /// Both halves at the run's learning rate.
    const ALL: Self = Self {
        from: 0,
        language: 1.0,
        image_side: 1.0,
        learning_rate: None,
        final_learning_rate: None,
        warmup_steps: 0,
    };

    fn own_rate(&self) -> OwnRate {
        let Self { from, learning_rate, final_learning_rate, warmup_steps, .. } = *self;
        OwnRate { from, peak: learning_rate, last: final_learning_rate, warmup: warmup_steps }
    }
}

/// The stage that a step belongs to.
pub(crate) fn at(stages: &[Stage], step: u64) -> Stage {
    stages.iter().rev().find(|stage| stage.from <= step).copied().unwrap_or(Stage::ALL)
}

/// The learning rate over a run of several stages.
pub(crate) fn learning_rates(schedule: &Schedule, stages: &[Stage]) -> LearningRates {
    LearningRates::of_parts(schedule.learning_rates(), stages.iter().map(Stage::own_rate))
}

/// Checks what the types cannot.
pub(crate) fn validate(schedule: &Schedule, stages: &[Stage]) -> Result<(), RecipeError> {
    let rates: Vec<OwnRate> = stages.iter().map(Stage::own_rate).collect();
    OwnRate::validate(&rates, schedule.steps, "stages")?;
    for stage in stages {
        let factors = [stage.language, stage.image_side];
        let fine = factors.iter().all(|factor| *factor >= 0.0 && factor.is_finite());
        require(
            fine,
            "stages",
            "must have multiples of at least 0 for `language` and `image_side`",
        )?;
        let problem = "must each train something: let `language` or `image_side` be above 0";
        require(factors.iter().any(|factor| *factor > 0.0), "stages", problem)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_the_stage_of_a_step() {
        let stage = |from, language| Stage { from, language, ..Stage::ALL };
        let stages = [stage(2, 0.0), stage(5, 0.5)];
        let of = |step| at(&stages, step).language;
        assert_eq!([0, 1, 2, 4, 5, 9].map(of), [1.0, 1.0, 0.0, 0.0, 0.5, 0.5]);
        assert_eq!(at(&[], 3), Stage::ALL);
    }
}
