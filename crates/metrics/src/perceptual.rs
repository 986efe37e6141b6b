//! How different two pictures look: distances between what networks see in them.
//!
//! Training minimizes them (paper, section 3.2), evaluation reports them. They are differentiable
//! with respect to the prediction; the target is taken as it is.

use burn::tensor::{Device, Tensor};
use files::{ParameterError, TensorMap};
use operations::fused;

use crate::networks::{Chain, ChainConfig, ConvNext, EfficientNetLite, NetworkError, Statistics};

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

/// The squared distance between vectors of length one, averaged over the picture, as LPIPS has it
/// (Zhang et al. 2018, equation 1). `head` weighs the channels; without one all count once.
///
/// # Shapes
/// Both `[batch, height, width, channels]`, `head [channels, 1]` → `[batch]`.
fn unit_distance(prediction: Tensor<4>, target: Tensor<4>, head: Option<&Tensor<2>>) -> Tensor<1> {
    let autodiff = prediction.device().is_autodiff();
    let beside = |plain: Tensor<4>| if autodiff { Tensor::from_inner(plain) } else { plain };
    let difference = (unit(prediction) - beside(unit(target))).square();
    let [batch, height, width, _] = difference.dims();
    let weighed = match head {
        None => difference.sum_dim(3),
        Some(head) => {
            let head = if autodiff { Tensor::from_inner(head.clone()) } else { head.clone() };
            fused::linear(difference, head, None)
        }
    };
    weighed.reshape([batch, height * width]).mean_dim(1).reshape([batch])
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
            .map(|(prediction, target)| unit_distance(prediction, target, None))
            .reduce(|sum, level| sum + level)
            .expect("a network has levels")
    }
}

/// The mean squared difference of ConvNeXt's logits: the paper's perceptual loss, after TiTok (Yu
/// et al. 2024).
#[derive(Debug, Clone)]
pub struct LogitDistance {
    network: ConvNext,
}

impl LogitDistance {
    /// The distance by this network.
    pub fn new(network: ConvNext) -> Self {
        Self { network }
    }
}

impl PerceptualDistance for LogitDistance {
    fn distance(&self, prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
        let target = self.network.logits(constant(target));
        let prediction = self.network.logits(prediction);
        let target =
            if prediction.device().is_autodiff() { Tensor::from_inner(target) } else { target };
        let [batch, _] = prediction.dims();
        (prediction - target).square().mean_dim(1).reshape([batch])
    }
}

/// LPIPS 0.1 (Zhang et al. 2018): unit-length features of VGG16 or AlexNet, with learned weights
/// for the channels.
#[derive(Debug, Clone)]
pub struct Lpips {
    network: Chain,
    /// `[channels, 1]` for each result that is compared.
    heads: Vec<Tensor<2>>,
}

impl Lpips {
    /// What its authors shift and scale pictures in [−1, 1] by.
    const STATISTICS: Statistics =
        Statistics { mean: [-0.030, -0.088, -0.188], deviation: [0.458, 0.448, 0.450] };

    /// LPIPS from torchvision's tensors of the network and the authors' weights of its channels
    /// (`linN.model.1.weight`). `device` is without automatic differentiation.
    ///
    /// # Errors
    /// Every tensor that is missing, superfluous or mis-shaped.
    pub fn load(
        config: &ChainConfig,
        network: TensorMap,
        mut heads: TensorMap,
        device: &Device,
    ) -> Result<Self, NetworkError> {
        let network = config.load(network, device)?;
        let mut problems = Vec::new();
        let mut loaded = Vec::new();
        for (index, channels) in config.compared().enumerate() {
            let name = format!("lin{index}.model.1.weight");
            let expected = vec![1, channels, 1, 1];
            match heads.remove(&name) {
                Some(head) if head.shape == expected => {
                    let head = Tensor::<1>::from_floats(&*head.values, device);
                    loaded.push(head.reshape([channels, 1]));
                }
                Some(head) => {
                    problems.push(ParameterError::Shape { name, expected, got: head.shape });
                }
                None => problems.push(ParameterError::Missing { name, expected }),
            }
        }
        problems.extend(
            heads
                .into_iter()
                .map(|(name, head)| ParameterError::Unused { name, shape: head.shape }),
        );
        if problems.is_empty() {
            Ok(Self { network, heads: loaded })
        } else {
            Err(NetworkError { network: "LPIPS", problems })
        }
    }

    fn features(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let images = images.permute([0, 2, 3, 1]).mul_scalar(2.0).sub_scalar(1.0);
        self.network.features(Self::STATISTICS.normalize(images))
    }
}

impl PerceptualDistance for Lpips {
    fn distance(&self, prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
        let target = self.features(constant(target));
        let prediction = self.features(prediction);
        prediction
            .into_iter()
            .zip(target)
            .zip(&self.heads)
            .map(|((prediction, target), head)| unit_distance(prediction, target, Some(head)))
            .reduce(|sum, level| sum + level)
            .expect("a network has levels")
    }
}
