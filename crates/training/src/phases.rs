//! Phases of a tokenizer's training: what is minimized beside the mean squared error, from which
//! step on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    discriminator::DiscriminatorConfig,
    perceptual::PerceptualNetwork,
    schedule::{LearningRates, OwnRate, Schedule},
    validation::{RecipeError, require},
};

/// From some step on, until the next phase or the end. Before the first phase there is neither a
/// perceptual nor an adversarial loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// First step.
    pub from: u64,
    /// Learning rate at the end of this phase's own warm-up. If not set, the learning rate goes on
    /// as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Learning rate that the cosine reaches when another phase sets its own, or at the end;
    /// `learning_rate` if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_learning_rate: Option<f64>,
    /// Steps of linear warm-up to this phase's `learning_rate`.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Perceptual losses, of the picture and of the auxiliary loss's.
    #[serde(default)]
    pub perceptual: Vec<PerceptualTerm>,
    /// Weight of the adversarial loss, λ in the paper's equation 3.
    #[serde(default)]
    pub adversarial: f64,
}

/// One perceptual loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerceptualTerm {
    /// The network that compares.
    pub network: PerceptualNetwork,
    /// Weight of the mean distance.
    pub weight: f64,
    /// File of its weights, if it is not where it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

/// How the discriminator is trained, by the optimizer settings of the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorRecipe {
    /// Its architecture.
    pub architecture: DiscriminatorConfig,
    /// Its learning rate.
    pub learning_rate: f64,
    /// First step in which it may learn; not after the first step with an adversarial loss.
    pub start: u64,
    /// Of so many steps the last trains the discriminator and the others the tokenizer; 1 trains
    /// both in every step. The codebook follows its features in all of them.
    pub every: u64,
    /// Weight of LeCAM's regularization; 0 for none.
    #[serde(default)]
    pub lecam: f64,
}

/// Who learns in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) tokenizer: bool,
    pub(crate) discriminator: bool,
}

impl DiscriminatorRecipe {
    /// Who learns in a step.
    pub(crate) fn turn(&self, step: u64) -> Turn {
        match step.checked_sub(self.start) {
            None => Turn { tokenizer: true, discriminator: false },
            Some(_) if self.every == 1 => Turn { tokenizer: true, discriminator: true },
            Some(done) => {
                let discriminator = done % self.every == self.every - 1;
                Turn { tokenizer: !discriminator, discriminator }
            }
        }
    }
}

/// The phase that a step belongs to.
pub(crate) fn at(phases: &[Phase], step: u64) -> Option<&Phase> {
    phases.iter().rev().find(|phase| phase.from <= step)
}

impl Phase {
    fn own_rate(&self) -> OwnRate {
        let Self { from, learning_rate, final_learning_rate, warmup_steps, .. } = *self;
        OwnRate { from, peak: learning_rate, last: final_learning_rate, warmup: warmup_steps }
    }
}

/// The learning rate over a run of several phases.
pub(crate) fn learning_rates(schedule: &Schedule, phases: &[Phase]) -> LearningRates {
    LearningRates::of_parts(schedule.learning_rates(), phases.iter().map(Phase::own_rate))
}

/// Checks what the types cannot.
pub(crate) fn validate(
    schedule: &Schedule,
    phases: &[Phase],
    discriminator: Option<&DiscriminatorRecipe>,
) -> Result<(), RecipeError> {
    let rates: Vec<OwnRate> = phases.iter().map(Phase::own_rate).collect();
    OwnRate::validate(&rates, schedule.steps, "phases")?;
    let fine = |value: f64| value >= 0.0 && value.is_finite();
    for phase in phases {
        let terms = &phase.perceptual;
        let weights = terms.iter().map(|term| term.weight).chain([phase.adversarial]);
        require(weights.into_iter().all(fine), "phases", "must have weights of at least 0")?;
    }
    let mut adversarial = phases.iter().filter(|phase| phase.adversarial > 0.0);
    let Some(discriminator) = discriminator else {
        let problem = "is missing: a phase has an adversarial loss";
        return require(adversarial.next().is_none(), "discriminator", problem);
    };
    let DiscriminatorRecipe { architecture, learning_rate, start, every, lecam } = *discriminator;
    if let Some(problem) = architecture.problem() {
        return Err(RecipeError::Value { key: "discriminator.architecture", problem });
    }
    let problem = "must be a number of at least 0";
    require(fine(learning_rate), "discriminator.learning_rate", problem)?;
    require(fine(lecam), "discriminator.lecam", problem)?;
    require(every > 0, "discriminator.every", "must be at least 1")?;
    let problem = "must not be after the first step with an adversarial loss";
    require(adversarial.all(|phase| start <= phase.from), "discriminator.start", problem)?;
    let problem = "must be 1 with a PatchGAN, which normalizes over the whole batch";
    require(schedule.accumulate == 1 || !architecture.joins_pictures(), "accumulate", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_take_turns_from_its_start() {
        let recipe = |every| DiscriminatorRecipe {
            architecture: DiscriminatorConfig::PatchGan { channels: 8, layers: 2 },
            learning_rate: 1e-4,
            start: 3,
            every,
            lecam: 0.0,
        };
        let turns = |every| -> Vec<(bool, bool)> {
            let turn = |step| recipe(every).turn(step);
            (2..8).map(turn).map(|turn| (turn.tokenizer, turn.discriminator)).collect()
        };
        let (tokenizer, discriminator, both) = ((true, false), (false, true), (true, true));
        assert_eq!(turns(1), [tokenizer, both, both, both, both, both]);
        let alternate = [tokenizer, tokenizer, discriminator, tokenizer, discriminator, tokenizer];
        assert_eq!(turns(2), alternate);
        let third = [tokenizer, tokenizer, tokenizer, discriminator, tokenizer, tokenizer];
        assert_eq!(turns(3), third);
    }
}
