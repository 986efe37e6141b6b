//! Tests of the engine as others use it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod language;
mod laws;
