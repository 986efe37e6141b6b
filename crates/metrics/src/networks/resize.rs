//! Resizing as the networks' own frameworks do it: a matrix along each axis.

use burn::tensor::{Tensor, TensorData};
use operations::fused;

use super::beside;

/// What each pixel of the result is made of, along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// `interpolate(…, mode="bilinear", antialias=True)` of PyTorch: a triangle as wide as a pixel
    /// of the coarser picture, pixels taken at their centres.
    Antialiased,
    /// `tf.image.resize_bilinear` of TensorFlow 1: a pixel lies at its corner, and none but two
    /// neighbours count, however much smaller the result is.
    TensorFlow1,
}

impl Filter {
    /// The weights of `extent` pixels in each of `result`, row by row: `[result, extent]`.
    fn weights(self, extent: usize, result: usize) -> Vec<f32> {
        let mut weights = vec![0.0_f32; result * extent];
        for (index, row) in weights.chunks_exact_mut(extent).enumerate() {
            match self {
                Self::Antialiased => {
                    let scale = extent as f64 / result as f64;
                    let width = scale.max(1.0);
                    let center = scale * (index as f64 + 0.5);
                    let first = (center - width + 0.5).max(0.0) as usize;
                    let last = ((center + width + 0.5) as usize).min(extent);
                    let triangle = |pixel: usize| {
                        (1.0 - ((pixel as f64 + 0.5 - center) / width).abs()).max(0.0)
                    };
                    let sum: f64 = (first..last).map(triangle).sum();
                    for (pixel, weight) in row.iter_mut().enumerate().take(last).skip(first) {
                        *weight = (triangle(pixel) / sum) as f32;
                    }
                }
                Self::TensorFlow1 => {
                    // In single precision, as there.
                    let place = index as f32 * (extent as f64 / result as f64) as f32;
                    let low = (place as usize).min(extent - 1);
                    let high = (low + 1).min(extent - 1);
                    let share = place - low as f32;
                    row[low] += 1.0 - share;
                    row[high] += share;
                }
            }
        }
        weights
    }

    /// The picture with `side` × `side` pixels and the channels last.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` → `[batch, side, side, channels]`.
    pub(super) fn resize(self, images: Tensor<4>, side: usize) -> Tensor<4> {
        let along_last = |x: Tensor<4>| {
            let [_, _, _, extent] = x.dims();
            if extent == side {
                return x;
            }
            let weights = TensorData::new(self.weights(extent, side), [side, extent]);
            let plain = x.device().without_autodiff();
            let weights = Tensor::<2>::from_data(weights, &plain).transpose();
            let weights = beside(&x, &weights);
            fused::linear(x, weights, None)
        };
        // [batch, channels, height, side], then [batch, side, channels, height].
        let x = along_last(images).permute([0, 3, 1, 2]);
        along_last(x).permute([0, 3, 1, 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_weigh_pixels_as_pytorch_and_tensorflow_do() {
        // Half the pixels: each is a triangle over four, or every second pixel.
        let halves = Filter::Antialiased.weights(4, 2);
        let expected = [3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0, 0.0];
        for (got, expected) in halves.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{halves:?}");
        }
        assert_eq!(Filter::TensorFlow1.weights(4, 2), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        // Twice the pixels: TensorFlow 1 repeats the last.
        assert_eq!(Filter::TensorFlow1.weights(2, 4), [1.0, 0.0, 0.5, 0.5, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(Filter::Antialiased.weights(2, 4), [1.0, 0.0, 0.75, 0.25, 0.25, 0.75, 0.0, 1.0]);
        assert_eq!(Filter::Antialiased.weights(3, 3)[..3], [1.0, 0.0, 0.0]);
    }
}
