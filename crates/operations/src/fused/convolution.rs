//! Convolution by matrix products, with its gradient.
//!
//! Burn computes the gradient for the weight as a convolution whose kernel is as large as the
//! picture. On the CPU backend that is many times slower than the forward pass; here all three
//! products are matrix products over the windows under the kernel, which are gathered (and
//! scattered back) a few at a time, so that memory does not grow with the batch.

use std::{borrow::Cow, ops::Range};

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
    clamp::{ClampGradients, ClampOperations, shifted_clamp, shifted_clamp_rows},
    differentiable::differentiable,
    flex::{row_major, values},
    geometry::Geometry,
    is_fusible,
    product::{Matrix, Threads, add_product, product, write_product},
};

/// Numbers that windows are gathered in at a time (32 MB) for a gradient; fewer samples if they
/// need more.
const GATHERED: usize = 1 << 23;
/// Numbers in the windows that one thread gathers and multiplies at a time (1 MB), which stay in
/// its cache in between.
const TILE: usize = 1 << 18;
/// Windows in such a tile at least: a product of fewer spends its time on laying the weights out.
const TILE_ROWS: usize = 256;

/// Convolution of pictures whose channels come last, by a weight in PyTorch's layout.
///
/// # Shapes
/// `x [batch, height, width, in]` and `weight [out, in, kernel, kernel]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the channels differ, the weight has another kernel than the geometry, or the kernel is
/// larger than the picture with its zeros.
pub fn convolution(x: Tensor<4>, weight: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [out, channels, height, width] = weight.dims();
    assert_eq!([height, width], geometry.kernel, "kernel of weight and geometry");
    let matrix = weight.permute([2, 3, 1, 0]).reshape([height * width * channels, out]);
    matrix_convolution(x, matrix, geometry)
}

/// [`convolution`] by a weight that lies as the windows under the kernel do: by row, column and
/// channel of the picture.
///
/// # Shapes
/// `x [batch, height, width, in]` and `matrix [kernel·kernel·in, out]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the matrix does not fit the channels and the kernel, or the kernel is larger than the
/// picture with its zeros.
pub fn matrix_convolution(x: Tensor<4>, matrix: Tensor<2>, geometry: Geometry) -> Tensor<4> {
    let ([_, _, _, channels], [rows, _]) = (x.dims(), matrix.dims());
    let [height, width] = geometry.kernel;
    assert_eq!(rows, height * width * channels, "rows of the matrix and numbers under the kernel");
    if is_fusible(&x) && is_fusible(&matrix) {
        let (x, matrix) = (x.into_dispatch(), matrix.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_convolution(x, matrix, geometry))
    } else {
        composed::matrix_convolution(x, matrix, geometry)
    }
}

