//! What is asked of a generator, and why it may be refused.

use std::sync::Arc;

use tokens::{CodebookIndex, Vocabulary, VocabularyError};

use crate::{
    config::GeneratorConfig,
    sampler::{SamplingConfig, SamplingError},
};

/// What a picture is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Something of a class, by its label from 0.
    Class(usize),
    /// What a sequence of input ids stands for. The generator must have learned such sequences.
    Ids {
        /// The ids, at least one.
        conditional: Vec<usize>,
        /// Those in the unconditional half of guidance, as many.
        unconditional: Vec<usize>,
    },
    /// What a prompt says, of a model that reads words.
    Prompt(Arc<Prompt>),
}

/// A prompt, as the text tokenizer of its model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What a person wrote.
    pub text: String,
    /// Its ids in the form that the model has learned, at least one.
    pub ids: Vec<usize>,
    /// Those in the unconditional half of guidance, as many.
    pub unconditional: Vec<usize>,
}

impl Condition {
    /// The input ids that come before the picture's tokens.
    ///
    /// # Errors
    /// If the generator does not know what the condition names.
    pub fn ids(&self, vocabulary: Vocabulary) -> Result<Vec<usize>, VocabularyError> {
        match self {
            Self::Class(label) => Ok(vec![vocabulary.class(*label)?]),
            Self::Ids { conditional, .. } => Ok(conditional.clone()),
            Self::Prompt(prompt) => Ok(prompt.ids.clone()),
        }
    }

    /// Number of input ids that come before the picture's tokens.
    pub fn length(&self) -> usize {
        match self {
            Self::Class(_) => 1,
            Self::Ids { conditional, .. } => conditional.len(),
            Self::Prompt(prompt) => prompt.ids.len(),
        }
    }

    /// The input ids that take their place in the unconditional half of guidance, as many.
    pub fn unconditional_ids(&self, vocabulary: Vocabulary) -> Vec<usize> {
        match self {
            Self::Class(_) => vec![vocabulary.unconditional()],
            Self::Ids { unconditional, .. } => unconditional.clone(),
            Self::Prompt(prompt) => prompt.unconditional.clone(),
        }
    }

    /// [`ids`](Self::ids) and [`unconditional_ids`](Self::unconditional_ids), the two halves of guidance.
    ///
    /// # Errors
    /// If the generator does not know what the condition names.
    pub fn halves(&self, vocabulary: Vocabulary) -> Result<[Vec<usize>; 2], GenerateError> {
        self.validate(vocabulary)?;
        Ok([self.ids(vocabulary)?, self.unconditional_ids(vocabulary)])
    }

    /// The label of the class, if the condition is one.
    pub fn label(&self) -> Option<usize> {
        match self {
            Self::Class(label) => Some(*label),
            Self::Ids { .. } | Self::Prompt(_) => None,
        }
    }

    /// Checks that a generator of this vocabulary can read it.
    ///
    /// # Errors
    /// If it is a prompt, there are no ids, or one is out of range.
    pub fn validate(&self, vocabulary: Vocabulary) -> Result<(), GenerateError> {
        match self {
            Self::Class(label) => Ok(vocabulary.class(*label).map(drop)?),
            Self::Ids { conditional, unconditional } => {
                check_ids(conditional, unconditional, vocabulary.len())
            }
            Self::Prompt(_) => Err(GenerateError::NoPrompts),
        }
    }

    /// The ids of both halves of guidance, for a model that reads words and has this many input ids.
    ///
    /// # Errors
    /// If it is a class, there are no ids, or one is out of range.
    pub fn text_ids(&self, limit: usize) -> Result<[&[usize]; 2], GenerateError> {
        let (ids, others) = match self {
            Self::Class(_) => return Err(GenerateError::NoClasses),
            Self::Ids { conditional, unconditional } => (conditional, unconditional),
            Self::Prompt(prompt) => (&prompt.ids, &prompt.unconditional),
        };
        check_ids(ids, others, limit)?;
        Ok([ids, others])
    }
}

/// Checks the ids of both halves of guidance.
fn check_ids(ids: &[usize], others: &[usize], limit: usize) -> Result<(), GenerateError> {
    if ids.is_empty() || ids.len() != others.len() {
        return Err(GenerateError::ConditionIds { ids: ids.len(), others: others.len() });
    }
    match ids.iter().chain(others).find(|&&id| id >= limit) {
        Some(&id) => Err(GenerateError::ConditionId { id, limit }),
        None => Ok(()),
    }
}

