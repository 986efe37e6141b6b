//! Recipes: files that say all of a run, its command and its expected result included.

use std::path::{Path, PathBuf};

use generator::SamplingConfig;
use language::{MOST_PROMPT_IDS, PicturePositions, TextTokenizer};
use pixels::augment::Augmentation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokenizer::{
    DecoderConfig, TokenizerConfig,
    reference::{ClusteringConfig, Positions, Weights},
};

use crate::{
    guard::CodebookAlarms,
    losses::StageOneLoss,
    optimizer::AdamWConfig,
    phases::{self, DiscriminatorRecipe, Phase},
    schedule::{LearningRates, Schedule},
    stages::{self, Stage},
    validation::require,
};

pub use crate::validation::RecipeError;

/// Which training a recipe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Encoder, codebook and first decoder.
    StageOne,
    /// The bidirectional decoder.
    StageTwo,
    /// The generator.
    Generator,
    /// A language model that reads prompts.
    Text,
}

impl Training {
    const ALL: [Self; 4] = [Self::StageOne, Self::StageTwo, Self::Generator, Self::Text];

    /// What it makes, in words.
    const fn describe(self) -> &'static str {
        match self {
            Self::StageOne => "a tokenizer's stage 1",
            Self::StageTwo => "a tokenizer's stage 2",
            Self::Generator => "a generator",
            Self::Text => "a text model",
        }
    }

    /// The name of its recipe in a folder of recipes, without the extension.
    pub const fn file_stem(self) -> &'static str {
        match self {
            Self::StageOne => "tokenizer_stage_1",
            Self::StageTwo => "tokenizer_stage_2",
            Self::Generator => "generator",
            Self::Text => "text",
        }
    }
}

/// All files in the folder `recipes`: path without extension, and text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// Recipes that the program carries, by name: `recipes/NAME/FILE.toml` of this repository, whose
/// file says which training it is for.
pub fn bundled() -> impl Iterator<Item = (&'static str, Training, &'static str)> {
    FILES.iter().filter_map(|&(path, text)| {
        let (name, file) = path.split_once('/')?;
        let training = Training::ALL.into_iter().find(|training| training.file_stem() == file)?;
        Some((name, training, text))
    })
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
    /// How the weights of linear layers begin.
    #[serde(default)]
    pub weights: Weights,
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
    /// How the weights of linear layers begin.
    #[serde(default)]
    pub weights: Weights,
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

/// Size of a language model that begins at random; the rest of its architecture comes from the token
/// cache, its vocabulary from the captions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageSize {
    /// Ids of text, those of the bytes and the control tokens included. Those that the captions are too
    /// few for are not used.
    pub vocabulary: usize,
    /// Width of a token, and of what is hidden in adaptor and head.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of heads of keys and values.
    pub key_value_heads: usize,
    /// Hidden width of the feed-forward network.
    pub hidden: usize,
    /// How a picture's tokens are placed.
    #[serde(default)]
    pub picture_positions: PicturePositions,
}

/// Recipe of a language model that draws what a prompt says (paper, appendix A.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextRecipe {
    /// Steps, batch, learning rate.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Probability of replacing a caption by padding.
    pub caption_dropout: f64,
    /// Weight of the loss on the captions' text, beside that on the pictures' tokens; 0 for none.
    pub text_weight: f64,
    /// Ids of a prompt at most, its form included; longer captions lose their end.
    pub most_prompt_ids: usize,
    /// What is drawn every `samples_every` steps; the first captions if there are none.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// Which half learns, and how fast, from which step on.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// The optimizer.
    pub optimizer: AdamWConfig,
    /// Size of a model that begins at random; none for one that goes on from a language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<LanguageSize>,
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

impl Recipe for TextRecipe {
    const TRAINING: Training = Training::Text;
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }
    fn learning_rates(&self) -> LearningRates {
        stages::learning_rates(&self.schedule, &self.stages)
    }
    fn validate(&self) -> Result<(), RecipeError> {
        self.schedule.validate()?;
        validate_optimizer(&self.optimizer)?;
        stages::validate(&self.schedule, &self.stages)?;
        let problem = "must be from 0 to 1";
        require((0.0..=1.0).contains(&self.caption_dropout), "caption_dropout", problem)?;
        let weight = self.text_weight;
        let problem = "must be a number of at least 0";
        require(weight >= 0.0 && weight.is_finite(), "text_weight", problem)?;
        let problem = "must be at least 16: the form of a prompt alone takes several";
        require(self.most_prompt_ids >= 16, "most_prompt_ids", problem)?;
        let problem = "must be at most 4096";
        require(self.most_prompt_ids <= MOST_PROMPT_IDS, "most_prompt_ids", problem)?;
        let empty = self.prompts.iter().any(|prompt| prompt.trim().is_empty());
        require(!empty, "prompts", "must not be empty texts")?;
        let vocabulary = self.architecture.map(|size| size.vocabulary);
        let problem = "must be at least 261: the bytes, and the control tokens of a prompt";
        let fits = vocabulary.is_none_or(|size| size >= TextTokenizer::SMALLEST);
        require(fits, "architecture.vocabulary", problem)?;
        require(self.sampling.validate().is_ok(), "sampling", "has a value out of range")
    }
}

/// Reads a recipe, a bundled one by name or a file, and changes single settings in it. Of a folder it reads
/// the file of this training.
///
/// `overrides` are assignments such as `steps=100` or `optimizer.clip=1.0`.
///
/// # Errors
/// If there is no such recipe, a setting is unknown (with the nearest known one), or a value
/// makes no sense.
pub fn read<R: Recipe>(name: &str, overrides: &[String]) -> Result<R, RecipeError> {
    let bundled: Vec<_> = bundled()
        .filter(|(_, training, _)| *training == R::TRAINING)
        .map(|(name, _, text)| (name, text))
        .collect();
    if !bundled.iter().any(|(known, _)| *known == name) && !Path::new(name).exists() {
        let held: Vec<&str> = self::bundled()
            .filter(|(known, ..)| *known == name)
            .map(|(_, training, _)| training.describe())
            .collect();
        if !held.is_empty() {
            return Err(RecipeError::OtherTraining {
                name: name.to_owned(),
                wanted: R::TRAINING.describe(),
                held: held.join(" and "),
                known: bundled.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
            });
        }
    }
    let mut path = PathBuf::from(name);
    let is_bundled = bundled.iter().any(|(known, _)| *known == name);
    if path.is_dir() && !is_bundled {
        let file = format!("{}.toml", R::TRAINING.file_stem());
        if !path.join(&file).exists() {
            let (folder, wanted) = (path, R::TRAINING.describe());
            return Err(RecipeError::NotInFolder { folder, file, wanted });
        }
        path.push(file);
    }
    let name = path.to_str().unwrap_or(name);
    let recipe: R = settings::read("recipe", name, &bundled, overrides)?;
    recipe.validate()?;
    Ok(recipe)
}
