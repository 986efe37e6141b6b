//! Convolution of every channel by a filter of its own, with the channels last.
//!
//! Burn keeps channels first, where a small filter touches memory a row at a time and vector
//! instructions find little to do. With the channels last, one instruction works on as many
//! channels as it has lanes, and the products before and after (pointwise convolutions) are plain
//! matrix products without a transposition.

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
    geometry::Geometry,
    is_fusible,
};

/// Convolution of each channel by its own filter, plus bias, for pictures whose channels come
/// last. Filter and bias are frozen: no gradient reaches them.
///
/// # Shapes
/// `x [batch, height, width, channels]`, `filter [kernel, kernel, channels]` and
/// `bias [channels]` to `[batch, height', width', channels]`.
///
/// # Panics
/// If the channels differ, the filter has another kernel than the geometry, or the kernel is
/// larger than the picture with its zeros.
pub fn depthwise_convolution(
    x: Tensor<4>,
    filter: Tensor<3>,
    bias: Tensor<1>,
    geometry: Geometry,
) -> Tensor<4> {
    let [height, width, channels] = filter.dims();
    assert_eq!(x.dims()[3], channels, "channels of x and filter");
    assert_eq!(bias.dims(), [channels], "channels of filter and bias");
    assert_eq!([height, width], geometry.kernel, "kernel of filter and geometry");
    if is_fusible(&x) && is_fusible(&filter) && is_fusible(&bias) {
        let (x, filter, bias) = (x.into_dispatch(), filter.into_dispatch(), bias.into_dispatch());
        Tensor::from_dispatch(Dispatch::fused_depthwise(x, filter, bias, geometry))
    } else {
        composed::depthwise_convolution(x, filter, bias, geometry)
    }
}

/// The forward pass.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait DepthwiseOperations: Backend {
    /// `x [batch, height, width, channels]`, `filter [kernel, kernel, channels]` and
    /// `bias [channels]` to `[batch, height', width', channels]`.
    fn fused_depthwise(
        x: FloatTensor<Self>,
        filter: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;
}

/// The backward pass.
pub(crate) trait DepthwiseGradients: DepthwiseOperations {
    /// The gradient for `x`, which had this height and width.
    fn depthwise_gradient(
        filter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        geometry: Geometry,
        size: [usize; 2],
    ) -> FloatTensor<Self>;
}

/// Along one axis: for each place of the result, the places of the source that it reads, each
/// with the filter's element that it is multiplied by.
pub(super) type Taps = Vec<Vec<(usize, usize)>>;

pub(super) fn taps(
    source: usize,
    result: usize,
    kernel: usize,
    stride: usize,
    before: usize,
) -> Taps {
    let of = |place: usize| {
        let under = |element: usize| (place * stride + element).checked_sub(before);
        (0..kernel)
            .filter_map(|element| Some((under(element)?, element)))
            .filter(|&(place, _)| place < source)
            .collect()
    };
    (0..result).map(of).collect()
}

/// The same pairs, seen from the source.
fn reversed(taps: &Taps, source: usize) -> Taps {
    let mut reversed = vec![Vec::new(); source];
    for (result, pairs) in taps.iter().enumerate() {
        for &(place, element) in pairs {
            reversed[place].push((result, element));
        }
    }
    reversed
}

/// Both axes of a convolution.
struct Windows {
    rows: Taps,
    columns: Taps,
    kernel_width: usize,
    source: [usize; 2],
    channels: usize,
}

impl Windows {
    fn new(geometry: Geometry, source: [usize; 2], channels: usize) -> Self {
        let [above, _, left, _] = geometry.padding;
        let [height, width] = source;
        let output = geometry.output(height, width);
        let [kernel_height, kernel_width] = geometry.kernel;
        Self {
            rows: taps(height, output[0], kernel_height, geometry.stride, above),
            columns: taps(width, output[1], kernel_width, geometry.stride, left),
            kernel_width,
            source,
            channels,
        }
    }

    /// From the results back to what they read.
    fn reversed(self) -> Self {
        let [height, width] = self.source;
        Self {
            source: [self.rows.len(), self.columns.len()],
            rows: reversed(&self.rows, height),
            columns: reversed(&self.columns, width),
            ..self
        }
    }

