//! The operations on the CPU backend: one pass over memory, on all threads.
//!
//! Work is cut into chunks whose size depends on the shapes alone, and no number is summed
//! across chunks except in their order, so results do not depend on the number of threads.

use burn::{
    backend::{Flex, TensorMetadata, flex::FlexTensor},
    tensor::TensorData,
};
use numerics::{clamp, gelu, gelu_derivative, round_to_bf16, sigmoid, vectorized};
use rayon::prelude::*;

use super::{
    backend::{FusedGradients, FusedOperations, Precision, UpdateOperations},
    lanes::{self, FUSED, Statistics},
    product::{Matrix, product_in},
    self_attention::{AttentionDropout, SelfAttention},
};

/// How many numbers one task works on; half of a core's first-level cache, and long enough to be
/// worth handing to another thread.
const CHUNK: usize = 1 << 13;

/// Row-major, from the start of its buffer; not copied where it is so already.
pub(super) fn row_major(tensor: FlexTensor) -> FlexTensor {
    // `to_contiguous` borrows: it would leave two owners of the buffer and so force a copy later.
    if tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The numbers of a row-major tensor; its buffer may be longer.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    &tensor.storage::<f32>()[..tensor.layout().num_elements()]
}

/// The numbers of a row-major tensor to write on; copies them first if somebody else reads them.
pub(super) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let count = tensor.layout().num_elements();
    &mut tensor.storage_mut::<f32>()[..count]
}

/// A new tensor of the same shape.
fn tensor_like(like: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, like.shape()))
}

/// Calls `work` for every chunk of `chunk` numbers, here if there is only one.
fn for_each_chunk(out: &mut [f32], chunk: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() <= chunk {
        if !out.is_empty() {
            vectorized(|| work(0, out));
        }
    } else {
        out.par_chunks_mut(chunk)
            .enumerate()
            .for_each(|(index, out)| vectorized(|| work(index * chunk, out)));
    }
}

/// How many numbers make up a task of whole rows.
pub(super) fn whole_rows(row: usize) -> usize {
    row * (CHUNK / row).max(1)
}

/// `f(x)`, into the buffer of `x` if nobody else reads it.
fn map(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let mut x = row_major(x);
    if x.is_unique() {
        for_each_chunk(values_mut(&mut x), CHUNK, |_, out| {
            for out in out {
                *out = f(*out);
            }
        });
        x
    } else {
        let input = values(&x);
        let mut output = vec![0.0; input.len()];
        for_each_chunk(&mut output, CHUNK, |start, out| {
            for (out, &x) in out.iter_mut().zip(&input[start..]) {
                *out = f(x);
            }
        });
        tensor_like(&x, output)
    }
}

/// `f(a, b)`, into the buffer of `a` if nobody else reads it.
fn zip(a: FlexTensor, b: FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
    let (mut a, b) = (row_major(a), row_major(b));
    let right = values(&b);
    if a.is_unique() {
        for_each_chunk(values_mut(&mut a), CHUNK, |start, out| {
            for (out, &b) in out.iter_mut().zip(&right[start..]) {
                *out = f(*out, b);
            }
        });
        a
    } else {
        let left = values(&a);
        let mut output = vec![0.0; left.len()];
        for_each_chunk(&mut output, CHUNK, |start, out| {
            for ((out, &a), &b) in out.iter_mut().zip(&left[start..]).zip(&right[start..]) {
                *out = f(a, b);
            }
        });
        tensor_like(&a, output)
    }
}

