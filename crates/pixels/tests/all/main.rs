//! The tests of the crate `pixels`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod bundle;
mod crop;
mod data;
mod decode;
mod loader;
mod picture;

/// The root of bundled things: this source tree.
fn home() -> files::Home {
    files::Home::at(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
