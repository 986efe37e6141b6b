//! The tests of the crate `app`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod analysis;
mod bundled;
mod common;
mod devices;
mod engine;
mod evaluation;
mod experiment;
mod export;
#[cfg(unix)]
mod faults;
mod gpu;
#[cfg(feature = "mpi")]
mod mpi;
mod outputs;
mod protocols;
mod refusals;
mod released;
mod training;
mod words;
