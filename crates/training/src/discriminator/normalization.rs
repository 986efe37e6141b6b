//! Batch and group normalization, which differ in what they take together.

use burn::tensor::Tensor;

/// Added to the variance (PyTorch's default).
const EPSILON: f64 = 1e-5;

/// (x − mean) / √(variance + ε) · scale + shift, with mean and variance over the positions and
/// channels of a group.
///
/// A batch norm has one batch of all positions and groups of one channel, a group norm one batch
/// a picture.
///
/// # Shapes
/// `x [batch, positions, groups, channels]`, kept; `scale` and `shift [groups · channels]`.
pub(super) fn normalize(x: Tensor<4>, scale: Tensor<1>, shift: Tensor<1>) -> Tensor<4> {
    let [_, _, groups, channels] = x.dims();
    let mean = |x: Tensor<4>| x.mean_dim(1).mean_dim(3);
    let centered = x.clone() - mean(x);
    // Once more: the mean of numbers far from zero is rounded more than that of their differences.
    let centered = centered.clone() - mean(centered);
    let variance = mean(centered.clone().square());
    let scale = scale.reshape([1, 1, groups, channels]) / (variance + EPSILON).sqrt();
    centered * scale + shift.reshape([1, 1, groups, channels])
}