/// How many keys each query sees, and their number.
fn attention_rows(
    scores: &FlexTensor,
    causal: bool,
) -> (usize, impl Fn(usize) -> usize + Sync + use<>) {
    let shape = scores.shape();
    let [queries, keys] = [shape[2], shape[3]];
    let visible = move |row: usize| if causal { keys - queries + row % queries + 1 } else { keys };
    (keys, visible)
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
                    lanes::normalize_backward(row, scales, statistics, centered, g, sums.0, sums.1);
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

/// The last dimension, which rows are made of.
fn width(tensor: &FlexTensor) -> usize {
    tensor.shape().last().copied().unwrap_or(1)
}

/// A new tensor of the same shape but for its last dimension.
fn tensor_of_width(like: &FlexTensor, width: usize, values: Vec<f32>) -> FlexTensor {
    let mut shape = like.shape();
    let last = shape.num_dims() - 1;
    shape[last] = width;
    FlexTensor::from_data(TensorData::new(values, shape))
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

impl UpdateOperations for Flex {
    fn fused_square_sum(x: FlexTensor) -> FlexTensor {
        let x = row_major(x);
        let partial_sums: Vec<f32> = values(&x)
            .par_chunks(CHUNK)
            .map(|chunk| {
                let mut sum = 0.0;
                vectorized(|| sum = lanes::square_sum(chunk));
                sum
            })
            .collect();
        let sum = partial_sums.into_iter().map(f64::from).sum::<f64>() as f32;
        FlexTensor::from_data(TensorData::new(vec![sum], [1]))
    }
}

/// x · weight over the last dimension.
fn linear(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
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

impl FusedOperations for Flex {
    fn fused_linear(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        let mut output = linear(x, weight, precision);
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
        let mut output = linear(x, weight, precision);
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

    fn fused_self_attention(
        packed: FlexTensor,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FlexTensor {
        let packed = row_major(packed);
        let attention = SelfAttention::of(&packed.shape(), heads, causal, dropout);
        let output = attention.forward(values(&packed));
        tensor_of_width(&packed, attention.width(), output)
    }

    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        map(x, gelu::<FUSED>)
    }

    fn fused_leaky_relu(x: FlexTensor, slope: f32) -> FlexTensor {
        map(x, |x| if x > 0.0 { x } else { slope * x })
    }

    fn fused_clamp(x: FlexTensor, low: f32, high: f32) -> FlexTensor {
        map(x, |x| clamp(x, low, high))
    }

    fn fused_shifted_clamp(x: FlexTensor, bias: FlexTensor, low: f32, high: f32) -> FlexTensor {
        let (mut x, bias) = (row_major(x), row_major(bias));
        let bias = values(&bias);
        for_each_chunk(values_mut(&mut x), whole_rows(bias.len()), |_, out| {
            lanes::shifted_clamp(out, bias, low, high);
        });
        x
    }

    fn fused_scaled_softmax(scores: FlexTensor, scale: f32, causal: bool) -> FlexTensor {
        let mut scores = row_major(scores);
        let (keys, visible) = attention_rows(&scores, causal);
        for_each_chunk(values_mut(&mut scores), whole_rows(keys), |start, out| {
            for (index, row) in out.chunks_exact_mut(keys).enumerate() {
                let (seen, hidden) = row.split_at_mut(visible(start / keys + index));
                lanes::softmax(seen, scale);
                hidden.fill(0.0);
            }
        });
        scores
    }

    fn fused_silu_gate(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        zip(gate, up, |gate, up| gate * sigmoid::<FUSED>(gate) * up)
    }

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

impl FusedGradients for Flex {
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

    fn self_attention_gradient(
        packed: FlexTensor,
        gradient: FlexTensor,
        heads: usize,
        causal: bool,
        dropout: Option<AttentionDropout>,
    ) -> FlexTensor {
        let (packed, gradient) = (row_major(packed), row_major(gradient));
        let attention = SelfAttention::of(&packed.shape(), heads, causal, dropout);
        tensor_like(&packed, attention.backward(values(&packed), values(&gradient)))
    }

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

    fn gelu_gradient(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        zip(gradient, x, |gradient, x| gradient * gelu_derivative::<FUSED>(x))
    }

    fn leaky_relu_gradient(result: FlexTensor, gradient: FlexTensor, slope: f32) -> FlexTensor {
        zip(gradient, result, |gradient, y| if y > 0.0 { gradient } else { slope * gradient })
    }

    fn clamp_gradient(
        clamped: FlexTensor,
        gradient: FlexTensor,
        low: f32,
        high: f32,
    ) -> FlexTensor {
        zip(gradient, clamped, |gradient, x| if x > low && x < high { gradient } else { 0.0 })
    }

    fn scaled_softmax_gradient(
        probabilities: FlexTensor,
        gradient: FlexTensor,
        scale: f32,
        causal: bool,
    ) -> FlexTensor {
        let (probabilities, mut gradient) = (row_major(probabilities), row_major(gradient));
        let (keys, visible) = attention_rows(&probabilities, causal);
        let probabilities = values(&probabilities);
        for_each_chunk(values_mut(&mut gradient), whole_rows(keys), |start, out| {
            let rows = probabilities[start..].chunks_exact(keys);
            for (index, (row, p)) in out.chunks_exact_mut(keys).zip(rows).enumerate() {
                let seen = visible(start / keys + index);
                lanes::softmax_backward(&p[..seen], &mut row[..seen], scale);
                row[seen..].fill(0.0);
            }
        });
        gradient
    }

    fn silu_gate_gradient(
        gate: FlexTensor,
        up: FlexTensor,
        gradient: FlexTensor,
    ) -> [FlexTensor; 2] {
        let (mut gate, up, mut gradient) = (row_major(gate), row_major(up), row_major(gradient));
        let up = values(&up);
        let gates = values_mut(&mut gate);
        let gradients = values_mut(&mut gradient);
        gates
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks_mut(CHUNK))
            .zip(up.par_chunks(CHUNK))
            .for_each(|((gates, gradients), up)| {
                vectorized(|| {
                    for ((gate, gradient), &up) in gates.iter_mut().zip(gradients).zip(up) {
                        let sigmoid = sigmoid::<FUSED>(*gate);
                        let silu = *gate * sigmoid;
                        let slope = sigmoid + silu * (1.0 - sigmoid);
                        *gate = *gradient * up * slope;
                        *gradient *= silu;
                    }
                });
            });
        [gate, gradient]
    }
}
