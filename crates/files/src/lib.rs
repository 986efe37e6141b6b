//! Files, once for all crates: written whole or not at all ([`whole`]), arrays for NumPy ([`npz`]),
//! tensors by name ([`safetensors`]), half precision ([`floats`]), and where bundled things are
//! ([`Home`]).
//!
//! Reading tensors needs no feature and no operating system, so that a browser can do it. The feature
//! `write` adds what puts files on a disk, `npz` NumPy's archives.

mod error;
pub mod floats;
mod home;
#[cfg(feature = "npz")]
pub mod npz;
pub mod safetensors;
mod tensors;
#[cfg(feature = "write")]
pub mod whole;

pub use error::FileError;
pub use home::{Home, HomeError};
pub use tensors::{HostTensor, ParameterError, TensorMap, list_problems};
#[cfg(feature = "write")]
pub use whole::{remove_incomplete, remove_incomplete_of, replace_folder, write_file};
