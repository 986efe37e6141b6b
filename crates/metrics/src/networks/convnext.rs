//! ConvNeXt (Liu et al. 2022) as torchvision has it, up to its logits.

use burn::tensor::{Device, Tensor};
use files::{HostTensor, TensorMap};
use operations::fused::{self, Geometry};

use super::{
    Convolution, Depthwise, IMAGENET, NetworkError, Norm, Pointwise,
    resize::Filter,
    source::{Folded, Source},
};

/// Added to the variance in every layer norm.
const EPSILON: f64 = 1e-6;

/// The architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvNextConfig {
    /// Channels and number of blocks of each stage.
    pub stages: Vec<(usize, usize)>,
    /// Number of logits.
    pub classes: usize,
    /// Side in pixels that pictures are resized to.
    pub side: usize,
}

impl ConvNextConfig {
    /// ConvNeXt-S on ImageNet at 224 pixels (torchvision's `convnext_small`).
    pub fn small() -> Self {
        Self { stages: vec![(96, 3), (192, 3), (384, 27), (768, 3)], classes: 1000, side: 224 }
    }

    /// Makes the network from torchvision's tensors. `device` is without automatic
    /// differentiation.
    ///
    /// # Errors
    /// Every tensor that is missing, superfluous or mis-shaped.
    pub fn load(&self, tensors: TensorMap, device: &Device) -> Result<ConvNext, NetworkError> {
        let mut source = Source::new(tensors, device);
        let mut stages = Vec::new();
        let mut inputs = 3;
        for (index, &(channels, blocks)) in self.stages.iter().enumerate() {
            // In the stem the norm follows the convolution, later it comes before it.
            let (kernel, convolution, norm, normalized) = match index {
                0 => (4, "features.0.0".to_owned(), "features.0.1".to_owned(), channels),
                _ => {
                    let layer = format!("features.{}", 2 * index);
                    (2, format!("{layer}.1"), format!("{layer}.0"), inputs)
                }
            };
            let folded = source.biased(&convolution, &[channels, inputs, kernel, kernel]);
            stages.push(Stage {
                norm: source.norm(&norm, normalized, EPSILON),
                convolution: source.convolution(folded),
                kernel,
                blocks: (0..blocks)
                    .map(|block| {
                        let name = format!("features.{}.{block}", 2 * index + 1);
                        Block::load(&mut source, &name, channels)
                    })
                    .collect(),
            });
            inputs = channels;
        }
        let norm = source.norm("classifier.0", inputs, EPSILON);
        let head = source.biased("classifier.2", &[self.classes, inputs]);
        let head = source.pointwise(head);
        source.finish("ConvNeXt")?;
        Ok(ConvNext { stages, norm, head, side: self.side })
    }
}

#[derive(Debug, Clone)]
struct Stage {
    norm: Norm,
    convolution: Convolution,
    kernel: usize,
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    depthwise: Depthwise,
    norm: Norm,
    expand: Pointwise,
    project: Pointwise,
}

impl Block {
    fn load(source: &mut Source<'_>, name: &str, channels: usize) -> Self {
        let part = |part: &str| format!("{name}.block.{part}");
        let depthwise = source.biased(&part("0"), &[channels, 1, 7, 7]);
        let norm = source.norm(&part("2"), channels, EPSILON);
        let expand = source.biased(&part("3"), &[4 * channels, channels]);
        let project = source.biased(&part("5"), &[channels, 4 * channels]);
        let scale = source.take(&format!("{name}.layer_scale"), &[channels, 1, 1]);
        Self {
            depthwise: source.depthwise(depthwise),
            norm,
            expand: source.pointwise(expand),
            project: source.pointwise(scaled(project, &scale)),
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let x = self.depthwise.forward(input.clone(), Geometry::same(7));
        let x = fused::gelu(self.expand.forward(self.norm.forward(x)));
        self.project.forward(x) + input
    }
}

/// A layer whose outputs are multiplied by a factor each.
fn scaled(mut layer: Folded, factors: &HostTensor) -> Folded {
    let inputs = layer.weight.values.len() / factors.values.len().max(1);
    for (output, factor) in factors.values.iter().enumerate() {
        layer.bias[output] *= factor;
        for value in &mut layer.weight.values[output * inputs..(output + 1) * inputs] {
            *value *= factor;
        }
    }
    layer
}

/// The network, frozen.
#[derive(Debug, Clone)]
pub struct ConvNext {
    stages: Vec<Stage>,
    norm: Norm,
    head: Pointwise,
    side: usize,
}

impl ConvNext {
    /// The logits of pictures of any size, resized bilinearly with antialiasing.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, classes]`.
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = IMAGENET.normalize(Filter::Antialiased.resize(images, self.side));
        for (index, stage) in self.stages.iter().enumerate() {
            let geometry =
                Geometry { kernel: [stage.kernel; 2], stride: stage.kernel, padding: [0; 4] };
            x = if index == 0 {
                stage.norm.forward(stage.convolution.forward(x, geometry))
            } else {
                stage.convolution.forward(stage.norm.forward(x), geometry)
            };
            for block in &stage.blocks {
                x = block.forward(x);
            }
        }
        let [batch, height, width, channels] = x.dims();
        let pooled = x.reshape([batch, height * width, channels]).mean_dim(1);
        self.head.forward(self.norm.forward(pooled.reshape([batch, channels])))
    }
}
