//! Queries and keys normed and turned to their positions, where they lie.
//!
//! Out of single operations that takes a dozen passes over memory, and as many tensors kept for the
//! backward pass; here it is one, which keeps nothing but its input.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};
use numerics::vectorized;
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{row_major, values},
    is_fusible,
    normalization::{Statistics, normalize_backward},
};

/// Queries and keys of each head divided by their root mean square and scaled, then each number
/// times its cosine plus the other one of its pair times its sine. Values are kept. No gradient
/// reaches the tables.
///
/// # Shapes
/// `query_key_value [batch, length, 3·width]`, kept, as
/// [`self_attention`](super::self_attention()) takes it; `query_scale` and
/// `key_scale [head]`; `cosines` and `sines [length, head]`.
///
/// # Panics
/// If the shapes do not fit, or heads are of an odd width.
pub fn normalize_and_rotate(
    query_key_value: Tensor<3>,
    query_scale: Tensor<1>,
    key_scale: Tensor<1>,
    cosines: Tensor<2>,
    sines: Tensor<2>,
    epsilon: f64,
) -> Tensor<3> {
    let ([_, length, packed], [head]) = (query_key_value.dims(), query_scale.dims());
    assert!(head.is_multiple_of(2) && packed.is_multiple_of(3 * head), "{packed} of {head}");
    assert_eq!(key_scale.dims(), [head], "widths of query and key");
    assert_eq!([cosines.dims(), sines.dims()], [[length, head]; 2], "tables of all positions");
    let scales = [&query_scale, &key_scale].into_iter().all(is_fusible);
    if is_fusible(&query_key_value) && scales && is_fusible(&cosines) && is_fusible(&sines) {
        Tensor::from_dispatch(Dispatch::fused_rotary(
            query_key_value.into_dispatch(),
            query_scale.into_dispatch(),
            key_scale.into_dispatch(),
            cosines.into_dispatch(),
            sines.into_dispatch(),
            epsilon as f32,
        ))
    } else {
        composed::normalize_and_rotate(
            query_key_value,
            query_scale,
            key_scale,
            cosines,
            sines,
            epsilon,
        )
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait RotaryOperations: Backend {
    /// `packed [batch, length, 3·width]`, `query_scale` and `key_scale [head]`, `cosines` and
    /// `sines [length, head]`.
    fn fused_rotary(
        packed: FloatTensor<Self>,
        query_scale: FloatTensor<Self>,
        key_scale: FloatTensor<Self>,
        cosines: FloatTensor<Self>,
        sines: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait RotaryGradients: RotaryOperations {
    /// The gradients for queries, keys and values side by side, and for both scales.
    fn rotary_gradient(
        state: [FloatTensor<Self>; 5],
        gradient: FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 3];
}

impl<B: RotaryGradients, C: CheckpointStrategy> RotaryOperations for Autodiff<B, C> {
    fn fused_rotary(
        packed: FloatTensor<Self>,
        query_scale: FloatTensor<Self>,
        key_scale: FloatTensor<Self>,
        cosines: FloatTensor<Self>,
        sines: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        // Tables of constants.
        let ((cosines, _), (sines, _)) = (cosines.into_parts(), sines.into_parts());
        differentiable::<B, C, _, 3>(
            [packed, query_scale, key_scale],
            |[packed, query_scale, key_scale], keep| {
                let state = keep.then(|| {
                    [&packed, &query_scale, &key_scale, &cosines, &sines]
                        .map(FloatTensor::<B>::clone)
                });
                let output =
                    B::fused_rotary(packed, query_scale, key_scale, cosines, sines, epsilon);
                (output, state)
            },
            move |state, gradient, _| B::rotary_gradient(state, gradient, epsilon).map(Some),
        )
    }
}

/// Tokens that one task works on.
const TOKENS: usize = 8;

/// The two tables at a token's place in its sequence.
fn angles<'a>(
    cosines: &'a [f32],
    sines: &'a [f32],
    token: usize,
    head: usize,
) -> (&'a [f32], &'a [f32]) {
    let row = token % (cosines.len() / head) * head;
    (&cosines[row..row + head], &sines[row..row + head])
}

impl RotaryOperations for Flex {
    fn fused_rotary(
        packed: FlexTensor,
        query_scale: FlexTensor,
        key_scale: FlexTensor,
        cosines: FlexTensor,
        sines: FlexTensor,
        epsilon: f32,
    ) -> FlexTensor {
        let [packed, query_scale, key_scale, cosines, sines] =
            [packed, query_scale, key_scale, cosines, sines].map(row_major);
        let row = packed.shape().last().copied().unwrap_or(1);
        let (width, scales) = (row / 3, [values(&query_scale), values(&key_scale)]);
        let (head, cosines, sines) = (scales[0].len(), values(&cosines), values(&sines));
        let mut output = values(&packed).to_vec();
        output.par_chunks_mut(TOKENS * row).enumerate().for_each(|(chunk, output)| {
            vectorized(|| {
                for (place, output) in output.chunks_exact_mut(row).enumerate() {
                    let (cosines, sines) = angles(cosines, sines, chunk * TOKENS + place, head);
                    for (part, scale) in output.chunks_exact_mut(width).zip(scales) {
                        for vector in part.chunks_exact_mut(head) {
                            let statistics = Statistics::of(vector, false, epsilon);
                            for (x, scale) in vector.iter_mut().zip(scale) {
                                *x = statistics.normalize(*x) * scale;
                            }
                            rotate(vector, cosines, sines);
                        }
                    }
                }
            });
        });
        FlexTensor::from_data(TensorData::new(output, packed.shape()))
    }
}

impl RotaryGradients for Flex {
    fn rotary_gradient(
        state: [FlexTensor; 5],
        gradient: FlexTensor,
        epsilon: f32,
    ) -> [FlexTensor; 3] {
        let [packed, query_scale, key_scale, cosines, sines] = state.map(row_major);
        let mut gradient = row_major(gradient);
        let row = packed.shape().last().copied().unwrap_or(1);
        let (width, scales) = (row / 3, [values(&query_scale), values(&key_scale)]);
        let (head, cosines, sines) = (scales[0].len(), values(&cosines), values(&sines));
        let partial_sums: Vec<[Vec<f32>; 2]> = super::flex::values_mut(&mut gradient)
            .par_chunks_mut(TOKENS * row)
            .zip(values(&packed).par_chunks(TOKENS * row))
            .enumerate()
            .map(|(chunk, (gradient, packed))| {
                let mut sums = [vec![0.0; head], vec![0.0; head]];
                // Without a shift, whose sum nobody asks for.
                let mut unused = vec![0.0; head];
                vectorized(|| {
                    let rows = gradient.chunks_exact_mut(row).zip(packed.chunks_exact(row));
                    for (place, (gradient, packed)) in rows.enumerate() {
                        let (cosines, sines) = angles(cosines, sines, chunk * TOKENS + place, head);
                        let parts =
                            gradient.chunks_exact_mut(width).zip(packed.chunks_exact(width));
                        for ((part, packed), (scale, sum)) in
                            parts.zip(scales.into_iter().zip(&mut sums))
                        {
                            let vectors =
                                part.chunks_exact_mut(head).zip(packed.chunks_exact(head));
                            for (vector, x) in vectors {
                                rotate_back(vector, cosines, sines);
                                let statistics = Statistics::of(x, false, epsilon);
                                normalize_backward(
                                    x,
                                    scale,
                                    statistics,
                                    false,
                                    vector,
                                    sum,
                                    &mut unused,
                                );
                            }
                        }
                    }
                });
                sums
            })
            .collect();
        let mut totals = [vec![0.0; head], vec![0.0; head]];
        for partial in partial_sums {
            for (total, partial) in totals.iter_mut().zip(partial) {
                total.iter_mut().zip(partial).for_each(|(total, partial)| *total += partial);
            }
        }
        let [query, key] =
            totals.map(|total| FlexTensor::from_data(TensorData::new(total, [head])));
        [gradient, query, key]
    }
}

/// Multiplies each number by its cosine and adds the other of its pair times its sine.
#[inline(always)]
fn rotate(vector: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (pairs, _) = vector.as_chunks_mut::<2>();
    let (cosines, _) = cosines.as_chunks::<2>();
    let (sines, _) = sines.as_chunks::<2>();
    for ((pair, cosine), sine) in pairs.iter_mut().zip(cosines).zip(sines) {
        let [a, b] = *pair;
        *pair = [a * cosine[0] + b * sine[0], b * cosine[1] + a * sine[1]];
    }
}

/// The transpose of [`rotate`].
#[inline(always)]
fn rotate_back(vector: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (pairs, _) = vector.as_chunks_mut::<2>();
    let (cosines, _) = cosines.as_chunks::<2>();
    let (sines, _) = sines.as_chunks::<2>();
    for ((pair, cosine), sine) in pairs.iter_mut().zip(cosines).zip(sines) {
        let [a, b] = *pair;
        *pair = [a * cosine[0] + b * sine[1], b * cosine[1] + a * sine[0]];
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, TensorData};

    use super::super::normalization::composed::rms_norm;

    /// [`normalize_and_rotate`](super::normalize_and_rotate), operation by operation.
    pub fn normalize_and_rotate(
        query_key_value: Tensor<3>,
        query_scale: Tensor<1>,
        key_scale: Tensor<1>,
        cosines: Tensor<2>,
        sines: Tensor<2>,
        epsilon: f64,
    ) -> Tensor<3> {
        let [batch, length, packed] = query_key_value.dims();
        let (width, [head]) = (packed / 3, query_scale.dims());
        // A product with a permutation exchanges the numbers of each pair exactly, and is the one way
        // to do so that is fast on every device, forward and backward.
        let mut exchange = vec![0.0f32; head * head];
        for number in 0..head {
            exchange[(number ^ 1) * head + number] = 1.0;
        }
        let device = query_key_value.device();
        let exchange = Tensor::<2>::from_data(TensorData::new(exchange, [head, head]), &device);
        let part = |index: usize| {
            query_key_value.clone().slice([0..batch, 0..length, index * width..(index + 1) * width])
        };
        let turned = |x: Tensor<3>, scale| {
            let x = rms_norm(x.reshape([batch, length, width / head, head]), scale, epsilon);
            let exchanged = x.clone().matmul(exchange.clone().unsqueeze());
            let table = |table: &Tensor<2>| table.clone().reshape([1, length, 1, head]);
            (x * table(&cosines) + exchanged * table(&sines)).reshape([batch, length, width])
        };
        Tensor::cat(vec![turned(part(0), query_scale), turned(part(1), key_scale), part(2)], 2)
    }
}
