//! Pictures to tokens.

use pixels::Picture;
use tokenizer::TokenizerConfig;
use tokens::CodebookIndex;

use crate::PipelineError;

/// The half of a tokenizer that turns pictures into tokens, on some device.
pub trait Encode: Send + Sync {
    /// The tokenizer's architecture.
    fn config(&self) -> &TokenizerConfig;

    /// The tokens of a picture.
    ///
    /// # Errors
    /// If the picture is not of the tokenizer's size, or the device fails.
    fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, PipelineError>;
}

/// Checks that a picture has the size that a tokenizer takes.
pub(crate) fn check_size(picture: &Picture, config: &TokenizerConfig) -> Result<(), PipelineError> {
    let (expected, got) = (config.image, [picture.width(), picture.height()]);
    if got == [expected.width, expected.height] {
        return Ok(());
    }
    Err(PipelineError::PictureSize { got, expected: [expected.width, expected.height] })
}
