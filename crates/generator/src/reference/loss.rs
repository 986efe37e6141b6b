//! What training minimizes, and what it reports.

use burn::tensor::{Int, Tensor};
use operations::fused::log_softmax;

/// Mean cross-entropy of the targets, in nats per token.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[1]`.
pub fn cross_entropy(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    token_log_likelihoods(logits, targets).mean().neg()
}

/// Fraction of tokens whose largest logit is the target's.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[1]`.
pub fn accuracy(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    token_hits(logits, targets).mean()
}

/// The logarithm of each target's probability, in nats.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[batch, length]`.
pub(crate) fn token_log_likelihoods(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    log_softmax(logits).gather(2, targets.unsqueeze_dim(2)).squeeze_dim(2)
}

/// 1 where the largest logit is the target's, else 0.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[batch, length]`.
pub(crate) fn token_hits(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    logits.argmax(2).squeeze_dim::<2>(2).equal(targets).float()
}
