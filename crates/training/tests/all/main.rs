//! The tests of the crate `training`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bad_pictures;
mod cache;
mod common;
mod discriminator;
mod fine_tuning;
mod golden;
mod guard;
mod losses;
mod modules;
mod optimizer;
mod parallel;
mod phases;
mod precision;
mod recipes;
mod runs;
mod schedule;
mod text;
