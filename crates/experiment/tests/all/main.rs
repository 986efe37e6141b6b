//! The tests of the crate `experiment`, in one binary.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod plan;
