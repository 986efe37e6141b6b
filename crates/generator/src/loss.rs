//! What training minimizes, and what it reports.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Mean cross-entropy of the targets, in nats per token.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[1]`.
pub fn cross_entropy(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    log_softmax(logits, 2).gather(2, targets.unsqueeze_dim(2)).mean().neg()
}

/// Fraction of tokens whose largest logit is the target's.
///
/// # Shapes
/// `logits [batch, length, codes]`, `targets [batch, length]` → `[1]`.
pub fn accuracy(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    logits.argmax(2).squeeze_dim::<2>(2).equal(targets).float().mean()
}
