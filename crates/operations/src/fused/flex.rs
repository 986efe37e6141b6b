//! Access to tensors of the CPU backend, and loops over them on all threads.
//!
//! Work is cut into chunks whose size depends only on the shapes, and sums across chunks are added
//! up in the order of the chunks, so results do not depend on the number of threads.

use burn::{
    backend::{TensorMetadata, flex::FlexTensor},
    tensor::TensorData,
};
use numerics::vectorized;
use rayon::prelude::*;

/// How many numbers one task works on; half of a core's first-level cache, and long enough to be
/// worth handing to another thread.
pub(super) const CHUNK: usize = 1 << 13;

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
pub(super) fn tensor_like(like: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, like.shape()))
}

/// Calls `work` for every chunk of `chunk` numbers, here if there is only one.
pub(super) fn for_each_chunk(
    out: &mut [f32],
    chunk: usize,
    work: impl Fn(usize, &mut [f32]) + Sync,
) {
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
pub(super) fn map(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
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
pub(super) fn zip(a: FlexTensor, b: FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
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

/// The last dimension, which rows are made of.
pub(super) fn width(tensor: &FlexTensor) -> usize {
    tensor.shape().last().copied().unwrap_or(1)
}

/// A new tensor of the same shape but for its last dimension.
pub(super) fn tensor_of_width(like: &FlexTensor, width: usize, values: Vec<f32>) -> FlexTensor {
    let mut shape = like.shape();
    let last = shape.num_dims() - 1;
    shape[last] = width;
    FlexTensor::from_data(TensorData::new(values, shape))
}
