//! Model folders of tokenizers.

use std::path::Path;

use files::{TensorMap, safetensors::StorageFormat};
use model::{ClassNames, ModelConfig, ModelContents};
use tokenizer::{DecoderKind, TokenizerConfig};

use crate::TrainingError;

/// Where a decoder's parameters are among those of a tokenizer.
pub(crate) fn section_of(kind: DecoderKind) -> &'static str {
    match kind {
        DecoderKind::Causal => "causal_decoder",
        DecoderKind::Bidirectional => "bidirectional_decoder",
    }
}

/// Writes a model folder that has a tokenizer and no generator yet.
pub(crate) fn export_tokenizer(
    config: &TokenizerConfig,
    tensors: &TensorMap,
    folder: &Path,
) -> Result<(), TrainingError> {
    ModelContents {
        config: &ModelConfig::new(config.clone(), None),
        classes: &ClassNames::default(),
        tokenizer: tensors,
        generator: None,
        format: StorageFormat::F32,
        readme: None,
    }
    .write(folder)?;
    Ok(())
}
