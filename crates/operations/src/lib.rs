//! What the transformers of tokenizer, generator and language model share: access to parameters by name,
//! fused element-wise operations with their own gradients, attention, and layers.

pub mod attention;
pub mod fused;
pub mod layers;
pub mod parameters;
pub mod precision;
pub mod tape;

use burn::{nn::Linear, tensor::Tensor};

/// A linear layer in one pass: [`fused::linear`] with its weight and bias.
///
/// # Shapes
/// `[.., inputs]` → `[.., outputs]`.
pub fn project<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    fused::linear(x, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}
