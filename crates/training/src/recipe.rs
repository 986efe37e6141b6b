//! Recipes: files that say all of a run, its command and its expected result included.

use ::generator::SamplingConfig;
use pixels::augment::Augmentation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokenizer::{
    DecoderConfig, TokenizerConfig,
    reference::{ClusteringConfig, Positions},
};

use crate::{
    guard::{CodebookAlarms, GuardConfig},
    losses::StageOneLoss,
    optimizer::AdamWConfig,
    phases::{self, DiscriminatorRecipe, Phase},
    schedule::{LearningRates, WarmupCosine},
    settings::{self, SettingsError},
};

/// Which of the three trainings a recipe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Encoder, codebook and first decoder.
    StageOne,
    /// The bidirectional decoder.
    StageTwo,
    /// The generator.
    Generator,
}

/// A recipe of this repository: its name, its training and its text.
macro_rules! bundled {
    ($name:literal, $training:ident, $file:literal) => {
        (
            $name,
            Training::$training,
            include_str!(concat!("../../../recipes/", $name, "/", $file, ".toml")),
        )
    };
}

/// Recipes that the program carries: name, training, text.
pub const BUNDLED: &[(&str, Training, &str)] = &[
    bundled!("figure-2", StageOne, "tokenizer_stage_1"),
    bundled!("fine-tune", Generator, "generator"),
    bundled!("mini", StageOne, "tokenizer_stage_1"),
    bundled!("mini", StageTwo, "tokenizer_stage_2"),
    bundled!("mini", Generator, "generator"),
    bundled!("mini-4096", StageOne, "tokenizer_stage_1"),
    bundled!("mini-4096", StageTwo, "tokenizer_stage_2"),
    bundled!("mini-4096", Generator, "generator"),
    bundled!("mini-sharp", StageTwo, "tokenizer_stage_2"),
    bundled!("paper", StageOne, "tokenizer_stage_1"),
    bundled!("paper", StageTwo, "tokenizer_stage_2"),
    bundled!("paper-16384", StageOne, "tokenizer_stage_1"),
    bundled!("paper-16384", StageTwo, "tokenizer_stage_2"),
    bundled!("paper-512", StageOne, "tokenizer_stage_1"),
    bundled!("paper-512", StageTwo, "tokenizer_stage_2"),
    bundled!("paper-512", Generator, "generator"),
    bundled!("paper-b", Generator, "generator"),
    bundled!("paper-b-400", Generator, "generator"),
    bundled!("paper-l", Generator, "generator"),
    bundled!("paper-l-400", Generator, "generator"),
    bundled!("paper-xl", Generator, "generator"),
    bundled!("paper-xl-16384", Generator, "generator"),
    bundled!("quick", StageOne, "tokenizer_stage_1"),
    bundled!("quick", StageTwo, "tokenizer_stage_2"),
    bundled!("quick", Generator, "generator"),
    bundled!("table-3", Generator, "generator"),
    bundled!("table-3-a", StageOne, "tokenizer_stage_1"),
    bundled!("table-3-b", StageOne, "tokenizer_stage_1"),
    bundled!("table-3-c", StageOne, "tokenizer_stage_1"),
    bundled!("table-3-d", StageOne, "tokenizer_stage_1"),
];

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It cannot be read, or has other settings than a recipe.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A value that makes no sense.
    #[error("recipe: `{key}` {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

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

    fn validate(&self) -> Result<(), RecipeError> {
        let rate = |value: f64| value >= 0.0 && value.is_finite();
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

/// A complete description of one training.
pub trait Recipe: Serialize + DeserializeOwned {
    /// Which training it describes.
    const TRAINING: Training;

    /// Its schedule.
    fn schedule(&self) -> &Schedule;

    /// The learning rate over the run.
    fn learning_rates(&self) -> LearningRates {
        LearningRates::new(self.schedule().learning_rates(), [])
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first value that makes no sense.
    fn validate(&self) -> Result<(), RecipeError>;
}

/// An error unless `value` is fine.
pub(crate) fn require(
    fine: bool,
    key: &'static str,
    problem: &'static str,
) -> Result<(), RecipeError> {
    if fine { Ok(()) } else { Err(RecipeError::Value { key, problem }) }
}

fn validate_optimizer(optimizer: &AdamWConfig) -> Result<(), RecipeError> {
    let fraction = |value: f64| (0.0..1.0).contains(&value);
    let positive = |value: f64| value > 0.0 && value.is_finite();
    require(fraction(optimizer.beta_1), "optimizer.beta_1", "must be at least 0 and below 1")?;
    require(fraction(optimizer.beta_2), "optimizer.beta_2", "must be at least 0 and below 1")?;
    require(positive(optimizer.epsilon), "optimizer.epsilon", "must be above 0")?;
    let decay = optimizer.weight_decay;
    require(decay >= 0.0 && decay.is_finite(), "optimizer.weight_decay", "must be at least 0")?;
    require(optimizer.clip.is_none_or(positive), "optimizer.clip", "must be above 0")
}

fn validate_augmentation(augmentation: &Augmentation) -> Result<(), RecipeError> {
    let problem = "must have a smallest_area above 0 and at most 1";
    require(augmentation.crop.is_valid(), "augmentation.crop", problem)
}

/// Recipe of the tokenizer's first stage (paper, 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageOneRecipe {
    /// Steps, batch, learning rate.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// How position tables begin.
    pub positions: Positions,
    /// The view of a picture that a step sees.
    pub augmentation: Augmentation,
    /// The codebook's online clustering.
    pub clustering: ClusteringConfig,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Weights of the loss's terms.
    pub loss: StageOneLoss,
    /// Perceptual and adversarial losses and their learning rates, from which step on.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// The discriminator, where a phase has an adversarial loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<DiscriminatorRecipe>,
    /// When the codebook's use is a reason for an alarm.
    #[serde(default)]
    pub alarms: CodebookAlarms,
    /// The tokenizer, with the decoder that is trained now and no other.
    pub architecture: TokenizerConfig,
}

/// Recipe of the tokenizer's second stage (paper, 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageTwoRecipe {
    /// Steps, batch, learning rate.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// How position tables begin.
    pub positions: Positions,
    /// The view of a picture that a step sees.
    pub augmentation: Augmentation,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Perceptual and adversarial losses and their learning rates, from which step on.
    #[serde(default)]
    pub phases: Vec<Phase>,
    /// The discriminator, where a phase has an adversarial loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discriminator: Option<DiscriminatorRecipe>,
    /// The bidirectional decoder; the rest of the architecture comes from the first stage.
    pub decoder: DecoderConfig,
}

