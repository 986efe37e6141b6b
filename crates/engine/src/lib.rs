//! Fast inference on the CPU, without Burn: the generator's cached decoding and both halves of the
//! tokenizer, from the files of a model folder.
//!
//! Weights are packed once, at load, for the instruction set that is found at run time, in f32,
//! bf16 or int8 ([`Precision`]). `generator::Generator` and `tokenizer::Tokenizer` are the
//! reference: in f32 the same seed draws the same tokens.

pub mod drafts;
pub mod generator;
mod kernels;
mod matrix;
pub mod measure;
mod memory;
mod parallel;
pub mod scheduler;
pub mod sequence;
mod tensors;
pub mod tokenizer;
mod transformer;

pub use crate::{
    drafts::Drafts,
    generator::Generator,
    matrix::Precision,
    parallel::Pool,
    scheduler::{Event, JobId, Scheduler, generate},
    sequence::SequenceModel,
    tensors::{LoadError, Weights},
    tokenizer::{Decoder, DecoderError, Encoder},
    transformer::Workspace,
};
