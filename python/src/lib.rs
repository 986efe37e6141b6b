//! The compiled half of the Python package `alitok`.
//!
//! Everything that computes, reads or writes is here and lets Python's lock go; what Python programs see
//! (arguments of many kinds, docstrings, types) is in the package's own files beside this folder. Arrays
//! leave as memory that NumPy takes over without a copy (module `array`), pictures and tokens come as bytes.

mod array;
mod cache;
mod data;
mod failure;
mod measures;
mod model;
#[cfg(feature = "networks")]
mod networks;
mod pictures;
mod process;
mod stream;
mod watch;
mod weights_files;

use pyo3::prelude::*;

/// The compiled half of the package `alitok`; use `alitok` itself.
#[pymodule(gil_used = false)]
fn _alitok(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("NETWORKS", cfg!(feature = "networks"))?;
    array::add(module)?;
    model::add(module)?;
    stream::add(module)?;
    data::add(module)?;
    cache::add(module)?;
    measures::add(module)?;
    weights_files::add(module)?;
    #[cfg(feature = "networks")]
    networks::add(module)?;
    // It would list what is here, which nobody imports by a star.
    module.delattr("__all__")
}
