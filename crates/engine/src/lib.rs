//! Fast inference on the CPU, without Burn: the generator's cached decoding and both halves of the
//! tokenizer, from the files of a model folder.
//!
//! Weights come from a file, mapped or in memory ([`Weights`]), and are packed once, at load, for the
//! instruction set that is found at run time, in f32, bf16 or int8 ([`Precision`]).
//! `generator::reference` and `tokenizer::reference` are the reference: in f32 the same seed draws
//! the same tokens.
//!
//! A [`Scheduler`] drives any [`SequenceModel`]. Where there are no threads and no mappings, as in a
//! browser, everything but [`measure`] works on the caller's thread and the allocator's memory.

pub mod drafts;
pub mod generator;
mod kernels;
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

/// The instruction set of the fastest kernels that this processor runs.
pub fn instruction_set() -> &'static str {
    kernels::Kernels::detect().name
}

pub use crate::{
    drafts::Drafts,
    generator::Generator,
    matrix::Precision,
    parallel::Pool,
    scheduler::{Event, JobId, Scheduler},
    sequence::SequenceModel,
    tensors::{LoadError, Weights},
    tokenizer::{Decoder, DecoderError, Encoder},
    transformer::Workspace,
};
