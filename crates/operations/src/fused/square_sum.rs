//! The sum of squares, which optimizers ask of gradients.

use burn::{
    backend::{Backend, Dispatch, Flex, backend_extension, flex::FlexTensor, tensor::FloatTensor},
    tensor::{Tensor, TensorData},
};
use numerics::vectorized;
use rayon::prelude::*;

use super::{
    flex::{CHUNK, row_major, values},
    is_fusible, rows,
};

/// The sum of all squares, without a gradient.
///
/// # Shapes
/// Any → `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let x = if x.is_autodiff() { x.inner() } else { x };
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_square_sum(x.into_dispatch()))
    } else {
        x.square().sum()
    }
}

/// Without a gradient.
#[backend_extension(Flex)]
pub(crate) trait SquareSumOperations: Backend {
    /// The sum of all squares, `[1]`.
    fn fused_square_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SquareSumOperations for Flex {
    fn fused_square_sum(x: FlexTensor) -> FlexTensor {
        let x = row_major(x);
        let partial_sums: Vec<f32> = values(&x)
            .par_chunks(CHUNK)
            .map(|chunk| {
                let mut sum = 0.0;
                vectorized(|| sum = rows::sum(chunk, |x| x * x));
                sum
            })
            .collect();
        let sum = partial_sums.into_iter().map(f64::from).sum::<f64>() as f32;
        FlexTensor::from_data(TensorData::new(vec![sum], [1]))
    }
}
