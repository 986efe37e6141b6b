//! The trainers: both stages of the tokenizer, the generator, and the language model that reads
//! prompts.

mod cached;
mod generator;
mod image;
mod stage_one;
mod stage_two;
mod text;

pub use cached::CachedPictures;
pub use generator::{ClassesKept, GeneratorTrainer};
pub use image::{ImageTrainer, Stage};
pub use stage_one::{FirstStage, StageOne};
pub use stage_two::{SecondStage, StageTwo};
pub use text::TextTrainer;

/// Numbers that blocks leave for the backward pass of one sequence of this length: about sixteen rows a
/// block, and its attention; or only what enters each block, where the rest is computed again.
fn block_activations(
    layers: usize,
    width: usize,
    heads: usize,
    length: usize,
    again: bool,
) -> usize {
    const ROWS: usize = 16;
    let block = length.saturating_mul(ROWS * width + heads * length);
    match again {
        false => layers.saturating_mul(block),
        true => layers.saturating_mul(length * width).saturating_add(block),
    }
}

/// The model that a run began with: nothing for one that began at random.
const BEGAN_WITH: &str = "model to begin with";
