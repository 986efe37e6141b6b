//! The networks that pictures are compared with, frozen.
//!
//! None of them learns, so none is a Burn module and no optimizer can reach its weights: a network
//! is made from the tensors of its public file in one strict step, which folds batch norms into
//! the convolutions before them. Gradients go through it to the pictures.
//!
//! Inside, channels come last, so that a pointwise convolution is a matrix product.

mod chain;
mod convnext;
mod efficientnet_lite;
mod inception;
mod resize;
mod source;

use burn::tensor::Tensor;
use files::ParameterError;
use operations::{fused, fused::Geometry};

pub use chain::{Chain, ChainConfig, ChainLayer};
pub use convnext::{ConvNext, ConvNextConfig};
pub use efficientnet_lite::{EfficientNetLite, EfficientNetLiteConfig, LiteStage};
pub use inception::{Inception, InceptionConfig, InceptionFeatures};

/// Tensors that are not those of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these are not the weights of {network}: {}", list(problems))]
pub struct NetworkError {
    /// The network.
    pub network: &'static str,
    /// Each tensor that does not fit.
    pub problems: Vec<ParameterError>,
}

/// The first few problems, and how many more there are.
fn list(problems: &[ParameterError]) -> String {
    const SHOWN: usize = 3;
    let mut text: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    if problems.len() > SHOWN {
        text.push(format!("and {} more", problems.len() - SHOWN));
    }
    text.join("; ")
}

/// A constant where `x` is: with automatic differentiation, not tracked.
fn beside<const D: usize, const E: usize>(x: &Tensor<E>, constant: &Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() { Tensor::from_inner(constant.clone()) } else { constant.clone() }
}

/// What pictures are shifted and scaled by, a number a colour: (x − mean) / deviation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statistics {
    pub(crate) mean: [f64; 3],
    pub(crate) deviation: [f64; 3],
}

/// Those of ImageNet's training pictures in [0, 1], as torchvision has them.
const IMAGENET: Statistics =
    Statistics { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

impl Statistics {
    /// # Shapes
    /// `[batch, height, width, 3]`, kept.
    pub(crate) fn normalize(&self, x: Tensor<4>) -> Tensor<4> {
        let plain = x.device().without_autodiff();
        let vector = |values: [f64; 3]| {
            let values = values.map(|value| value as f32);
            beside(&x, &Tensor::<1>::from_floats(values, &plain)).unsqueeze::<4>()
        };
        let (mean, deviation) = (vector(self.mean), vector(self.deviation));
        (x - mean) / deviation
    }
}

/// A layer norm over the channels.
#[derive(Debug, Clone)]
struct Norm {
    /// `[channels]`.
    scale: Tensor<1>,
    /// `[channels]`.
    shift: Tensor<1>,
    epsilon: f64,
}

impl Norm {
    /// # Shapes
    /// `[.., channels]`, kept.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (scale, shift) = (beside(&x, &self.scale), beside(&x, &self.shift));
        fused::layer_norm(x, scale, shift, self.epsilon)
    }
}

/// A linear layer over the channels.
#[derive(Debug, Clone)]
struct Pointwise {
    /// `[in, out]`.
    weight: Tensor<2>,
    /// `[out]`.
    bias: Tensor<1>,
}

impl Pointwise {
    /// # Shapes
    /// `[.., in]` → `[.., out]`.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (beside(&x, &self.weight), beside(&x, &self.bias));
        fused::linear(x, weight, Some(bias))
    }
}

/// A convolution over all channels.
#[derive(Debug, Clone)]
struct Convolution {
    /// `[kernel·kernel·in, out]`.
    matrix: Tensor<2>,
    /// `[out]`.
    bias: Tensor<1>,
}

impl Convolution {
    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, height', width', out]`.
    fn forward(&self, x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let (matrix, bias) = (beside(&x, &self.matrix), beside(&x, &self.bias));
        fused::matrix_convolution(x, matrix, geometry) + bias.unsqueeze()
    }

    /// The convolution, cut off below zero and above `high`.
    ///
    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, height', width', out]`.
    fn clamped(&self, x: Tensor<4>, geometry: Geometry, high: f32) -> Tensor<4> {
        let (matrix, bias) = (beside(&x, &self.matrix), beside(&x, &self.bias));
        fused::clamped_convolution(x, matrix, bias, geometry, 0.0, high)
    }
}

/// A convolution of each channel by its own filter.
#[derive(Debug, Clone)]
struct Depthwise {
    /// `[kernel, kernel, channels]`.
    filter: Tensor<3>,
    /// `[channels]`.
    bias: Tensor<1>,
}

impl Depthwise {
    /// # Shapes
    /// `[batch, height, width, channels]` → `[batch, height', width', channels]`.
    fn forward(&self, x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let (filter, bias) = (beside(&x, &self.filter), beside(&x, &self.bias));
        fused::depthwise_convolution(x, filter, bias, geometry)
    }
}
