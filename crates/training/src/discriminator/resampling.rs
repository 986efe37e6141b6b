//! Halving with a blur, and pooling to a fixed size, of pictures with the channels last.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Blurs by the binomial filter (1, 3, 3, 1) in both directions and keeps every second pixel
/// (Zhang 2019), with zeros around the picture so that it keeps half its size, rounded up.
///
/// The filter is the same for all channels and has nothing to learn, so that each direction is
/// one product with a matrix of height'×height numbers.
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, ⌈height/2⌉, ⌈width/2⌉, channels]`.
pub(super) fn blur_down(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let device = x.device();
    let x = filter(height, &device).matmul(x.reshape([batch, height, width * channels]));
    let x = filter(width, &device).matmul(x.reshape([batch * rows, width, channels]));
    x.reshape([batch, rows, columns, channels])
}

/// The filter along one direction, `[1, ⌈extent/2⌉, extent]`.
fn filter(extent: usize, device: &Device) -> Tensor<3> {
    const KERNEL: [f32; 4] = [0.125, 0.375, 0.375, 0.125];
    let outputs = extent.div_ceil(2);
    // As many zeros as the last window needs; the odd one goes to the end.
    let before = ((outputs - 1) * 2 + KERNEL.len()).saturating_sub(extent) / 2;
    let mut values = vec![0.0; outputs * extent];
    for output in 0..outputs {
        for (offset, weight) in KERNEL.into_iter().enumerate() {
            if let Some(input) = (2 * output + offset).checked_sub(before)
                && input < extent
            {
                values[output * extent + input] = weight;
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [1, outputs, extent]), device)
}

/// The largest value in each of `side`×`side` windows that cover the picture evenly, overlapping
/// where it does not divide; a smaller picture is repeated (PyTorch's `AdaptiveMaxPool2d`).
///
/// # Shapes
/// `[batch, height, width, channels]` → `[batch, side, side, channels]`.
pub(super) fn adaptive_max_pool(x: Tensor<4>, side: usize) -> Tensor<4> {
    // The largest of a rectangle is the largest of its rows' largest.
    pool_along(pool_along(x, 1, side), 2, side)
}

fn pool_along(x: Tensor<4>, dimension: usize, side: usize) -> Tensor<4> {
    let extent = x.dims()[dimension];
    if extent == side {
        return x;
    }
    let window = |output: usize| {
        let (start, end) = (output * extent / side, ((output + 1) * extent).div_ceil(side));
        start..end
    };
    let longest = (0..side).map(|output| window(output).len()).max().unwrap_or(1);
    // The n-th pixel of every window; of shorter ones the last again, which changes nothing.
    let pick = |n: usize| {
        let indices =
            (0..side).map(|output| (window(output).start + n).min(window(output).end - 1));
        let indices: Vec<i64> = indices.map(|index| index as i64).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [side]), &x.device());
        x.clone().select(dimension, indices)
    };
    (1..longest).fold(pick(0), |largest, n| largest.max_pair(pick(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    fn row(values: &[f32]) -> Tensor<4> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([1, 1, values.len(), 1])
    }

    #[test]
    fn should_blur_by_the_binomial_filter() {
        // One row: down, the middle weight of the filter meets it, and zeros do.
        let down = 0.375;
        let even = numbers(blur_down(row(&[8.0, 16.0, 0.0, 0.0, 0.0, 64.0])));
        assert_eq!(even, [(3.0 + 6.0) * down, 2.0 * down, 24.0 * down]);
        // Three windows of four cover five pixels with a zero before and two after.
        let odd = numbers(blur_down(row(&[8.0, 16.0, 0.0, 0.0, 64.0])));
        assert_eq!(odd, [(3.0 + 6.0) * down, (2.0 + 8.0) * down, 24.0 * down]);
    }

    #[test]
    fn should_pool_any_size_to_one() {
        let pool = |values: &[f32], side| numbers(pool_along(row(values), 2, side));
        assert_eq!(pool(&[1.0, 4.0, 3.0, 2.0], 2), [4.0, 3.0]);
        // Windows 0..2, 1..4, 3..5 of five pixels.
        assert_eq!(pool(&[5.0, 1.0, 2.0, 4.0, 3.0], 3), [5.0, 4.0, 4.0]);
        // Windows 0..1, 0..2, 1..2 of two.
        assert_eq!(pool(&[1.0, 2.0], 3), [1.0, 2.0, 2.0]);
        assert_eq!(pool(&[1.0, 2.0], 4), [1.0, 1.0, 2.0, 2.0]);
    }
}
