//! Tokens to pictures.

use pixels::Picture;
use tokenizer::{DecoderKind, TokenizerConfig};
use tokens::CodebookIndex;

use crate::PipelineError;

/// A codebook and one of a tokenizer's decoders, on some device.
pub trait Decode: Send + Sync {
    /// The tokenizer's architecture.
    fn config(&self) -> &TokenizerConfig;

    /// Which decoder it is.
    fn kind(&self) -> DecoderKind;

    /// The picture of a sequence of tokens. A causal decoder that [decodes rows](Self::decodes_rows)
    /// takes the beginning of a sequence too, up to the end of a row, and gives the rows that it decides.
    ///
    /// # Errors
    /// If there are too few or too many tokens, one is no code of the codebook, or the device fails.
    fn decode(&self, tokens: &[CodebookIndex]) -> Result<Picture, PipelineError>;

    /// Whether [`decode`](Self::decode) takes the first rows of a picture alone.
    fn decodes_rows(&self) -> bool;
}

/// Checks that a decoder can decode these tokens; returns the rows of the picture that they decide.
pub(crate) fn check_tokens(
    tokens: &[CodebookIndex],
    config: &TokenizerConfig,
    rows_allowed: bool,
) -> Result<usize, PipelineError> {
    let layout = config.layout();
    if let Some(&token) = tokens.iter().find(|&&token| usize::from(token) >= config.codes) {
        return Err(PipelineError::NoCode { token, codes: config.codes });
    }
    let fits = |rows: &usize| layout.len_of_rows(*rows) == tokens.len();
    let rows = if rows_allowed { 1..=layout.rows() } else { layout.rows()..=layout.rows() };
    rows.into_iter()
        .find(fits)
        .ok_or(PipelineError::TokenCount { got: tokens.len(), expected: layout.len() })
}
