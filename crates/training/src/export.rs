//! Names of what tokenizers are exported with.

use tokenizer::DecoderKind;

/// Where a decoder's parameters are among those of a tokenizer.
pub(crate) fn section_of(kind: DecoderKind) -> &'static str {
    match kind {
        DecoderKind::Causal => "causal_decoder",
        DecoderKind::Bidirectional => "bidirectional_decoder",
    }
}
