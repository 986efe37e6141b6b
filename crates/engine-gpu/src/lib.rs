//! Inference on GPUs, without Burn: the generator's cached decoding and both halves of the tokenizer
//! in WGSL shaders on wgpu, which reaches Vulkan, Metal and Direct3D 12. `engine` is its reference, and
//! its seams are the same: a [`Scheduler`](engine::Scheduler) drives a [`Generator`] as it drives that
//! of the CPU, and an [`Encoder`] and a [`Decoder`] take and give what those of the CPU do.
//!
//! From the outside in: [`Device`] is an opened GPU, with its limits and the errors it reports;
//! `buffer` holds memory on it; `weights` reads a model's file and lays matrices out for the
//! products; `kernels` compiles the shaders, each one file of WGSL; [`Generator`] is one step as a
//! list of dispatches, and `transformer` the blocks that encoder and decoders share.
//!
//! A sequence's logits are the same to the bit whatever other sequences are in a step: every sum is
//! taken in an order that depends on sizes of the model alone, never on how many rows there are.

mod buffer;
pub mod device;
pub mod generator;
mod kernels;
pub mod tokenizer;
mod transformer;
mod weights;

#[cfg(not(target_family = "wasm"))]
pub use crate::device::adapters;
pub use crate::{
    device::{AdapterInfo, Device, GpuError},
    generator::{Generator, LoadError, Session, StepCost},
    tokenizer::{Decoder, DecoderError, DecoderWorkspace, Encoder, EncoderWorkspace},
    weights::Precision,
};
