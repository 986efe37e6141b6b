//! The tests of the crate `generator`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod laws;
mod parity;