    /// For every place the sum of the bias and what it reads.
    fn correlate(&self, source: &[f32], filter: &[f32], bias: &[f32], batch: usize) -> FlexTensor {
        let (height, width) = (self.rows.len(), self.columns.len());
        let [source_height, source_width] = self.source;
        let line = source_width * self.channels;
        let mut output = vec![0.0; batch * height * width * self.channels];
        output.par_chunks_mut((width * self.channels).max(1)).enumerate().for_each(|(row, out)| {
            let picture = &source[row / height * source_height * line..][..source_height * line];
            let rows = &self.rows[row % height];
            vectorized(|| {
                for (out, columns) in out.chunks_exact_mut(self.channels).zip(&self.columns) {
                    let window = Window { picture, filter, bias, rows, columns };
                    self.pixel(&window, out);
                }
            });
        });
        let shape = [batch, height, width, self.channels];
        FlexTensor::from_data(TensorData::new(output, shape))
    }

    #[inline(always)]
    fn pixel(&self, window: &Window<'_>, out: &mut [f32]) {
        let mut first = 0;
        while self.channels - first >= 64 {
            self.block::<64>(window, first, &mut out[first..]);
            first += 64;
        }
        while self.channels - first >= 16 {
            self.block::<16>(window, first, &mut out[first..]);
            first += 16;
        }
        while first < self.channels {
            self.block::<1>(window, first, &mut out[first..]);
            first += 1;
        }
    }

    /// `N` channels, whose sums stay in registers.
    #[inline(always)]
    fn block<const N: usize>(&self, window: &Window<'_>, first: usize, out: &mut [f32]) {
        let mut sums = [0.0; N];
        sums.copy_from_slice(&window.bias[first..first + N]);
        for &(row, down) in window.rows {
            for &(column, across) in window.columns {
                let from = (row * self.source[1] + column) * self.channels + first;
                let weight = (down * self.kernel_width + across) * self.channels + first;
                let values = &window.picture[from..from + N];
                let weights = &window.filter[weight..weight + N];
                for lane in 0..N {
                    sums[lane] += values[lane] * weights[lane];
                }
            }
        }
        out[..N].copy_from_slice(&sums);
    }
}

/// What one place of the result is made of.
struct Window<'a> {
    picture: &'a [f32],
    filter: &'a [f32],
    bias: &'a [f32],
    rows: &'a [(usize, usize)],
    columns: &'a [(usize, usize)],
}

impl DepthwiseOperations for Flex {
    fn fused_depthwise(
        x: FlexTensor,
        filter: FlexTensor,
        bias: FlexTensor,
        geometry: Geometry,
    ) -> FlexTensor {
        let (x, filter, bias) = (row_major(x), row_major(filter), row_major(bias));
        let [batch, height, width, channels] = x.shape().dims();
        let windows = Windows::new(geometry, [height, width], channels);
        windows.correlate(values(&x), values(&filter), values(&bias), batch)
    }
}

impl DepthwiseGradients for Flex {
    fn depthwise_gradient(
        filter: FlexTensor,
        gradient: FlexTensor,
        geometry: Geometry,
        size: [usize; 2],
    ) -> FlexTensor {
        let (filter, gradient) = (row_major(filter), row_major(gradient));
        let [batch, _, _, channels] = gradient.shape().dims();
        let windows = Windows::new(geometry, size, channels).reversed();
        windows.correlate(values(&gradient), values(&filter), &vec![0.0; channels], batch)
    }
}

impl<B: DepthwiseGradients, C: CheckpointStrategy> DepthwiseOperations for Autodiff<B, C> {
    fn fused_depthwise(
        x: FloatTensor<Self>,
        filter: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self> {
        // Frozen: their nodes are dropped and get nothing.
        let ((filter, _), (bias, _)) = (filter.into_parts(), bias.into_parts());
        let [_, height, width, _] = x.shape().dims();
        differentiable::<B, C, _, 1>(
            [x],
            |[x], keep| {
                let state = keep.then(|| filter.clone());
                (B::fused_depthwise(x, filter, bias, geometry), state)
            },
            move |filter, gradient, _| {
                [Some(B::depthwise_gradient(filter, gradient, geometry, [height, width]))]
            },
        )
    }
}

/// The fallback, composed of Burn's operations.
pub(super) mod composed {
    use burn::tensor::{Tensor, module, ops::ConvOptions};

    use super::{super::geometry::padded, Geometry};

    /// [`depthwise_convolution`](super::depthwise_convolution) by Burn's grouped convolution of
    /// pictures whose channels come first.
    pub fn depthwise_convolution(
        x: Tensor<4>,
        filter: Tensor<3>,
        bias: Tensor<1>,
        geometry: Geometry,
    ) -> Tensor<4> {
        let [_, _, channels] = filter.dims();
        let filter = filter.permute([2, 0, 1]).unsqueeze_dim::<4>(1);
        let options = ConvOptions::new([geometry.stride; 2], [0, 0], [1, 1], channels);
        module::conv2d(padded(x, geometry), filter, Some(bias), options).permute([0, 2, 3, 1])
    }
}
