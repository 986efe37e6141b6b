//! Layer normalization and root mean square normalization.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, autodiff::checkpoint::strategy::CheckpointStrategy,
        backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::Tensor,
};
use numerics::vectorized;
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{for_each_chunk, row_major, tensor_like, values, values_mut, whole_rows},
    is_fusible,
    rows::{sum, sum_pairs},
};

/// Layer normalization over the last dimension: (x − mean) / √(variance + ε) · scale + shift.
///
/// # Shapes
/// `x [.., width]`, kept; `scale` and `shift [width]`.
///
/// # Panics
/// If the widths differ.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    assert_eq!(x.dims().last(), scale.dims().last(), "width of x and scale");
    assert_eq!(x.dims().last(), shift.dims().last(), "width of x and shift");
    if is_fusible(&x) && is_fusible(&scale) && is_fusible(&shift) {
        let (x, scale) = (x.into_dispatch(), scale.into_dispatch());
        let epsilon = epsilon as f32;
        Tensor::from_dispatch(Dispatch::fused_layer_norm(x, scale, shift.into_dispatch(), epsilon))
    } else {
        composed::layer_norm(x, scale, shift, epsilon)
    }
}

/// Root mean square normalization over the last dimension: x / √(mean of x² + ε) · scale.
///
/// # Shapes
/// `x [.., width]`, kept; `scale [width]`.
///
/// # Panics
/// If the widths differ.
pub fn rms_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!(x.dims().last(), scale.dims().last(), "width of x and scale");
    if is_fusible(&x) && is_fusible(&scale) {
        let (x, scale) = (x.into_dispatch(), scale.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_rms_norm(x, scale, epsilon as f32))
    } else {
        composed::rms_norm(x, scale, epsilon)
    }
}

/// The forward passes.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait NormalizationOperations: Backend {
    /// Layer normalization over the last dimension.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// Root mean square normalization over the last dimension.
    fn fused_rms_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// The backward passes; each may write into the gradient it is given.
pub(crate) trait NormalizationGradients: NormalizationOperations {
    /// The gradients for `x`, scale and shift.
    fn layer_norm_gradient(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 3];

    /// The gradients for `x` and scale.
    fn rms_norm_gradient(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 2];
}

impl<B: NormalizationGradients, C: CheckpointStrategy> NormalizationOperations for Autodiff<B, C> {
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 3>(
            [x, scale, shift],
            |[x, scale, shift], keep| {
                let state = keep.then(|| (x.clone(), scale.clone()));
                (B::fused_layer_norm(x, scale, shift, epsilon), state)
            },
            move |(x, scale), gradient, _| {
                B::layer_norm_gradient(x, scale, gradient, epsilon).map(Some)
            },
        )
    }

    fn fused_rms_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [x, scale],
            |[x, scale], keep| {
                let state = keep.then(|| (x.clone(), scale.clone()));
                (B::fused_rms_norm(x, scale, epsilon), state)
            },
            move |(x, scale), gradient, _| {
                B::rms_norm_gradient(x, scale, gradient, epsilon).map(Some)
            },
        )
    }
}

impl NormalizationOperations for Flex {
    fn fused_layer_norm(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        normalize(x, scale, Some(shift), epsilon)
    }

    fn fused_rms_norm(x: FlexTensor, scale: FlexTensor, epsilon: f32) -> FlexTensor {
        normalize(x, scale, None, epsilon)
    }
}

impl NormalizationGradients for Flex {
    fn layer_norm_gradient(
        x: FlexTensor,
        scale: FlexTensor,
        gradient: FlexTensor,
        epsilon: f32,
    ) -> [FlexTensor; 3] {
        normalize_gradient(x, scale, gradient, true, epsilon)
    }

    fn rms_norm_gradient(
        x: FlexTensor,
        scale: FlexTensor,
        gradient: FlexTensor,
        epsilon: f32,
    ) -> [FlexTensor; 2] {
        let [x, scale, _] = normalize_gradient(x, scale, gradient, false, epsilon);
        [x, scale]
    }
}

/// `scale · normalized x + shift` by rows; without a shift, rows are not centered.
fn normalize(
    x: FlexTensor,
    scale: FlexTensor,
    shift: Option<FlexTensor>,
    epsilon: f32,
) -> FlexTensor {
    let (x, scale) = (row_major(x), row_major(scale));
    let shift = shift.map(row_major);
    let (input, scale, shift) = (values(&x), values(&scale), shift.as_ref().map(values));
    let width = scale.len();
    let mut output = vec![0.0; input.len()];
    for_each_chunk(&mut output, whole_rows(width), |start, out| {
        for (out, row) in out.chunks_exact_mut(width).zip(input[start..].chunks_exact(width)) {
            let statistics = Statistics::of(row, shift.is_some(), epsilon);
            for ((out, &x), scale) in out.iter_mut().zip(row).zip(scale) {
                *out = statistics.normalize(x) * scale;
            }
            for (out, shift) in out.iter_mut().zip(shift.unwrap_or_default()) {
                *out += shift;
            }
        }
    });
    tensor_like(&x, output)
}

