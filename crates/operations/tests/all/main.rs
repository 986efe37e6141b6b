//! The tests of the crate `layers`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod attention;
mod fused;
mod precision;
mod tape;
