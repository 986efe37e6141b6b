//! Training: recipes, the trainers, losses, optimizer, schedules, checkpoints and
//! telemetry.
//!
//! A [`Recipe`](recipe::Recipe) says what to do, a [`Trainer`](run::Trainer) does one step, and
//! [`run`](run::run) drives it: it sets the learning rate, writes the log and the
//! checkpoints, and resumes. All randomness is read from the step's address, so an interrupted
//! run continues as if it had not been.
//!
//! # Order of modules
//! Each module uses only those above it; a test checks it.
//!
//! - `measures`, `validation`, `communicator`, `optimizer`, `losses`, `discriminator`, `plan`
//! - `guard`
//! - `schedule`
//! - `error`
//! - `telemetry`, `perceptual`, `checkpoint`, `parallel`
//! - `phases`, `stages`
//! - `recipe`
//! - `loader`, `learner`
//! - `samples`, `objective`
//! - `run`
//! - `trainers`
//! - `proposal`

mod checkpoint;
pub mod communicator;
pub mod discriminator;
mod error;
pub mod guard;
mod learner;
mod loader;
pub mod losses;
mod measures;
mod objective;
pub mod optimizer;
pub mod parallel;
pub mod perceptual;
pub mod phases;
pub mod plan;
pub mod proposal;
pub mod recipe;
pub mod run;
mod samples;
pub mod schedule;
pub mod stages;
pub mod telemetry;
pub mod trainers;
mod validation;

pub use checkpoint::Checkpoint;
pub use error::TrainingError;
