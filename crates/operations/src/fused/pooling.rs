//! The largest number under a window, for every channel, with the channels last.

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
    depthwise::{Taps, taps},
    differentiable::differentiable,
    flex::{row_major, values},
    geometry::Geometry,
    is_fusible,
};

/// The largest number under each window, channel by channel; the zeros of the geometry count as
/// smaller than any. Where several are largest, the gradient goes to the first by row and column.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, height', width', channels]`.
///
/// # Panics
/// If the kernel is larger than the picture with its zeros.
pub fn max_pool(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    if is_fusible(&x) {
        Tensor::from_dispatch(Dispatch::fused_max_pool(x.into_dispatch(), geometry))
    } else {
        composed::max_pool(x, geometry)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PoolingOperations: Backend {
    /// `[batch, height, width, channels]` → `[batch, height', width', channels]`.
    fn fused_max_pool(x: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait PoolingGradients: PoolingOperations {
    /// The gradient for `x`: each goes to the first of the largest numbers, by row and column.
    fn max_pool_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;
}

struct Windows {
    rows: Taps,
    columns: Taps,
    /// Batch, height, width and channels of the source.
    shape: [usize; 4],
}

impl Windows {
    fn new(x: &FlexTensor, geometry: Geometry) -> Self {
        let shape @ [_, height, width, _] = x.shape().dims();
        let ([down, across], [above, _, left, _]) =
            (geometry.output(height, width), geometry.padding);
        Self {
            rows: taps(height, down, geometry.kernel[0], geometry.stride, above),
            columns: taps(width, across, geometry.kernel[1], geometry.stride, left),
            shape,
        }
    }

    /// Where the channels of a pixel under a window begin, in the order of rows and columns.
    fn pixels<'a>(
        &'a self,
        rows: &'a [(usize, usize)],
        columns: &'a [(usize, usize)],
    ) -> impl Iterator<Item = usize> + 'a {
        let [_, _, width, channels] = self.shape;
        rows.iter().flat_map(move |&(row, _)| {
            columns.iter().map(move |&(column, _)| (row * width + column) * channels)
        })
    }
}

impl PoolingOperations for Flex {
    fn fused_max_pool(x: FlexTensor, geometry: Geometry) -> FlexTensor {
        let x = row_major(x);
        let windows = Windows::new(&x, geometry);
        let [batch, height, width, channels] = windows.shape;
        let (down, across) = (windows.rows.len(), windows.columns.len());
        let sample = height * width * channels;
        let input = values(&x);
        let mut output = vec![f32::NEG_INFINITY; batch * down * across * channels];
        output.par_chunks_mut((across * channels).max(1)).enumerate().for_each(|(row, out)| {
            let picture = &input[row / down * sample..][..sample];
            let rows = &windows.rows[row % down];
            vectorized(|| {
                for (out, columns) in out.chunks_exact_mut(channels).zip(&windows.columns) {
                    for start in windows.pixels(rows, columns) {
                        for (out, &x) in out.iter_mut().zip(&picture[start..start + channels]) {
                            // NaN stays.
                            *out = if x <= *out { *out } else { x };
                        }
                    }
                }
            });
        });
        FlexTensor::from_data(TensorData::new(output, [batch, down, across, channels]))
    }
}

impl PoolingGradients for Flex {
    fn max_pool_gradient(x: FlexTensor, gradient: FlexTensor, geometry: Geometry) -> FlexTensor {
        let (x, gradient) = (row_major(x), row_major(gradient));
        let windows = Windows::new(&x, geometry);
        let shape @ [_, height, width, channels] = windows.shape;
        let (down, across) = (windows.rows.len(), windows.columns.len());
        let (sample, pooled) = (height * width * channels, down * across * channels);
        let (input, arriving) = (values(&x), values(&gradient));
        let mut output = vec![0.0; input.len()];
        output.par_chunks_mut(sample.max(1)).enumerate().for_each(|(index, out)| {
            let picture = &input[index * sample..][..sample];
            let arriving = &arriving[index * pooled..][..pooled];
            let (mut largest, mut rest) = (vec![0.0; channels], vec![0.0; channels]);
            vectorized(|| {
                for (place, arriving) in arriving.chunks_exact(channels).enumerate() {
                    let rows = &windows.rows[place / across];
                    let columns = &windows.columns[place % across];
                    largest.fill(f32::NEG_INFINITY);
                    for start in windows.pixels(rows, columns) {
                        for (largest, &x) in largest.iter_mut().zip(&picture[start..]) {
                            *largest = if x > *largest { x } else { *largest };
                        }
                    }
                    rest.copy_from_slice(arriving);
                    for start in windows.pixels(rows, columns) {
                        let out = &mut out[start..start + channels];
                        let picture = &picture[start..start + channels];
                        for channel in 0..channels {
                            let hit = picture[channel] == largest[channel];
                            out[channel] += if hit { rest[channel] } else { 0.0 };
                            rest[channel] = if hit { 0.0 } else { rest[channel] };
                        }
                    }
                }
            });
        });
        FlexTensor::from_data(TensorData::new(output, shape))
    }
}

impl<B: PoolingGradients, C: CheckpointStrategy> PoolingOperations for Autodiff<B, C> {
    fn fused_max_pool(x: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| {
                let state = keep.then(|| x.clone());
                (B::fused_max_pool(x, geometry), state)
            },
            move |x, gradient, _| [Some(B::max_pool_gradient(x, gradient, geometry))],
        )
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, module, ops::MaxPoolOptions};

    use super::Geometry;

    /// [`max_pool`](super::max_pool) by Burn's of pictures whose channels come first.
    pub fn max_pool(x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let [above, below, left, right] = geometry.padding;
        let options = MaxPoolOptions::new(geometry.kernel)
            .with_stride([geometry.stride; 2])
            .with_padding_pairs([(above, below), (left, right)]);
        module::max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
    }
}
