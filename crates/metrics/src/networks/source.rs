//! Taking a network's tensors out of its file, strictly, and folding batch norms.

use burn::tensor::{Device, Tensor, TensorData};
use files::{HostTensor, ParameterError, TensorMap};

use super::{Convolution, Depthwise, NetworkError, Norm, Pointwise};

/// The tensors of a file, while a network is made from them. What is missing or has another shape
/// is noted and replaced by zeros, so that all problems are reported and not the first.
pub(super) struct Source<'a> {
    tensors: TensorMap,
    problems: Vec<ParameterError>,
    device: &'a Device,
}

/// A convolution's weight and bias on the host; the weight as PyTorch has it, output first.
pub(super) struct Folded {
    pub(super) weight: HostTensor,
    pub(super) bias: Vec<f32>,
}

impl<'a> Source<'a> {
    pub(super) fn new(tensors: TensorMap, device: &'a Device) -> Self {
        Self { tensors, problems: Vec::new(), device }
    }

    /// The tensor of this name and shape.
    pub(super) fn take(&mut self, name: &str, expected: &[usize]) -> HostTensor {
        let zeros = || HostTensor::new(expected, vec![0.0; expected.iter().product()]);
        match self.tensors.remove(name) {
            Some(tensor) if tensor.shape == expected => tensor,
            found => {
                let (name, expected) = (name.to_owned(), expected.to_vec());
                self.problems.push(match found {
                    None => ParameterError::Missing { name, expected },
                    Some(tensor) => ParameterError::Shape { name, expected, got: tensor.shape },
                });
                zeros()
            }
        }
    }

    /// Forgets a tensor that the file may have and the network does not use.
    pub(super) fn leave(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Weight and bias of a linear layer or a convolution.
    pub(super) fn biased(&mut self, name: &str, shape: &[usize]) -> Folded {
        let weight = self.take(&format!("{name}.weight"), shape);
        Folded { weight, bias: self.take(&format!("{name}.bias"), &shape[..1]).values }
    }

    /// A layer norm over `channels`.
    pub(super) fn norm(&mut self, name: &str, channels: usize, epsilon: f64) -> Norm {
        let mut vector = |part: &str| self.take(&format!("{name}.{part}"), &[channels]).values;
        let (scale, shift) = (vector("weight"), vector("bias"));
        Norm { scale: self.vector(scale), shift: self.vector(shift), epsilon }
    }

    /// The weight `NAME.weight` of a convolution without bias, and the batch norm after it.
    pub(super) fn normalized(
        &mut self,
        convolution: &str,
        shape: [usize; 4],
        norm: &str,
        epsilon: f64,
    ) -> Folded {
        let weight = self.take(&format!("{convolution}.weight"), &shape);
        let mut vector = |part: &str| self.take(&format!("{norm}.{part}"), &shape[..1]).values;
        let (scale, shift) = (vector("weight"), vector("bias"));
        let (mean, variance) = (vector("running_mean"), vector("running_var"));
        fold(weight, &scale, &shift, &mean, &variance, epsilon)
    }

    /// A vector on the device.
    pub(super) fn vector(&self, values: Vec<f32>) -> Tensor<1> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), self.device)
    }

    /// A 1×1 convolution.
    pub(super) fn pointwise(&self, folded: Folded) -> Pointwise {
        let [outputs, inputs] = [folded.weight.shape[0], folded.weight.shape[1]];
        let weight = HostTensor::new([outputs, inputs], folded.weight.values).transposed();
        let weight = TensorData::new(weight.values, [inputs, outputs]);
        Pointwise { weight: Tensor::from_data(weight, self.device), bias: self.vector(folded.bias) }
    }

    /// A convolution of each channel alone.
    pub(super) fn depthwise(&self, folded: Folded) -> Depthwise {
        let [channels, _, height, width] = folded.weight.shape[..] else {
            unreachable!("weights of convolutions have four dimensions");
        };
        let filter = HostTensor::new([channels, height * width], folded.weight.values).transposed();
        let filter = TensorData::new(filter.values, [height, width, channels]);
        Depthwise { filter: Tensor::from_data(filter, self.device), bias: self.vector(folded.bias) }
    }

    /// A convolution over all channels.
    pub(super) fn convolution(&self, folded: Folded) -> Convolution {
        let [outputs, inputs, height, width] = folded.weight.shape[..] else {
            unreachable!("weights of convolutions have four dimensions");
        };
        let weight = TensorData::new(folded.weight.values, [outputs, inputs, height, width]);
        let weight = Tensor::<4>::from_data(weight, self.device);
        Convolution {
            matrix: weight.permute([2, 3, 1, 0]).reshape([height * width * inputs, outputs]),
            bias: self.vector(folded.bias),
        }
    }

    /// Checks that everything was taken and had its shape.
    ///
    /// # Errors
    /// All that did not fit.
    pub(super) fn finish(mut self, network: &'static str) -> Result<(), NetworkError> {
        let unused = self.tensors.into_iter();
        self.problems.extend(
            unused.map(|(name, tensor)| ParameterError::Unused { name, shape: tensor.shape }),
        );
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(NetworkError { network, problems: self.problems }),
        }
    }
}

/// A batch norm of fixed statistics is a factor and a summand a channel.
fn fold(
    mut weight: HostTensor,
    scale: &[f32],
    shift: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f64,
) -> Folded {
    let mut bias = Vec::with_capacity(scale.len());
    let per_output = weight.values.len() / scale.len().max(1);
    for (output, values) in weight.values.chunks_exact_mut(per_output.max(1)).enumerate() {
        let factor = f64::from(scale[output]) / (f64::from(variance[output]) + epsilon).sqrt();
        for value in values {
            *value = (f64::from(*value) * factor) as f32;
        }
        bias.push((f64::from(shift[output]) - f64::from(mean[output]) * factor) as f32);
    }
    Folded { weight, bias }
}
