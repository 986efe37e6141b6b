//! Training: recipes, the three trainers, losses, optimizer, schedules, checkpoints and
//! telemetry.
//!
//! A [`Recipe`](recipe::Recipe) says what to do, a [`Trainer`](run::Trainer) does one step, and
//! [`run`](run::run) drives it: it sets the learning rate, writes the log and the
//! checkpoints, and resumes. All randomness is read from the step's address, so an interrupted
//! run continues as if it had not been.

pub mod cache;
mod checkpoint;
pub mod discriminator;
mod error;
pub mod experiment;
pub mod generator;
pub mod guard;
mod learner;
mod loader;
pub mod losses;
mod objective;
pub mod optimizer;
pub mod parallel;
pub mod perceptual;
pub mod phases;
pub mod recipe;
pub mod run;
mod samples;
pub mod schedule;
pub use settings;
pub mod stage_one;
pub mod stage_two;
pub mod telemetry;

pub use checkpoint::Checkpoint;
pub use error::TrainingError;
