//! A model loaded into the modules on Burn, the reference.

use burn::tensor::Device;
use files::{HostTensor, ParameterError};
use generator::reference::Generator;
use language::reference::LanguageModel;
use operations::parameters::load;
use tokenizer::reference::Tokenizer;

use crate::{CONFIG, GENERATOR, LANGUAGE, Model, ModelError, TOKENIZER};

impl Model {
    /// The tokenizer, with every decoder that the model has.
    ///
    /// # Errors
    /// If the file is damaged, or a tensor is missing, superfluous or mis-shaped.
    pub fn tokenizer(&self, device: &Device) -> Result<Tokenizer, ModelError> {
        let tokenizer = self.config.tokenizer.build(device).map_err(|error| self.wrong(&error))?;
        load(tokenizer, self.tokenizer_tensors()?)
            .map_err(|problems| self.unfit(TOKENIZER, problems))
    }

    /// The generator.
    ///
    /// # Errors
    /// If the model has none, the file is damaged, or a tensor is missing, superfluous or
    /// mis-shaped.
    pub fn generator(&self, device: &Device) -> Result<Generator, ModelError> {
        let config = self.generator_config()?;
        let generator = config.build(device).map_err(|error| self.wrong(&error))?;
        load(generator, self.generator_tensors()?)
            .map_err(|problems| self.unfit(GENERATOR, problems))
    }

    /// The language model with its image side.
    ///
    /// # Errors
    /// If the model has none, a file is damaged, or a tensor is missing, superfluous or mis-shaped.
    pub fn language_model(&self, device: &Device) -> Result<LanguageModel, ModelError> {
        let config = self.language_config()?;
        let mut tokenizer = self.tokenizer_tensors()?;
        let expected = vec![config.codes, config.code_size];
        let name = "quantizer.codebook".to_owned();
        let codebook = match tokenizer.remove(&name) {
            Some(codebook) if codebook.shape == expected => codebook,
            Some(HostTensor { shape: got, .. }) => {
                let problem = ParameterError::Shape { name, expected, got };
                return Err(self.unfit(TOKENIZER, vec![problem]));
            }
            None => {
                let problem = ParameterError::Missing { name, expected };
                return Err(self.unfit(TOKENIZER, vec![problem]));
            }
        };
        let model = config.build(codebook, device).map_err(|error| self.wrong(&error))?;
        model
            .load(self.language_tensors()?, self.image_side_tensors()?)
            .map_err(|problems| self.unfit(LANGUAGE, problems))
    }

    fn wrong(&self, error: &dyn std::error::Error) -> ModelError {
        ModelError::Config { path: self.path().join(CONFIG), what: error.to_string() }
    }

    fn unfit(&self, file: &str, problems: Vec<ParameterError>) -> ModelError {
        ModelError::Tensors { path: self.path().join(file), problems }
    }
}
