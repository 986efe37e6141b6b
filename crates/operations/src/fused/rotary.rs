//! Queries and keys normed and turned to their positions, where they lie.
//!
//! Out of single operations that takes a dozen passes over memory, and as many tensors kept for the
//! backward pass; here it is one, which keeps nothing but its input.

use burn::{
    backend::{
        Autodiff, Backend, Flex, TensorMetadata,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::TensorData,
};
use numerics::vectorized;
use rayon::prelude::*;

use super::{
    differentiable::differentiable,
    flex::{row_major, values},
    lanes::{self, Statistics},
};

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
                                lanes::normalize_backward(
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
