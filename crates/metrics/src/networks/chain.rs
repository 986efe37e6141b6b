//! VGG16 (Simonyan & Zisserman 2015) and AlexNet (Krizhevsky 2014) as torchvision has them:
//! convolutions with ReLU and max pools, one after another, up to the last that LPIPS looks at.

use burn::tensor::{Device, Tensor};
use files::TensorMap;
use operations::fused::{self, Geometry};

use super::{Convolution, NetworkError, source::Source};

/// One convolution and what is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLayer {
    /// Its place in torchvision's `features`.
    pub index: usize,
    /// Side of a window of a max pool with stride 2 before it.
    pub pool: Option<usize>,
    /// Channels that come out.
    pub channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Zeros on all sides.
    pub padding: usize,
    /// Whether the result is compared.
    pub compared: bool,
}

/// The architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// What errors call it.
    pub network: &'static str,
    /// Its layers.
    pub layers: Vec<ChainLayer>,
    /// Layers of the public file that are not used: the classifier.
    pub unused: &'static [&'static str],
}

impl ChainConfig {
    /// VGG16.
    pub fn vgg16() -> Self {
        Self::vgg16_of([64, 128, 256, 512, 512])
    }

    /// VGG16 with these channels in its five blocks, each of which is compared at its end.
    pub fn vgg16_of(channels: [usize; 5]) -> Self {
        let mut layers = Vec::new();
        // A convolution and a ReLU take a place each, and a pool one.
        let mut index = 0;
        for (block, (channels, count)) in channels.into_iter().zip([2, 2, 3, 3, 3]).enumerate() {
            for layer in 0..count {
                layers.push(ChainLayer {
                    index,
                    pool: (block > 0 && layer == 0).then_some(2),
                    channels,
                    kernel: 3,
                    stride: 1,
                    padding: 1,
                    compared: layer + 1 == count,
                });
                index += 2;
            }
            index += 1;
        }
        Self { network: "VGG16", layers, unused: &["classifier.0", "classifier.3", "classifier.6"] }
    }

    /// AlexNet.
    pub fn alexnet() -> Self {
        Self::alexnet_of([64, 192, 384, 256, 256])
    }

    /// AlexNet with these channels in its five convolutions, each of which is compared.
    pub fn alexnet_of(channels: [usize; 5]) -> Self {
        let layer = |place: usize, index, pool, kernel, stride, padding| ChainLayer {
            index,
            pool,
            channels: channels[place],
            kernel,
            stride,
            padding,
            compared: true,
        };
        Self {
            network: "AlexNet",
            layers: vec![
                layer(0, 0, None, 11, 4, 2),
                layer(1, 3, Some(3), 5, 1, 2),
                layer(2, 6, Some(3), 3, 1, 1),
                layer(3, 8, None, 3, 1, 1),
                layer(4, 10, None, 3, 1, 1),
            ],
            unused: &["classifier.1", "classifier.4", "classifier.6"],
        }
    }

    /// Channels of each result that is compared.
    pub fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        self.layers.iter().filter(|layer| layer.compared).map(|layer| layer.channels)
    }

    /// Makes the network from torchvision's tensors; those of the classifier may be among them.
    /// `device` is without automatic differentiation.
    ///
    /// # Errors
    /// Every tensor that is missing, superfluous or mis-shaped.
    pub fn load(&self, tensors: TensorMap, device: &Device) -> Result<Chain, NetworkError> {
        let mut source = Source::new(tensors, device);
        for layer in self.unused {
            source.leave(&format!("{layer}.weight"));
            source.leave(&format!("{layer}.bias"));
        }
        let mut inputs = 3;
        let mut layers = Vec::new();
        for &layer in &self.layers {
            let ChainLayer { index, channels, kernel, .. } = layer;
            let name = format!("features.{index}");
            let folded = source.biased(&name, &[channels, inputs, kernel, kernel]);
            layers.push((layer, source.convolution(folded)));
            inputs = channels;
        }
        source.finish(self.network)?;
        Ok(Chain { layers })
    }
}

/// The network, frozen.
#[derive(Debug, Clone)]
pub struct Chain {
    layers: Vec<(ChainLayer, Convolution)>,
}

impl Chain {
    /// The results that are compared.
    ///
    /// # Shapes
    /// `x [batch, height, width, 3]`, as the network was trained on it → each
    /// `[batch, height', width', channels]`.
    ///
    /// # Panics
    /// If the picture is smaller than its windows: VGG16 needs 16 pixels, AlexNet 31.
    pub(crate) fn features(&self, mut x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut found = Vec::new();
        for (layer, convolution) in &self.layers {
            if let Some(side) = layer.pool {
                x = fused::max_pool(x, Geometry { kernel: [side; 2], stride: 2, padding: [0; 4] });
            }
            let ChainLayer { kernel, stride, padding, .. } = *layer;
            let geometry = Geometry { kernel: [kernel; 2], stride, padding: [padding; 4] };
            x = convolution.clamped(x, geometry, f32::INFINITY);
            if layer.compared {
                found.push(x.clone());
            }
        }
        found
    }
}
