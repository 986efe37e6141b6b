//! What tokenizer and discriminator want of each other.

use burn::tensor::{Tensor, activation::relu};

/// The discriminator's hinge loss: half the mean of max(0, 1 − logit) over pictures plus half the
/// mean of max(0, 1 + logit) over reconstructions (Open-MAGViT2, and the released code).
///
/// # Shapes
/// Both `[batch, 1, rows, columns]`.
pub fn hinge(real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
    let real = relu(real.neg().add_scalar(1.0)).mean();
    let fake = relu(fake.add_scalar(1.0)).mean();
    (real + fake).mul_scalar(0.5)
}

/// The tokenizer's adversarial loss: the negative mean logit of its reconstructions
/// (Open-MAGViT2, and the released code).
///
/// # Shapes
/// `[batch, 1, rows, columns]`.
pub fn generator(fake: Tensor<4>) -> Tensor<1> {
    fake.mean().neg()
}

/// How slowly the averages of [`LeCam`] follow (Open-MAGViT2).
const DECAY: f64 = 0.999;

/// LeCAM's regularization (Tseng et al. 2021): moving averages of the mean logits, from which
/// the logits of the other side are kept.
///
/// The averages begin at zero, as in Open-MAGViT2. There a batch is held to averages that have
/// taken it in already; here it is held to those of the batches before, so that micro-batches of
/// a step need not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LeCam {
    /// Moving average of the pictures' mean logit.
    pub real: f64,
    /// Moving average of the reconstructions' mean logit.
    pub fake: f64,
}

impl LeCam {
    /// Takes in the mean logits of a batch.
    pub fn follow(&mut self, real: f64, fake: f64) {
        self.real = DECAY * self.real + (1.0 - DECAY) * real;
        self.fake = DECAY * self.fake + (1.0 - DECAY) * fake;
    }

    /// The mean of max(0, real logit − average of fake)² plus that of
    /// max(0, average of real − fake logit)².
    ///
    /// # Shapes
    /// Both `[batch, 1, rows, columns]`.
    pub fn penalty(&self, real: Tensor<4>, fake: Tensor<4>) -> Tensor<1> {
        relu(real.sub_scalar(self.fake)).square().mean()
            + relu(fake.neg().add_scalar(self.real)).square().mean()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn logits(values: [f32; 2]) -> Tensor<4> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([2, 1, 1, 1])
    }

    fn number(tensor: Tensor<1>) -> f32 {
        tensor.into_scalar()
    }

    #[test]
    fn should_be_what_the_formulas_say() {
        let (real, fake) = (logits([0.25, 3.0]), logits([-4.0, 0.5]));
        // (0.75 + 0) / 2 and (0 + 1.5) / 2, in the mean.
        assert_eq!(number(hinge(real.clone(), fake.clone())), 0.5 * (0.375 + 0.75));
        assert_eq!(number(generator(fake.clone())), 1.75);
        let lecam = LeCam { real: 1.0, fake: -0.75 };
        // (1² + 3.75²) / 2 and (5² + 0.5²) / 2.
        assert_eq!(number(lecam.penalty(real, fake)), (1.0 + 14.0625 + 25.0 + 0.25) / 2.0);
        // Pictures below and reconstructions above the other's average cost nothing.
        assert_eq!(number(lecam.penalty(logits([-1.0, -2.0]), logits([1.5, 2.0]))), 0.0);
    }

    #[test]
    fn should_follow_the_mean_logits_slowly() {
        let mut lecam = LeCam::default();
        lecam.follow(2.0, -2.0);
        assert!((lecam.real - 0.002).abs() < 1e-12 && (lecam.fake + 0.002).abs() < 1e-12);
        lecam.follow(0.0, 1.0);
        assert!((lecam.real - 0.001_998).abs() < 1e-12 && (lecam.fake + 0.000_998).abs() < 1e-12);
    }
}
