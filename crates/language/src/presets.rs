//! Published architectures.

use tokens::TokenLayout;

use crate::{ControlTokens, LanguageConfig, PicturePositions};

/// LLaVA-OneVision-0.5B's language model, a Qwen2-0.5B (its `config.json`), with an image side as
/// Janus has it: hidden widths of adaptor and head are the model's width.
///
/// The ids of `<|vision_start|>` and `<|vision_end|>` are those that Qwen2.5's tokenizer gives them; in
/// Qwen2's they are free.
pub fn qwen2_half_billion(layout: TokenLayout, codes: usize, code_size: usize) -> LanguageConfig {
    LanguageConfig {
        layout,
        codes,
        code_size,
        vocabulary: 151_936,
        width: 896,
        layers: 24,
        heads: 14,
        key_value_heads: 2,
        hidden: 4864,
        tied: true,
        norm_epsilon: 1e-6,
        rotary_base: 1e6,
        positions: 32_768,
        picture_positions: PicturePositions::Sequence,
        adaptor_hidden: 896,
        head_hidden: 896,
        control: ControlTokens {
            message_start: 151_644,
            message_end: 151_645,
            picture_start: 151_652,
            picture_end: 151_653,
            padding: 151_643,
        },
    }
}
