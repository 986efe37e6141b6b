//! The tests of the crate `pixels`, in one binary: linking is what takes time.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[cfg(feature = "data")]
mod bundle;
#[cfg(feature = "data")]
mod captions;
mod crop;
#[cfg(feature = "data")]
mod data;
mod decode;
#[cfg(feature = "data")]
mod folders;
#[cfg(feature = "data")]
mod labels;
#[cfg(feature = "data")]
mod loader;
#[cfg(feature = "parquet")]
mod parquet;
mod picture;
#[cfg(feature = "data")]
mod sets;
#[cfg(feature = "data")]
mod shapes;
mod shards;
