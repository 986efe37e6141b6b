//! The quantizer: each feature becomes the nearest code.

use burn::{
    module::{Initializer, Module, Param},
    tensor::{Device, Int, Tensor},
};

use crate::config::TokenizerConfig;

/// Weight of the commitment term (van den Oord et al. 2017; released code).
pub const COMMITMENT: f64 = 0.25;

/// What the quantizer makes of features.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// The codes, with the gradient passed straight through to the features.
    ///
    /// # Shapes
    /// `[batch, length, token_size]`.
    pub codes: Tensor<3>,
    /// Which codes were chosen.
    ///
    /// # Shapes
    /// `[batch, length]`.
    pub indices: Tensor<2, Int>,
    /// Mean squared distance between features and codes, pulling the codes to the features, and
    /// [`COMMITMENT`] times the same pulling the features to the codes.
    pub loss: Tensor<1>,
}

/// Vector quantization by Euclidean distance (paper, A.3, equation 4).
#[derive(Module, Debug)]
pub struct Quantizer {
    /// The codebook, `[codes, token_size]`.
    codebook: Param<Tensor<2>>,
}

impl Quantizer {
    pub(crate) fn new(config: &TokenizerConfig, device: &Device) -> Self {
        Self { codebook: Initializer::Zeros.init([config.codes, config.token_size], device) }
    }

    /// The codebook, `[codes, token_size]`.
    pub fn codebook(&self) -> Tensor<2> {
        self.codebook.val()
    }

    /// The same quantizer with another codebook, which trains on as the old one did.
    #[must_use]
    pub fn with_codebook(self, codebook: Tensor<2>) -> Self {
        let codebook = self.codebook.map(|old| codebook.set_require_grad(old.is_require_grad()));
        Self { codebook }
    }

    /// Squared Euclidean distance of every feature to every code, without a gradient.
    ///
    /// # Shapes
    /// `features [count, token_size]` → `[count, codes]`.
    pub fn distances(&self, features: Tensor<2>) -> Tensor<2> {
        let features = plain(features);
        let codebook = plain(self.codebook.val());
        let feature_norms = features.clone().square().sum_dim(1);
        let code_norms = codebook.clone().square().sum_dim(1).transpose();
        feature_norms + code_norms - features.matmul(codebook.transpose()).mul_scalar(2.0)
    }

    /// The nearest code of every feature; of equally near ones, the first.
    ///
    /// # Shapes
    /// `features [batch, length, token_size]` → `[batch, length]`.
    pub fn nearest(&self, features: Tensor<3>) -> Tensor<2, Int> {
        let [batch, length, size] = features.dims();
        self.distances(features.reshape([batch * length, size])).argmin(1).reshape([batch, length])
    }

    /// The codes of the given indices.
    ///
    /// # Shapes
    /// `indices [batch, length]` → `[batch, length, token_size]`.
    pub fn codes(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = indices.dims();
        let codebook = self.codebook.val();
        let [_, size] = codebook.dims();
        codebook.select(0, indices.reshape([batch * length])).reshape([batch, length, size])
    }

    /// Quantizes features for training.
    ///
    /// # Shapes
    /// `features [batch, length, token_size]`; see [`Quantized`].
    pub fn forward(&self, features: Tensor<3>) -> Quantized {
        let indices = self.nearest(features.clone());
        // Features and indices may live on a plain device, the codebook on a differentiable one.
        let indices = on_device_of(indices, &self.codebook.val().device());
        let codes = self.codes(indices.clone());
        let commitment = (features.clone() - codes.clone().detach()).square().mean();
        let codebook = (codes.clone() - features.clone().detach()).square().mean();
        Quantized {
            codes: features.clone() + (codes - features).detach(),
            indices,
            loss: commitment.mul_scalar(COMMITMENT) + codebook,
        }
    }
}

/// The tensor without its gradient's history.
pub(crate) fn plain<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.is_autodiff() { tensor.inner() } else { tensor }
}

fn on_device_of(indices: Tensor<2, Int>, device: &Device) -> Tensor<2, Int> {
    if device.is_autodiff() && !indices.is_autodiff() {
        Tensor::from_inner(indices)
    } else {
        indices
    }
}
