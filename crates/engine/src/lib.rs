//! Fast inference on the CPU, without Burn: the generator's cached decoding and both halves of the
//! tokenizer, from the files of a model folder.
//!
//! Weights come from a file, mapped or in memory ([`Weights`]), and are packed once, at load, for the
//! instruction set that is found at run time, in f32, bf16, int8 or int4 ([`Precision`]).
//! `generator::reference` and `tokenizer::reference` are the reference: in f32 the same seed draws
//! the same tokens.
//!
//! A [`Scheduler`] drives any [`SequenceModel`]. Where there are no threads and no mappings, as in a
//! browser, everything but [`measure`] works on the caller's thread and the allocator's memory.

mod causal;
pub mod drafts;
pub mod generator;
mod kernels;
pub mod language_model;
mod matrix;
#[cfg(not(target_family = "wasm"))] // there is no clock
pub mod measure;
mod memory;
mod parallel;
pub mod scheduler;
pub mod sequence;
mod tensors;
pub mod tokenizer;
mod transformer;

/// The instruction set that the engine computes with: the fastest that this processor runs, unless
/// the environment variable `ALITOK_INSTRUCTIONS` asks for another one: `avx512`, `avx2-vnni`,
/// `avx2`, `neon` or `portable`.
///
/// # Errors
/// If the variable asks for what this machine does not have.
pub fn instruction_set() -> Result<&'static str, InstructionsError> {
    Ok(kernels::Kernels::chosen()?.name)
}

pub use crate::{
    drafts::Drafts,
    generator::Generator,
    kernels::InstructionsError,
    language_model::LanguageModel,
    matrix::Precision,
    parallel::Pool,
    scheduler::{Event, JobId, Scheduler},
    sequence::SequenceModel,
    tensors::{LoadError, Weights},
    tokenizer::{Decoder, DecoderError, Encoder},
    transformer::Workspace,
};
