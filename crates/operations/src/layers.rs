//! Layers that the generator and the language model share. They begin as zeros; initialization or loading
//! gives them their values.

use burn::{
    module::{Initializer, Module},
    nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor},
};

use crate::{fused, project};

/// A linear layer.
pub fn linear(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs)
        .with_bias(bias)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// A norm by the root of the mean square.
pub fn rms_norm(width: usize, epsilon: f64, device: &Device) -> RmsNorm {
    RmsNormConfig::new(width).with_epsilon(epsilon).init(device)
}

/// The norm of each vector, in one pass.
///
/// # Shapes
/// `[.., width]`, kept.
pub fn normalize<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    fused::rms_norm(x, norm.gamma.val(), norm.epsilon)
}

/// SwiGLU (Shazeer 2020), as in LlamaGen and Qwen2: down(silu(gate(x)) · up(x)), without biases.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Opens or closes each hidden number; `w1` in the authors' weights.
    pub gate: Linear,
    /// The hidden numbers; `w3` in the authors' weights.
    pub up: Linear,
    /// Back to the width; `w2` in the authors' weights.
    pub down: Linear,
}

impl FeedForward {
    /// Of so many hidden numbers.
    pub fn new(width: usize, hidden: usize, device: &Device) -> Self {
        Self {
            gate: linear(width, hidden, false, device),
            up: linear(width, hidden, false, device),
            down: linear(hidden, width, false, device),
        }
    }

    /// # Shapes
    /// `[batch, positions, width]`, kept.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = project(&self.gate, x.clone());
        project(&self.down, fused::silu_gate(gate, project(&self.up, x)))
    }
}
