//! Arrays on their way to NumPy, without a copy and without its C interface.

use pyo3::{prelude::*, types::PyDict};

/// Numbers that NumPy reads where they are: `numpy.asarray(array)` keeps this object alive.
#[pyclass(frozen, module = "alitok._alitok")]
pub(crate) struct Array {
    shape: Vec<usize>,
    /// NumPy's name of the element type.
    kind: &'static str,
    address: usize,
    /// Never touched again: NumPy may write to it.
    _values: Values,
}

enum Values {
    U8(#[expect(dead_code, reason = "owns the memory")] Vec<u8>),
    U16(#[expect(dead_code, reason = "owns the memory")] Vec<u16>),
    I64(#[expect(dead_code, reason = "owns the memory")] Vec<i64>),
    F32(#[expect(dead_code, reason = "owns the memory")] Vec<f32>),
    F64(#[expect(dead_code, reason = "owns the memory")] Vec<f64>),
}

/// The byte order of this machine, as NumPy writes it.
macro_rules! kind {
    ($name:literal) => {
        if cfg!(target_endian = "big") { concat!(">", $name) } else { concat!("<", $name) }
    };
}

impl Array {
    fn new(shape: Vec<usize>, kind: &'static str, address: usize, values: Values) -> Self {
        Self { shape, kind, address, _values: values }
    }

    /// Bytes of this shape.
    pub(crate) fn u8(shape: impl Into<Vec<usize>>, mut values: Vec<u8>) -> Self {
        Self::new(shape.into(), "|u1", values.as_mut_ptr() as usize, Values::U8(values))
    }

    /// Numbers of 16 bits of this shape.
    pub(crate) fn u16(shape: impl Into<Vec<usize>>, mut values: Vec<u16>) -> Self {
        Self::new(shape.into(), kind!("u2"), values.as_mut_ptr() as usize, Values::U16(values))
    }

    /// Integers of this shape.
    pub(crate) fn i64(shape: impl Into<Vec<usize>>, mut values: Vec<i64>) -> Self {
        Self::new(shape.into(), kind!("i8"), values.as_mut_ptr() as usize, Values::I64(values))
    }

    /// Numbers of this shape in single precision.
    pub(crate) fn f32(shape: impl Into<Vec<usize>>, mut values: Vec<f32>) -> Self {
        Self::new(shape.into(), kind!("f4"), values.as_mut_ptr() as usize, Values::F32(values))
    }

    /// Numbers of this shape in double precision.
    pub(crate) fn f64(shape: impl Into<Vec<usize>>, mut values: Vec<f64>) -> Self {
        Self::new(shape.into(), kind!("f8"), values.as_mut_ptr() as usize, Values::F64(values))
    }
}

#[pymethods]
impl Array {
    /// What `numpy.asarray` reads.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", pyo3::types::PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", self.kind)?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Array>()
}