/// Size of a generator; the rest of its architecture comes from the token cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSize {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
}

/// Recipe of the generator (paper, 3.3 and 4.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratorRecipe {
    /// Steps, batch, learning rate.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Probability of dropping a value inside the model.
    pub dropout: f64,
    /// Probability of replacing a class by the unconditional one.
    pub class_dropout: f64,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Size of the generator.
    pub architecture: GeneratorSize,
    /// What the model folder recommends for sampling.
    pub sampling: SamplingConfig,
}

impl Recipe for StageOneRecipe {
    const TRAINING: Training = Training::StageOne;
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
    fn learning_rates(&self) -> LearningRates {
        phases::learning_rates(&self.schedule, &self.phases)
    }
    fn validate(&self) -> Result<(), RecipeError> {
        self.schedule.validate()?;
        validate_optimizer(&self.optimizer)?;
        validate_augmentation(&self.augmentation)?;
        phases::validate(&self.schedule, &self.phases, self.discriminator.as_ref())?;
        let decay = self.clustering.decay;
        require((0.0..1.0).contains(&decay), "clustering.decay", "must be at least 0 and below 1")?;
        let CodebookAlarms { usage, perplexity } = self.alarms;
        let fine = [usage, perplexity].iter().all(|part| (0.0..=1.0).contains(part));
        require(fine, "alarms", "must be fractions from 0 to 1")?;
        let StageOneLoss { reconstruction, quantizer, auxiliary } = self.loss;
        let weights = [reconstruction, quantizer, auxiliary];
        let fine = weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
        require(fine, "loss", "must have weights of at least 0")
    }
}

impl Recipe for StageTwoRecipe {
    const TRAINING: Training = Training::StageTwo;
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
    fn learning_rates(&self) -> LearningRates {
        phases::learning_rates(&self.schedule, &self.phases)
    }
    fn validate(&self) -> Result<(), RecipeError> {
        self.schedule.validate()?;
        validate_optimizer(&self.optimizer)?;
        validate_augmentation(&self.augmentation)?;
        phases::validate(&self.schedule, &self.phases, self.discriminator.as_ref())?;
        let problem = "must be false: the second stage has no auxiliary loss that would train it";
        require(!self.decoder.prefix_head, "decoder.prefix_head", problem)
    }
}

impl Recipe for GeneratorRecipe {
    const TRAINING: Training = Training::Generator;
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
    fn validate(&self) -> Result<(), RecipeError> {
        self.schedule.validate()?;
        validate_optimizer(&self.optimizer)?;
        let problem = "must be at least 0 and below 1";
        require((0.0..1.0).contains(&self.dropout), "dropout", problem)?;
        let problem = "must be from 0 to 1";
        require((0.0..=1.0).contains(&self.class_dropout), "class_dropout", problem)?;
        require(self.sampling.validate().is_ok(), "sampling", "has a value out of range")
    }
}

/// Reads a recipe, a bundled one by name or a file, and changes single settings in it.
///
/// `overrides` are assignments such as `steps=100` or `optimizer.clip=1.0`.
///
/// # Errors
/// If there is no such recipe, a setting is unknown (with the nearest known one), or a value
/// makes no sense.
pub fn read<R: Recipe>(name: &str, overrides: &[String]) -> Result<R, RecipeError> {
    let bundled: Vec<_> = BUNDLED
        .iter()
        .filter(|(_, training, _)| *training == R::TRAINING)
        .map(|&(name, _, text)| (name, text))
        .collect();
    let recipe: R = settings::read("recipe", name, &bundled, overrides)?;
    recipe.validate()?;
    Ok(recipe)
}
