//! What a step measures.

use burn::tensor::Tensor;

/// Named numbers of a step, or their means over several.
pub type Measures = Vec<(&'static str, f64)>;

/// A loss, or another tensor of one value, as a measure.
pub(crate) fn scalar(tensor: &Tensor<1>) -> f64 {
    f64::from(operations::parameters::host_tensor(tensor.clone()).values[0])
}
