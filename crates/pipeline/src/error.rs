//! What can go wrong between a request and its picture.

use generator::GenerateError;
use tokenizer::DecoderKind;
use tokens::CodebookIndex;

use crate::DeviceError;

/// Why a model cannot be opened, or a picture not be encoded, decoded or drawn.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// Its weights cannot be loaded.
    #[error(transparent)]
    Load(#[from] engine::LoadError),
    /// A decoder cannot be opened.
    #[error(transparent)]
    Decoder(#[from] engine::DecoderError),
    /// Memory does not hold a part of a model.
    #[error(
        "the {what} needs {}, and {} are available; take a smaller precision or a smaller model, or a \
         machine with more memory",
        machine::bytes(*needed), machine::bytes(*available)
    )]
    Memory {
        /// Encoder, decoder, generator or language model.
        what: &'static str,
        /// Bytes of its weights.
        needed: u64,
        /// Bytes that this process may still take.
        available: u64,
    },
    /// More pictures are asked for than memory can keep track of.
    #[error("{count} pictures are more than memory holds; draw fewer at a time")]
    Count {
        /// How many.
        count: u128,
    },
    /// The architecture lacks what was asked for.
    #[error(transparent)]
    Config(#[from] tokenizer::ConfigError),
    /// The model has no decoder at all.
    #[error("the model has no decoder")]
    NoDecoder,
    /// A model in 8-bit integers was to try tokens for itself.
    #[error("drafts of the model in int8 help f32 and bf16 only; leave them out with int8")]
    Drafts,
    /// A model that reads prompts was to try tokens ahead of their turn.
    #[error("drafts help models that draw classes; leave them out with a model that reads prompts")]
    PromptDrafts,
    /// A prompt cannot be read.
    #[error(transparent)]
    Prompt(#[from] language::PromptError),
    /// A request cannot be drawn.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A sampling option is out of range.
    #[error(transparent)]
    Sampling(#[from] generator::SamplingError),
    /// A picture cannot be made or written.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// A picture is of another size than the tokenizer's.
    #[error(
        "the picture has {} × {} pixels, this model's have {} × {}; crop or scale it first",
        got[0], got[1], expected[0], expected[1]
    )]
    PictureSize {
        /// Its width and height.
        got: [usize; 2],
        /// Width and height of the model's pictures.
        expected: [usize; 2],
    },
    /// There are too few or too many tokens.
    #[error("{got} tokens are no picture: this model's pictures have {expected}")]
    TokenCount {
        /// How many there are.
        got: usize,
        /// How many a picture has.
        expected: usize,
    },
    /// A token is no code.
    #[error("token {token} is out of range: the codebook has {codes} codes")]
    NoCode {
        /// The token.
        token: CodebookIndex,
        /// Size of the codebook.
        codes: usize,
    },
    /// Pictures of the first rows were asked of a decoder that needs all of them.
    #[error(
        "previews need the causal decoder on the device `cpu` or `gpu`; the {kind} decoder was \
         given, or another device"
    )]
    NoPreviews {
        /// The decoder that was given.
        kind: DecoderKind,
    },
}