/// [`matrix_convolution`], then [`shifted_clamp`], without a pass over memory for the second where
/// no gradient is wanted. The bias is frozen: no gradient reaches it.
///
/// # Shapes
/// `x [batch, height, width, in]`, `matrix [kernel·kernel·in, out]` and `bias [out]` to
/// `[batch, height', width', out]`.
///
/// # Panics
/// If the matrix does not fit the channels and the kernel, the bias does not fit the matrix, or
/// the kernel is larger than the picture with its zeros.
pub fn clamped_convolution(
    x: Tensor<4>,
    matrix: Tensor<2>,
    bias: Tensor<1>,
    geometry: Geometry,
    low: f32,
    high: f32,
) -> Tensor<4> {
    let ([_, _, _, channels], [rows, outputs]) = (x.dims(), matrix.dims());
    let [height, width] = geometry.kernel;
    assert_eq!(rows, height * width * channels, "rows of the matrix and numbers under the kernel");
    assert_eq!(bias.dims(), [outputs], "width of matrix and bias");
    if is_fusible(&x) && is_fusible(&matrix) && is_fusible(&bias) {
        let [x, matrix, bias] = [x.into_dispatch(), matrix.into_dispatch(), bias.into_dispatch()];
        let bounds = [low, high];
        Tensor::from_dispatch(Dispatch::fused_clamped_convolution(
            x, matrix, bias, geometry, bounds,
        ))
    } else {
        shifted_clamp(matrix_convolution(x, matrix, geometry), bias, low, high)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ConvolutionOperations: Backend {
    /// `x [batch, height, width, in]` and `matrix [kernel·kernel·in, out]` to
    /// `[batch, height', width', out]`.
    fn fused_convolution(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;

    /// The same plus `bias [out]`, between two bounds; the bias gets no gradient.
    fn fused_clamped_convolution(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        bounds: [f32; 2],
    ) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait ConvolutionGradients: ConvolutionOperations {
    /// The gradients for `x` and the matrix, where they are wanted.
    fn convolution_gradient(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        geometry: Geometry,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2];
}

/// A batch of pictures with the channels last, seen through a kernel.
#[derive(Clone, Copy)]
struct Windows {
    geometry: Geometry,
    batch: usize,
    input: [usize; 2],
    channels: usize,
    output: [usize; 2],
}

impl Windows {
    fn new(x: &FlexTensor, geometry: Geometry) -> Self {
        let [batch, height, width, channels] = x.shape().dims();
        let output = geometry.output(height, width);
        Self { geometry, batch, input: [height, width], channels, output }
    }

    /// Numbers under the kernel.
    fn size(&self) -> usize {
        self.geometry.kernel[0] * self.geometry.kernel[1] * self.channels
    }

    /// Numbers of a sample.
    fn sample(&self) -> usize {
        self.input[0] * self.input[1] * self.channels
    }

    /// Windows of a sample.
    fn count(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// The batch in parts that fit into [`GATHERED`].
    fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let batch = self.batch;
        let samples = (GATHERED / (self.count() * self.size()).max(1)).max(1);
        (0..batch).step_by(samples).map(move |first| first..(first + samples).min(batch))
    }

    /// Columns of the kernel that lie on the picture in a window of column `across`, and the
    /// first pixel under them.
    fn columns(&self, across: usize) -> (Range<usize>, usize) {
        let start = across * self.geometry.stride;
        let left = self.geometry.padding[2];
        let first = left.saturating_sub(start);
        let last = (self.input[1] + left).saturating_sub(start).min(self.geometry.kernel[1]);
        (first..last.max(first), (start + first).saturating_sub(left))
    }

    /// Whether a window is a pixel: then the windows are the picture.
    fn are_pixels(&self) -> bool {
        self.geometry == Geometry::same(1)
    }

    /// Copies the numbers under the kernel in one window, counted over all samples; those beside
    /// the picture stay what they are.
    fn window(&self, x: &[f32], index: usize, out: &mut [f32]) {
        let Self { geometry, channels, input: [height, width], output: [_, across], .. } = *self;
        let [kernel_height, kernel_width] = geometry.kernel;
        let (sample, place) = (index / self.count(), index % self.count());
        let picture = &x[sample * self.sample()..][..self.sample()];
        let top = (place / across) * geometry.stride;
        let (columns, pixel) = self.columns(place % across);
        let run = columns.len() * channels;
        for under in 0..kernel_height {
            let y = (top + under).wrapping_sub(geometry.padding[0]);
            if y < height {
                let from = (y * width + pixel) * channels;
                let to = (under * kernel_width + columns.start) * channels;
                out[to..to + run].copy_from_slice(&picture[from..from + run]);
            }
        }
    }

    /// The windows of some samples, `[samples·height'·width', kernel·kernel·in]`.
    fn gather<'a>(&self, x: &'a [f32], samples: Range<usize>) -> Cow<'a, [f32]> {
        if self.are_pixels() {
            return Cow::Borrowed(&x[samples.start * self.sample()..samples.end * self.sample()]);
        }
        let first = samples.start * self.count();
        let mut gathered = vec![0.0; samples.len() * self.count() * self.size()];
        gathered
            .par_chunks_exact_mut(self.size())
            .enumerate()
            .with_min_len(self.output[1])
            .for_each(|(index, out)| self.window(x, first + index, out));
        Cow::Owned(gathered)
    }

    /// Adds each number of the windows to the pixel that it was gathered from.
    fn scatter(&self, windows: &[f32], pixels: &mut [f32]) {
        let Self { geometry, channels, input: [height, width], output: [down, across], .. } = *self;
        let [kernel_height, kernel_width] = geometry.kernel;
        pixels.par_chunks_exact_mut(width * channels).enumerate().for_each(|(row, out)| {
            let (sample, y) = (row / height, row % height + geometry.padding[0]);
            vectorized(|| {
                for under in 0..kernel_height {
                    let Some(top) = y.checked_sub(under) else { continue };
                    if top % geometry.stride != 0 || top / geometry.stride >= down {
                        continue;
                    }
                    let first = (sample * down + top / geometry.stride) * across;
                    for column in 0..across {
                        let (columns, pixel) = self.columns(column);
                        let run = columns.len() * channels;
                        let from = (first + column) * self.size()
                            + (under * kernel_width + columns.start) * channels;
                        let out = &mut out[pixel * channels..][..run];
                        for (out, value) in out.iter_mut().zip(&windows[from..from + run]) {
                            *out += value;
                        }
                    }
                }
            });
        });
    }
}

/// The forward pass, a tile of windows after another on each thread: gathered, multiplied and
/// handed to `finish` (rows of `out` numbers) while they are in its cache.
fn convolve(
    x: FlexTensor,
    matrix: FlexTensor,
    geometry: Geometry,
    finish: impl Fn(&mut [f32]) + Sync,
) -> FlexTensor {
    let (x, matrix) = (row_major(x), row_major(matrix));
    let windows = Windows::new(&x, geometry);
    let [_, outputs] = matrix.shape().dims();
    let matrix = Matrix::packed(values(&matrix), outputs);
    let (x, size) = (values(&x), windows.size());
    let count = windows.batch * windows.count();
    let mut output = vec![0.0; count * outputs];
    let tiles = count.div_ceil(TILE_ROWS.max(TILE / size.max(1)));
    // An even number of equal ones, so that threads end together.
    let tiles = if tiles > 1 { tiles.next_multiple_of(2) } else { 1 };
    let rows = count.div_ceil(tiles).max(1);
    let tile = |gathered: &mut Vec<f32>, (tile, out): (usize, &mut [f32])| {
        let first = tile * rows;
        let count = out.len() / outputs;
        let pixels = if windows.are_pixels() {
            &x[first * size..(first + count) * size]
        } else {
            gathered.clear();
            gathered.resize(count * size, 0.0);
            for (index, window) in gathered.chunks_exact_mut(size).enumerate() {
                windows.window(x, first + index, window);
            }
            &gathered[..]
        };
        // One tile alone is for all threads.
        let threads = if tiles == 1 { Threads::All } else { Threads::One };
        write_product(out, outputs, Matrix::packed(pixels, size), matrix, threads);
        finish(out);
    };
    if outputs > 0 && size > 0 {
        let parts = output.par_chunks_mut(rows * outputs).enumerate();
        parts.for_each_init(Vec::<f32>::new, tile);
    }
    let shape = [windows.batch, windows.output[0], windows.output[1], outputs];
    FlexTensor::from_data(TensorData::new(output, shape))
}

impl ConvolutionOperations for Flex {
    fn fused_convolution(x: FlexTensor, matrix: FlexTensor, geometry: Geometry) -> FlexTensor {
        convolve(x, matrix, geometry, |_| {})
    }

    fn fused_clamped_convolution(
        x: FlexTensor,
        matrix: FlexTensor,
        bias: FlexTensor,
        geometry: Geometry,
        [low, high]: [f32; 2],
    ) -> FlexTensor {
        let bias = row_major(bias);
        let bias = values(&bias);
        convolve(x, matrix, geometry, |out| {
            vectorized(|| shifted_clamp_rows(out, bias, low, high));
        })
    }
}

impl ConvolutionGradients for Flex {
    fn convolution_gradient(
        x: FlexTensor,
        matrix: FlexTensor,
        gradient: FlexTensor,
        geometry: Geometry,
        [for_x, for_matrix]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let (x, gradient, matrix) = (row_major(x), row_major(gradient), row_major(matrix));
        let windows = Windows::new(&x, geometry);
        let [size, outputs] = matrix.shape().dims();
        let transposed = Matrix::packed(values(&matrix), outputs).transposed();
        let mut pixels = Vec::new();
        let mut weights = vec![0.0; if for_matrix { size * outputs } else { 0 }];
        for samples in windows.parts() {
            let part = samples.start * windows.count()..samples.end * windows.count();
            let part = &values(&gradient)[part.start * outputs..part.end * outputs];
            let arriving = Matrix::packed(part, outputs);
            if for_matrix {
                let gathered = windows.gather(values(&x), samples.clone());
                let gathered = Matrix::packed(&gathered, size).transposed();
                add_product(&mut weights, outputs, gathered, arriving, Threads::All);
            }
            if for_x {
                let product = product(arriving, transposed, Threads::All);
                if windows.are_pixels() && samples.len() == windows.batch {
                    pixels = product;
                } else if windows.are_pixels() {
                    pixels.extend_from_slice(&product);
                } else {
                    let start = pixels.len();
                    pixels.resize(start + samples.len() * windows.sample(), 0.0);
                    windows.scatter(&product, &mut pixels[start..]);
                }
            }
        }
        let for_x = for_x.then(|| FlexTensor::from_data(TensorData::new(pixels, x.shape())));
        let shape = [size, outputs];
        let weights = for_matrix.then(|| FlexTensor::from_data(TensorData::new(weights, shape)));
        [for_x, weights]
    }
}

impl<B, C> ConvolutionOperations for Autodiff<B, C>
where
    B: ConvolutionGradients + ClampGradients,
    C: CheckpointStrategy,
{
    fn fused_clamped_convolution(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        [low, high]: [f32; 2],
    ) -> FloatTensor<Self> {
        let sums = Self::fused_convolution(x, matrix, geometry);
        Self::fused_shifted_clamp(sums, bias, low, high)
    }

    fn fused_convolution(
        x: FloatTensor<Self>,
        matrix: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        differentiable::<B, C, _, 2>(
            [x, matrix],
            |[x, matrix], keep| {
                let state = keep.then(|| (x.clone(), matrix.clone()));
                (B::fused_convolution(x, matrix, geometry), state)
            },
            move |(x, matrix), gradient, waited_for| {
                B::convolution_gradient(x, matrix, gradient, geometry, waited_for)
            },
        )
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, module, ops::ConvOptions};

    use super::{super::geometry::padded, Geometry};

    /// [`matrix_convolution`](super::matrix_convolution) by Burn's convolution of pictures whose
    /// channels come first.
    pub fn matrix_convolution(x: Tensor<4>, matrix: Tensor<2>, geometry: Geometry) -> Tensor<4> {
        let ([_, _, _, channels], [_, out]) = (x.dims(), matrix.dims());
        let [height, width] = geometry.kernel;
        let weight = matrix.reshape([height, width, channels, out]).permute([3, 2, 0, 1]);
        let options = ConvOptions::new([geometry.stride; 2], [0, 0], [1, 1], 1);
        module::conv2d(padded(x, geometry), weight, None, options).permute([0, 2, 3, 1])
    }
}
