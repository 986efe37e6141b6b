//! Tensors by name, outside of any device.

use std::collections::BTreeMap;

/// A tensor outside of any device: row-major values and their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Extent of each dimension; empty for a single number.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// A tensor of this shape.
    ///
    /// # Panics
    /// If the number of values is not the product of the shape.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Self { shape, values }
    }

    /// The matrix with rows and columns exchanged.
    ///
    /// # Panics
    /// If the tensor is not a matrix.
    pub fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else {
            panic!("a tensor of shape {:?} is no matrix", self.shape);
        };
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend((0..rows).map(|row| self.values[row * columns + column]));
        }
        Self { shape: vec![columns, rows], values }
    }
}

/// Named tensors in the order of their names.
pub type TensorMap = BTreeMap<String, HostTensor>;

/// A parameter that does not fit the tensors it should be loaded from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The module has a parameter for which there is no tensor.
    #[error("tensor `{name}` is missing (expected shape {expected:?})")]
    Missing {
        /// Name of the parameter.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// There is a tensor for which the module has no parameter.
    #[error("tensor `{name}` of shape {shape:?} belongs to no parameter of the model")]
    Unused {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Both exist and differ in shape.
    #[error("tensor `{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Name of both.
        name: String,
        /// Shape of the parameter.
        expected: Vec<usize>,
        /// Shape of the tensor.
        got: Vec<usize>,
    },
}

/// The first few problems, and how many more there are.
pub fn list_problems(problems: &[ParameterError]) -> String {
    const SHOWN: usize = 3;
    let mut text =
        problems.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text += &format!("; and {} more", problems.len() - SHOWN);
    }
    text
}