/// The gradients for x, scale and shift.
fn normalize_gradient(
    x: FlexTensor,
    scale: FlexTensor,
    gradient: FlexTensor,
    centered: bool,
    epsilon: f32,
) -> [FlexTensor; 3] {
    let (x, scale, mut gradient) = (row_major(x), row_major(scale), row_major(gradient));
    let (input, scales) = (values(&x), values(&scale));
    let width = scales.len();
    let chunk = whole_rows(width);
    let partial_sums: Vec<_> = values_mut(&mut gradient)
        .par_chunks_mut(chunk)
        .zip(input.par_chunks(chunk))
        .map(|(gradient, input)| {
            let (mut for_scale, mut for_shift) = (vec![0.0; width], vec![0.0; width]);
            vectorized(|| {
                for (g, row) in gradient.chunks_exact_mut(width).zip(input.chunks_exact(width)) {
                    let statistics = Statistics::of(row, centered, epsilon);
                    let sums = (&mut for_scale[..], &mut for_shift[..]);
                    normalize_backward(row, scales, statistics, centered, g, sums.0, sums.1);
                }
            });
            [for_scale, for_shift]
        })
        .collect();
    let mut totals = [vec![0.0; width], vec![0.0; width]];
    for partial in partial_sums {
        for (total, partial) in totals.iter_mut().zip(partial) {
            total.iter_mut().zip(partial).for_each(|(total, partial)| *total += partial);
        }
    }
    let [for_scale, for_shift] = totals.map(|total| tensor_like(&scale, total));
    [gradient, for_scale, for_shift]
}

/// What a row is moved and scaled by to have mean 0 (if `centered`) and mean square 1.
#[derive(Clone, Copy)]
pub(super) struct Statistics {
    mean: f32,
    inverse_deviation: f32,
}

impl Statistics {
    #[inline(always)]
    pub(super) fn of(row: &[f32], centered: bool, epsilon: f32) -> Self {
        let per_value = 1.0 / row.len() as f32;
        let mean = if centered { sum(row, |x| x) * per_value } else { 0.0 };
        let variance = sum(row, |x| (x - mean) * (x - mean)) * per_value;
        Self { mean, inverse_deviation: 1.0 / (variance + epsilon).sqrt() }
    }

    #[inline(always)]
    pub(super) fn normalize(self, x: f32) -> f32 {
        (x - self.mean) * self.inverse_deviation
    }
}

/// Turns the gradient of a normalized and scaled row into that of the row, in place; adds what
/// belongs to scale and shift to theirs.
#[inline(always)]
pub(super) fn normalize_backward(
    row: &[f32],
    scale: &[f32],
    statistics: Statistics,
    centered: bool,
    gradient: &mut [f32],
    for_scale: &mut [f32],
    for_shift: &mut [f32],
) {
    for ((g, &x), total) in gradient.iter().zip(row).zip(for_scale) {
        *total += g * statistics.normalize(x);
    }
    for (g, total) in gradient.iter().zip(for_shift) {
        *total += g;
    }
    for (g, scale) in gradient.iter_mut().zip(scale) {
        *g *= scale;
    }
    let per_value = 1.0 / row.len() as f32;
    let mean = if centered { sum(gradient, |g| g) * per_value } else { 0.0 };
    let slope = sum_pairs(gradient, row, |g, x| g * statistics.normalize(x)) * per_value;
    for (g, &x) in gradient.iter_mut().zip(row) {
        let normalized = statistics.normalize(x);
        *g = (*g - mean - normalized * slope) * statistics.inverse_deviation;
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, module};

    /// [`layer_norm`](super::layer_norm) as Burn has it.
    pub fn layer_norm<const D: usize>(
        x: Tensor<D>,
        scale: Tensor<1>,
        shift: Tensor<1>,
        epsilon: f64,
    ) -> Tensor<D> {
        module::layer_norm(x, scale, Some(shift), epsilon)
    }

    /// [`rms_norm`](super::rms_norm) as in Burn's module of that name.
    pub fn rms_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>, epsilon: f64) -> Tensor<D> {
        let mean_square = x.clone().square().mean_dim(D - 1);
        x / (mean_square + epsilon).sqrt() * scale.unsqueeze()
    }
}
