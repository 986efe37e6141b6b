//! What training minimizes. One loss a file as soon as one needs more than a few lines.

pub mod adversarial;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use tokenizer::{
    TokenizerConfig,
    reference::{Quantized, Reconstruction, patch::unpatchify},
};

/// Weights of the first stage's terms (paper, equations 3 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageOneLoss {
    /// Weight of the mean squared error of the picture.
    pub reconstruction: f64,
    /// Weight of the quantizer's loss.
    pub quantizer: f64,
    /// Weight of the auxiliary loss: the mean squared error of the first row as the prefix rebuilds
    /// it, and the perceptual loss of a picture with that row; 0 where the decoder has no prefix
    /// head. The released code has 10 · 17 / 256, and no perceptual part.
    pub auxiliary: f64,
}

/// The terms of the first stage's loss, and their weighted sum.
#[derive(Debug, Clone)]
pub struct StageOneTerms {
    /// What is minimized.
    pub total: Tensor<1>,
    /// Mean squared error of the picture.
    pub reconstruction: Tensor<1>,
    /// The quantizer's loss.
    pub quantizer: Tensor<1>,
    /// Mean squared error of the first row as the prefix rebuilds it.
    pub auxiliary: Option<Tensor<1>>,
}

/// Mean squared error over all values.
///
/// # Shapes
/// Any, equal.
pub fn mean_squared_error<const D: usize>(prediction: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
    (prediction - target).square().mean()
}

/// Mean squared error of each sample.
///
/// # Shapes
/// `[batch, count, values]`, equal → `[batch]`.
pub(crate) fn squared_errors(prediction: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
    let [batch, count, values] = target.dims();
    let errors = (prediction - target).square().reshape([batch, count * values]);
    errors.mean_dim(1).squeeze_dim(1)
}

/// The picture whose first row the prefix has rebuilt. No gradient reaches the other rows, so that
/// a loss of the whole picture teaches the prefix alone (paper, 3.2, "Prefix token").
///
/// # Shapes
/// `[batch, 3, height, width]` in [0, 1]; `None` where the decoder has no prefix head.
pub fn picture_of_prefix(
    config: &TokenizerConfig,
    reconstruction: &Reconstruction,
) -> Option<Tensor<4>> {
    let prefix = reconstruction.prefix.clone()?;
    let (layout, patches) = (config.layout(), reconstruction.patches.clone().detach());
    let (columns, grid) = (layout.columns(), layout.grid());
    // In the released layout the first patch comes twice.
    let [_, length, _] = prefix.dims();
    let row = prefix.slice_dim(1, length - columns..length);
    let patches = match grid - columns {
        0 => row,
        _ => Tensor::cat(vec![row, patches.slice_dim(1, columns..grid)], 1),
    };
    Some(unpatchify(patches, config.patch, columns))
}

impl StageOneLoss {
    /// The loss of a batch, without its perceptual and adversarial terms.
    ///
    /// # Shapes
    /// `target [batch, rows·columns, patch·patch·3]`, patches with values in [0, 1].
    pub fn forward(
        &self,
        config: &TokenizerConfig,
        reconstruction: Reconstruction,
        quantized: &Quantized,
        target: Tensor<3>,
    ) -> StageOneTerms {
        let [batch, _, values] = target.dims();
        let auxiliary = reconstruction.prefix.map(|prefix| {
            let row: Vec<Tensor<3>> = config
                .prefix_columns()
                .into_iter()
                .map(|column| target.clone().slice([0..batch, column..column + 1, 0..values]))
                .collect();
            mean_squared_error(prefix, Tensor::cat(row, 1))
        });
        let reconstruction = mean_squared_error(reconstruction.patches, target);
        let quantizer = quantized.loss.clone();
        let mut total = reconstruction.clone().mul_scalar(self.reconstruction)
            + quantizer.clone().mul_scalar(self.quantizer);
        if let Some(auxiliary) = &auxiliary {
            total = total + auxiliary.clone().mul_scalar(self.auxiliary);
        }
        StageOneTerms { total, reconstruction, quantizer, auxiliary }
    }
}
