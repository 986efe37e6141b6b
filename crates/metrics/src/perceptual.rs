//! How different two pictures look: distances between what networks see in them.
//!
//! Training minimizes them (paper, section 3.2), evaluation reports them. They are differentiable
//! with respect to the prediction; the target is taken as it is.

use burn::tensor::Tensor;

use crate::networks::EfficientNetLite;

/// A distance between pictures that somebody may tell apart.
pub trait PerceptualDistance {
    /// One distance a sample, zero for equal pictures. A sample's distance does not depend on the
    /// others. Gradients reach the prediction, never the target.
    ///
    /// # Shapes
    /// Both `[batch, 3, height, width]` in [0, 1] → `[batch]`.
    fn distance(&self, prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1>;
}

/// The target without automatic differentiation: what is computed from it is not tracked.
fn constant(target: Tensor<4>) -> Tensor<4> {
    if target.device().is_autodiff() { target.inner() } else { target }
}

/// Vectors of length one over the channels; a vector of zeros stays one.
///
/// # Shapes
/// `[batch, height, width, channels]`, kept.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let square = x.clone().square().sum_dim(3);
    // The slope of the root at zero is infinite and would make the gradient of a zero no number.
    let zero = square.clone().equal_elem(0.0);
    x / (square.mask_fill(zero, 1.0).sqrt() + 1e-10)
}

/// The squared distance between vectors of length one, as LPIPS has it (Zhang et al. 2018,
/// equation 1, without learned weights), averaged over the picture.
///
/// # Shapes
/// Both `[batch, height, width, channels]` → `[batch]`.
fn unit_distance(prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let target = unit(target);
    let target =
        if prediction.device().is_autodiff() { Tensor::from_inner(target) } else { target };
    let difference = (unit(prediction) - target).square();
    let [batch, height, width, channels] = difference.dims();
    difference
        .reshape([batch, height * width * channels])
        .sum_dim(1)
        .div_scalar((height * width) as f64)
        .reshape([batch])
}

/// The distance of a truncated EfficientNet-Lite0, which comes with the program: at each of four
/// resolutions, from half of the picture's to a sixteenth, the mean squared distance of
/// unit-length features, added up. At most 16.
#[derive(Debug, Clone)]
pub struct LiteDistance {
    network: EfficientNetLite,
}

impl LiteDistance {
    /// Resolutions that are compared.
    const LEVELS: usize = 4;

    /// The distance by this network.
    pub fn new(network: EfficientNetLite) -> Self {
        Self { network }
    }
}

impl PerceptualDistance for LiteDistance {
    fn distance(&self, prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
        let target = self.network.levels(constant(target), Self::LEVELS);
        let prediction = self.network.levels(prediction, Self::LEVELS);
        prediction
            .into_iter()
            .zip(target)
            .map(|(prediction, target)| unit_distance(prediction, target))
            .reduce(|sum, level| sum + level)
            .expect("a network has levels")
    }
}
