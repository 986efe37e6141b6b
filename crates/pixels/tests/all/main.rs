//! The tests of the crate `pixels`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bundle;
mod crop;
mod data;
mod decode;
mod loader;
mod picture;
