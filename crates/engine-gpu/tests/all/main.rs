//! The tests of the crate `engine-gpu`, in one binary.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod common;
mod generator;
mod tokenizer;
