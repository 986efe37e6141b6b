//! Linear layers: a product with the weight, and a bias.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{DType, FloatDType, Tensor, TensorData},
};
use numerics::{round_to_bf16, vectorized};
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{
        CHUNK, for_each_chunk, row_major, tensor_of_width, values, values_mut, whole_rows, width,
    },
    is_fusible,
    product::{Matrix, Precision, product_in},
};

/// x · weight + bias, over the last dimension of `x`.
///
/// A weight in bfloat16 has the product done in it: numbers in single precision are rounded on the
/// way in and the result on the way out, and so are the gradients on their way back. Sums run in
/// single precision.
///
/// # Shapes
/// `x [.., inputs]`, `weight [inputs, outputs]`, `bias [outputs]` → `[.., outputs]`.
///
/// # Panics
/// If the widths differ.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [inputs, outputs] = weight.dims();
    assert_eq!(x.dims().last(), Some(&inputs), "width of x and weight");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]), "width of weight and bias");
    let is_half = weight.dtype() == DType::BF16 && x.dtype() == DType::F32;
    let bias_is_fusible = bias.as_ref().is_none_or(is_fusible);
    let (half, single) = (FloatDType::BF16, FloatDType::F32);
    if is_fusible(&x) && bias_is_fusible && (is_half || is_fusible(&weight)) {
        let precision = if is_half { Precision::Bf16 } else { Precision::Single };
        let weight = if is_half { weight.cast(single) } else { weight };
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        Tensor::from_dispatch(match bias {
            Some(bias) => Dispatch::fused_affine(x, weight, bias.into_dispatch(), precision),
            None => Dispatch::fused_linear(x, weight, precision),
        })
    } else if is_half {
        composed::linear(x.cast(half), weight, bias.map(|bias| bias.cast(half))).cast(single)
    } else {
        composed::linear(x, weight, bias)
    }
}

/// The forward passes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearOperations: Backend {
    /// x · weight over the last dimension.
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// x · weight + bias over the last dimension.
    fn fused_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

/// The backward passes; each may write into the gradient it is given.
pub(crate) trait LinearGradients: LinearOperations {
    /// The gradient for a linear layer's input.
    fn linear_input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// The gradient for a linear layer's weight.
    fn linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// The gradient for a linear layer's bias.
    fn linear_bias_gradient(gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: LinearGradients, C: CheckpointStrategy> LinearOperations for Autodiff<B, C> {
    fn fused_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [x, weight],
            |[x, weight], keep| {
                let state = keep.then(|| (x.clone(), weight.clone()));
                (B::fused_linear(x, weight, precision), state)
            },
            move |state, gradient, waited_for| {
                linear_gradients::<B, 2>(state, gradient, waited_for, precision)
            },
        )
    }

    fn fused_affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [x, weight, bias],
            |[x, weight, bias], keep| {
                let state = keep.then(|| (x.clone(), weight.clone()));
                (B::fused_affine(x, weight, bias, precision), state)
            },
            move |state, gradient, waited_for| {
                linear_gradients::<B, 3>(state, gradient, waited_for, precision)
            },
        )
    }
}

impl LinearOperations for Flex {
    fn fused_linear(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        let mut output = multiply(x, weight, precision);
        round(&mut output, precision);
        output
    }

    fn fused_affine(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let outputs = width(&weight);
        let mut output = multiply(x, weight, precision);
        let bias = row_major(bias);
        let bias = values(&bias);
        for_each_chunk(values_mut(&mut output), whole_rows(outputs), |_, rows| {
            for row in rows.chunks_exact_mut(outputs) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        });
        round(&mut output, precision);
        output
    }
}

impl LinearGradients for Flex {
    fn linear_input_gradient(
        weight: FlexTensor,
        gradient: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let (weight, gradient) = (row_major(weight), row_major(gradient));
        let outputs = width(&weight);
        let inputs = values(&weight).len() / outputs.max(1);
        let left = Matrix::packed(values(&gradient), outputs);
        let right = Matrix::packed(values(&weight), outputs).transposed();
        let mut result = tensor_of_width(&gradient, inputs, product_in(precision, left, right));
        round(&mut result, precision);
        result
    }

    fn linear_weight_gradient(
        x: FlexTensor,
        gradient: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let (x, gradient) = (row_major(x), row_major(gradient));
        let (inputs, outputs) = (width(&x), width(&gradient));
        let left = Matrix::packed(values(&x), inputs).transposed();
        let right = Matrix::packed(values(&gradient), outputs);
        let values = product_in(precision, left, right);
        FlexTensor::from_data(TensorData::new(values, [inputs, outputs]))
    }

    fn linear_bias_gradient(gradient: FlexTensor) -> FlexTensor {
        let gradient = row_major(gradient);
        let outputs = width(&gradient);
        let values = sum_rows(values(&gradient), outputs);
        FlexTensor::from_data(TensorData::new(values, [outputs]))
    }
}

/// x · weight over the last dimension.
fn multiply(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
    let (x, weight) = (row_major(x), row_major(weight));
    let left = Matrix::packed(values(&x), width(&x));
    let right = Matrix::packed(values(&weight), width(&weight));
    tensor_of_width(&x, width(&weight), product_in(precision, left, right))
}

/// Rounds what a product in this precision gives.
fn round(result: &mut FlexTensor, precision: Precision) {
    if precision == Precision::Bf16 {
        for_each_chunk(values_mut(result), CHUNK, |_, out| {
            for out in out {
                *out = round_to_bf16(*out);
            }
        });
    }
}

/// The sum of all rows, in an order that depends on their number alone.
fn sum_rows(values: &[f32], width: usize) -> Vec<f32> {
    let partial_sums: Vec<Vec<f32>> = values
        .par_chunks(whole_rows(width))
        .map(|chunk| {
            let mut sum = vec![0.0; width];
            vectorized(|| {
                for row in chunk.chunks_exact(width) {
                    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
            });
            sum
        })
        .collect();
    let mut total = vec![0.0; width];
    for partial in partial_sums {
        total.iter_mut().zip(partial).for_each(|(total, partial)| *total += partial);
    }
    total
}

/// Gradients of a linear layer's input, weight and, if it has one, bias. Each costs a product of its
/// own: only what somebody waits for.
fn linear_gradients<B: LinearGradients, const N: usize>(
    (x, weight): (FloatTensor<B>, FloatTensor<B>),
    gradient: FloatTensor<B>,
    waited_for: [bool; N],
    precision: Precision,
) -> [Option<FloatTensor<B>>; N] {
    std::array::from_fn(|place| {
        let found = || match place {
            0 => B::linear_input_gradient(weight.clone(), gradient.clone(), precision),
            1 => B::linear_weight_gradient(x.clone(), gradient.clone(), precision),
            _ => B::linear_bias_gradient(gradient.clone()),
        };
        waited_for[place].then(found)
    })
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, module};

    /// [`linear`](super::linear) as Burn has it.
    pub fn linear<const D: usize>(
        x: Tensor<D>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        module::linear(x, weight, bias)
    }
}
