//! The tests of the crate `weights`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod checkpoint;
mod public;
mod released;
mod wrapped;