/// One picture to generate. Its tokens depend on this and on the [`SamplingConfig`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it is to show.
    pub condition: Condition,
    /// Seed of the noise.
    pub seed: u64,
    /// Which of the seed's pictures this is.
    pub index: u64,
    /// The first tokens, already known; the others are generated. Empty for a whole picture; the
    /// prefix and the first rows of the grid to complete one
    /// (see [`TokenLayout::len_of_rows`](tokens::TokenLayout::len_of_rows)).
    pub forced: Vec<CodebookIndex>,
}

impl Request {
    /// Checks that a generator can draw this picture.
    ///
    /// # Errors
    /// If a sampling option, the condition or a known token is out of range, or too many are known.
    pub fn validate(
        &self,
        config: &GeneratorConfig,
        sampling: &SamplingConfig,
    ) -> Result<(), GenerateError> {
        sampling.validate()?;
        self.condition.validate(config.vocabulary())?;
        self.validate_tokens(config.vocabulary(), config.layout.len())
    }

    /// Checks the tokens that are known of a picture of `length` tokens.
    ///
    /// # Errors
    /// If one is out of range, or there are too many.
    pub fn validate_tokens(
        &self,
        vocabulary: Vocabulary,
        length: usize,
    ) -> Result<(), GenerateError> {
        for &token in &self.forced {
            vocabulary.token(i64::from(token))?;
        }
        if self.forced.len() > length {
            return Err(GenerateError::TooManyForced { forced: self.forced.len(), length });
        }
        Ok(())
    }
}

/// Why no tokens were generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// A sampling option is out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A class label or a forced token is out of range.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A model that draws classes was given a prompt.
    #[error("this model draws classes and reads no words; ask for a class")]
    NoPrompts,
    /// A model that reads words was given a class.
    #[error("this model draws what a prompt says and has no classes; give a prompt")]
    NoClasses,
    /// Logits of text were asked of a model that was opened without its head for text.
    #[error("the model was opened to draw, without its head for text; open it with that")]
    NoTextHead,
    /// A condition has no input ids, or not as many in the unconditional half.
    #[error(
        "the condition has {ids} input ids and {others} for the unconditional half; give at least \
         one, and as many"
    )]
    ConditionIds {
        /// Input ids of the condition.
        ids: usize,
        /// Those of the unconditional half.
        others: usize,
    },
    /// An input id of the condition is out of range.
    #[error("input id {id} of the condition is out of range: the generator has {limit}")]
    ConditionId {
        /// The offending id.
        id: usize,
        /// Number of input ids.
        limit: usize,
    },
    /// A condition is longer than there is room for.
    #[error("the condition has {ids} input ids, and there is room for {room}")]
    ConditionRoom {
        /// Input ids of the condition.
        ids: usize,
        /// Input ids that there is room for.
        room: usize,
    },
    /// More tokens are forced than a picture has.
    #[error("{forced} tokens are given for a picture of {length}; give at most all of them")]
    TooManyForced {
        /// Number of forced tokens.
        forced: usize,
        /// Tokens of a picture.
        length: usize,
    },
    /// The operating system has no memory for keys and values.
    #[error(
        "there is no memory for the keys and values of {sequences} sequences; draw fewer pictures \
         at a time"
    )]
    Memory {
        /// Sequences that room was wanted for; a guided picture is two.
        sequences: usize,
    },
    /// The model returned logits that are not numbers.
    #[error(
        "the generator's logits of token {token} are not numbers: its weights are damaged, or \
         its training diverged"
    )]
    NotANumber {
        /// Index of the token in the sequence.
        token: usize,
    },
    /// The device that computes has failed.
    #[error("{reason}")]
    Device {
        /// What has happened to it.
        failure: DeviceFailure,
        /// The device's own words, with what can be done.
        reason: String,
    },
}

/// What has happened to a device that computes for the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFailure {
    /// It was reset, removed or taken by another program: nothing on it is left.
    Lost,
    /// It has too little memory, as a whole or for one buffer.
    Memory,
    /// It or its driver refused the work, which others of the kind may not.
    Refused,
}
