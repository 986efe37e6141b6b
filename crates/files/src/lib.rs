//! Reading and writing the files that AliTok uses.
//!
//! - [`safetensors`] reads tensors by name, from a mapped file or from bytes, and writes the same
//!   bytes every time. [`HostTensor`] and [`TensorMap`] hold tensors outside of any device.
//! - [`Home`] finds bundled models and data below a root that callers pass explicitly.
//! - [`output`] says whether a folder may be written to or replaced.
//! - [`kind`] says what a file is that is not what was wanted.
//! - [`floats`] converts bytes in half, single and double precision.
//! - `whole` (feature `write`) writes files and folders whole or not at all: beside their place,
//!   synced, then renamed.
//! - `npz` (feature `npz`) reads and writes arrays for NumPy, and takes no more memory than the caller
//!   allows, whatever a file holds.
//!
//! ```
//! use files::{HostTensor, TensorMap, safetensors::{StorageFormat, TensorFile, write_to}};
//!
//! let weights = TensorMap::from([("w".to_owned(), HostTensor::new([2], vec![1.0, -0.5]))]);
//! let mut bytes = Vec::new();
//! write_to(&mut bytes, &weights, StorageFormat::Bf16, &Default::default())?;
//! assert_eq!(TensorFile::from_bytes("weights", bytes).tensors()?, weights);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Both features are on by default. Without them the crate builds for `wasm32-unknown-unknown`, where
//! [`TensorFile::open`](safetensors::TensorFile::open) is an error and bytes are read instead.

#[cfg(feature = "npz")]
pub mod archive;
mod error;
pub mod floats;
mod home;
pub mod kind;
#[cfg(feature = "npz")]
mod npy;
#[cfg(feature = "npz")]
pub mod npz;
pub mod output;
pub mod safetensors;
mod tensors;
#[cfg(feature = "write")]
mod unfinished;
#[cfg(feature = "write")]
pub mod whole;

pub use error::FileError;
pub use home::{Home, HomeError};
pub use tensors::{HostTensor, ParameterError, TensorMap, list_problems};
#[cfg(feature = "write")]
pub use unfinished::remove_unfinished;
#[cfg(feature = "write")]
pub use whole::{remove_incomplete, remove_incomplete_of, replace_folder, write_file};
