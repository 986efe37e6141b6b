//! The three trainers: both stages of the tokenizer, and the generator.

mod generator;
mod image;
mod stage_one;
mod stage_two;

pub use generator::GeneratorTrainer;
pub use image::{ImageTrainer, Stage};
pub use stage_one::{FirstStage, StageOne};
pub use stage_two::{SecondStage, StageTwo};

/// The model that a run began with: nothing for one that began at random.
const BEGAN_WITH: &str = "model to begin with";
