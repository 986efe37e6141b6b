//! What `config.json` says.

use generator::{GeneratorConfig, SamplingConfig};
use language::LanguageConfig;
use serde::{Deserialize, Serialize};
use tokenizer::TokenizerConfig;

/// Version of the format that this crate reads and writes.
pub const FORMAT: u32 = 1;

/// The content of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of the folder's format, [`FORMAT`].
    pub format: u32,
    /// Architecture of the tokenizer.
    pub tokenizer: TokenizerConfig,
    /// Architecture of the generator, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorConfig>,
    /// Architecture of the language model, if the model draws what a prompt says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageConfig>,
    /// How to sample unless told otherwise.
    #[serde(default)]
    pub sampling: SamplingConfig,
}

impl ModelConfig {
    /// A model of these architectures, sampled as it learned: without guidance.
    pub fn new(tokenizer: TokenizerConfig, generator: Option<GeneratorConfig>) -> Self {
        let sampling = SamplingConfig::default();
        Self { format: FORMAT, tokenizer, generator, language: None, sampling }
    }

    /// A model that draws what a prompt says, sampled as Janus is: guidance 5 from the first token to
    /// the last, temperature 1.
    pub fn of_prompts(tokenizer: TokenizerConfig, language: LanguageConfig) -> Self {
        let sampling = SamplingConfig { guidance: 5.0, guidance_power: 0.0, ..Default::default() };
        Self { format: FORMAT, tokenizer, generator: None, language: Some(language), sampling }
    }

    /// What contradicts itself in this configuration.
    pub(crate) fn contradiction(&self) -> Option<String> {
        if let Err(error) = self.tokenizer.validate() {
            return Some(format!("tokenizer: {error}"));
        }
        if self.tokenizer.best_decoder().is_none() {
            return Some("the tokenizer has no decoder".to_owned());
        }
        if let Some(generator) = &self.generator {
            if let Err(error) = generator.validate() {
                return Some(error.to_string());
            }
            if generator.layout != self.tokenizer.layout() {
                return Some(format!(
                    "the generator's tokens ({:?}) are not the tokenizer's ({:?})",
                    generator.layout,
                    self.tokenizer.layout()
                ));
            }
            if generator.codes != self.tokenizer.codes {
                return Some(format!(
                    "the generator knows {} codes, the tokenizer {}",
                    generator.codes, self.tokenizer.codes
                ));
            }
        }
        if let Some(language) = &self.language {
            if self.generator.is_some() {
                return Some("has both a `generator` and a `language` model".to_owned());
            }
            if let Err(error) = language.validate() {
                return Some(error.to_string());
            }
            if language.layout != self.tokenizer.layout() {
                return Some(format!(
                    "the language model's tokens ({:?}) are not the tokenizer's ({:?})",
                    language.layout,
                    self.tokenizer.layout()
                ));
            }
            let (codes, size) = (self.tokenizer.codes, self.tokenizer.token_size);
            if [language.codes, language.code_size] != [codes, size] {
                return Some(format!(
                    "the language model knows {} codes of size {}, the tokenizer {codes} of size {size}",
                    language.codes, language.code_size
                ));
            }
        }
        self.sampling.validate().err().map(|error| format!("sampling: {error}"))
    }
}
