//! Language models that read a prompt and write a picture's tokens (paper, appendix A.4), after the
//! manner of Janus-Pro: the language model of LLaVA-OneVision, a Qwen2, with an adaptor through which
//! codes of the picture's tokenizer enter and a head of their own through which they leave.
//!
//! Without tensors: the architecture ([`LanguageConfig`]), the text tokenizer ([`TextTokenizer`]), a
//! prompt's form ([`Prompts`]), and the files of others: a Hugging Face folder
//! ([`HuggingFaceFolder`]) and Janus' image side ([`ImageSide`]).
//!
//! Parameters have names of ours, as those of the generator: `language.safetensors` holds
//!
//! | name | shape |
//! | --- | --- |
//! | `embedding.weight` | `[vocabulary, width]` |
//! | `blocks.N.attention_norm.weight`, `blocks.N.feed_forward_norm.weight` | `[width]` |
//! | `blocks.N.attention.query_key_value.weight`, `.bias` | `[width + 2 · key_value_width, width]` |
//! | `blocks.N.attention.projection.weight` | `[width, width]` |
//! | `blocks.N.feed_forward.gate.weight`, `.up.weight` | `[hidden, width]` |
//! | `blocks.N.feed_forward.down.weight` | `[width, hidden]` |
//! | `norm.weight` | `[width]` |
//! | `output.weight`, unless it is the embedding | `[vocabulary, width]` |
//!
//! and `image_side.safetensors`
//!
//! | name | shape |
//! | --- | --- |
//! | `adaptor.input.weight`, `.bias`, then GELU | `[adaptor_hidden, code_size]` |
//! | `adaptor.output.weight`, `.bias` | `[width, adaptor_hidden]` |
//! | `head.input.weight`, `.bias`, then GELU | `[head_hidden, width]` |
//! | `head.output.weight`, `.bias` | `[codes, head_hidden]` |
//!
//! The feature `reference` adds the modules on Burn.
//!
//! Rotary positions turn pairs of neighbours, as the generator's do. Qwen2 pairs number i of a head
//! with number i + head / 2, so the rows of its queries and keys are put into another order when they
//! are read ([`names`]); their products stay the same.

mod config;
mod error;
mod hugging_face;
mod image_side;
pub mod names;
pub mod presets;
mod prompt;
#[cfg(feature = "reference")]
pub mod reference;
mod rotary;
mod text;

pub use config::{ConfigError, ControlTokens, LanguageConfig, PicturePositions};
pub use error::LanguageError;
pub use hugging_face::{HuggingFaceFolder, Qwen2Config};
pub use image_side::ImageSide;
pub use prompt::{MOST_PROMPT_IDS, PromptError, Prompts};
pub use rotary::Rotary;
pub use text::{TextError, TextTokenizer};
