//! What is asked of a generator, and why it may be refused.

use tokens::{CodebookIndex, VocabularyError};

use crate::{
    config::GeneratorConfig,
    sampler::{SamplingConfig, SamplingError},
};

/// One picture to generate. Its tokens depend on this and on the [`SamplingConfig`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Class label, from 0.
    pub class: usize,
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
    /// If a sampling option, the class or a known token is out of range, or too many are known.
    pub fn validate(
        &self,
        config: &GeneratorConfig,
        sampling: &SamplingConfig,
    ) -> Result<(), GenerateError> {
        sampling.validate()?;
        let (vocabulary, length) = (config.vocabulary(), config.layout.len());
        vocabulary.class(self.class)?;
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
}
