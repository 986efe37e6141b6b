//! Online clustering of the codebook: codes that are rarely chosen move to where features are.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use tokens::noise::Noise;

use crate::reference::quantizer::{Quantizer, plain};

/// Which feature of the batch a rarely chosen code moves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// The one nearest to the code, as the paper and the released code have it.
    Nearest,
    /// One drawn with a probability in proportion to its squared distance from its own code, as
    /// k-means++ seeds clusters (Arthur and Vassilvitskii 2007). Codes that start closely together
    /// have the same nearest feature and would move as one; drawn so, they spread over what the
    /// codebook represents badly, which matters where batches are small.
    Spread,
}

/// Settings of the clustering.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusteringConfig {
    /// Where rarely chosen codes move.
    pub anchor: Anchor,
    /// How slowly the usage follows the batches, γ. The paper and the released code have 0.99,
    /// under which a code that was chosen once stays for some hundred steps. That suits batches
    /// in which each code is chosen many times; where it is chosen once or twice, the encoder has
    /// moved on by then, and 0.9 keeps more of the codebook in use.
    pub decay: f64,
}

/// The running usage of each code, and the update that it drives (Zheng and Vedaldi 2023, as in
/// the released `VectorQuantizer`):
///
/// p ← γ p + (1 − γ) · frequency in the batch; α = exp(−10 p N / (1 − γ) − 1e-3);
/// code ← (1 − α) code + α · a feature of the batch, see [`Anchor`].
#[derive(Debug, Clone)]
pub struct Clustering {
    config: ClusteringConfig,
    usage: Tensor<1>,
}

impl Clustering {
    /// Of a codebook of `codes` codes none of which was ever used.
    pub fn new(config: ClusteringConfig, codes: usize, device: &Device) -> Self {
        Self { config, usage: Tensor::zeros([codes], device) }
    }

    /// Goes on from a recorded usage.
    pub fn from_usage(config: ClusteringConfig, usage: Vec<f32>, device: &Device) -> Self {
        let shape = [usage.len()];
        Self { config, usage: Tensor::from_data(TensorData::new(usage, shape), device) }
    }

    /// The running frequency of each code, `[codes]`; they sum to at most 1.
    pub fn usage(&self) -> Tensor<1> {
        self.usage.clone()
    }

    /// Follows one batch. Takes the features and choices of the batch and the codebook that
    /// made them; returns the quantizer with the moved codebook. The noise chooses random
    /// anchors.
    ///
    /// # Shapes
    /// `features [batch, length, token_size]`, `indices [batch, length]`.
    pub fn update(
        &mut self,
        quantizer: Quantizer,
        features: Tensor<3>,
        indices: Tensor<2, Int>,
        noise: &mut Noise,
    ) -> Quantizer {
        let [batch, length, size] = features.dims();
        let features = plain(features).reshape([batch * length, size]);
        let indices = if indices.is_autodiff() { indices.inner() } else { indices };
        let codebook = plain(quantizer.codebook());
        let [codes, _] = codebook.dims();

        let counts = Tensor::<1>::zeros([codes], &codebook.device()).select_assign(
            0,
            indices.reshape([batch * length]),
            Tensor::ones([batch * length], &codebook.device()),
            IndexingUpdateOp::Add,
        );
        let frequency = counts.div_scalar((batch * length) as f64);
        let decay = self.config.decay;
        self.usage = self.usage.clone().mul_scalar(decay) + frequency.mul_scalar(1.0 - decay);

        let chosen = match self.config.anchor {
            Anchor::Nearest => quantizer.distances(features.clone()).argmin(0).reshape([codes]),
            Anchor::Spread => {
                let errors = quantizer.distances(features.clone()).min_dim(1);
                let chosen =
                    draw(&operations::parameters::host_tensor(errors).values, codes, noise);
                Tensor::from_data(TensorData::new(chosen, [codes]), &codebook.device())
            }
        };
        let anchors = features.select(0, chosen);
        let pull = self
            .usage
            .clone()
            .mul_scalar(-(codes as f64) * 10.0 / (1.0 - decay))
            .sub_scalar(1e-3)
            .exp()
            .unsqueeze_dim::<2>(1);
        let moved = codebook * (pull.clone().neg() + 1.0) + anchors * pull;
        let moved =
            if quantizer.codebook().is_autodiff() { Tensor::from_inner(moved) } else { moved };
        quantizer.with_codebook(moved)
    }
}

/// `count` indices, each drawn with a probability in proportion to its weight.
fn draw(weights: &[f32], count: usize, noise: &mut Noise) -> Vec<i64> {
    let mut total = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|&weight| {
            total += f64::from(weight.max(0.0));
            total
        })
        .collect();
    (0..count)
        .map(|_| {
            let target = noise.uniform() * total;
            sums.partition_point(|&sum| sum <= target).min(weights.len() - 1) as i64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tokens::noise::Purpose;

    use super::*;

    #[test]
    fn should_draw_in_proportion_to_the_weights() {
        let mut noise = Noise::new(1, Purpose::Clustering, 0, 0);
        let drawn = draw(&[0.0, 1.0, 0.0, 3.0, 0.0], 40_000, &mut noise);
        let share = |index| drawn.iter().filter(|&&i| i == index).count() as f64 / 40_000.0;
        assert!((share(1) - 0.25).abs() < 0.01 && (share(3) - 0.75).abs() < 0.01);
    }
}
