//! EfficientNet-Lite (Google, 2020): EfficientNet without squeeze-and-excitation, with ReLU6.
//!
//! The file of its first blocks comes with the program (`models/efficientnet-lite0`); tensors have
//! the names of the PyTorch port that the weights come from.

use burn::tensor::{Device, Tensor};
use files::TensorMap;
use operations::fused::{self, Geometry};

use super::{Convolution, Depthwise, NetworkError, Pointwise, source::Source};

/// Added to the variance in every batch norm.
const EPSILON: f64 = 1e-3;

/// Blocks that are alike but for the first, which moves by `stride` and changes the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiteStage {
    /// Side of the depthwise filters.
    pub kernel: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// How many times as many channels a block has inside; 1 leaves the expansion out.
    pub expansion: usize,
    /// Channels between blocks.
    pub channels: usize,
    /// Number of blocks.
    pub blocks: usize,
}

/// The architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfficientNetLiteConfig {
    /// Channels of the first convolution.
    pub stem: usize,
    /// The stages after it.
    pub stages: Vec<LiteStage>,
}

impl EfficientNetLiteConfig {
    /// EfficientNet-Lite0 up to its twelfth block, the first with a 32nd of the resolution. The
    /// four blocks and the classifier after it have four fifths of the parameters, and there is no
    /// use for them here.
    pub fn lite0() -> Self {
        let stage = |kernel, stride, expansion, channels, blocks| LiteStage {
            kernel,
            stride,
            expansion,
            channels,
            blocks,
        };
        Self {
            stem: 32,
            stages: vec![
                stage(3, 1, 1, 16, 1),
                stage(3, 2, 6, 24, 2),
                stage(5, 2, 6, 40, 2),
                stage(3, 2, 6, 80, 3),
                stage(5, 1, 6, 112, 3),
                stage(5, 2, 6, 192, 1),
            ],
        }
    }

    /// Those tensors of a complete EfficientNet-Lite that this architecture has: all of its blocks,
    /// nothing of later ones and of the classifier.
    pub fn select(&self, mut tensors: TensorMap) -> TensorMap {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
        tensors.retain(|name, _| match name.split('.').collect::<Vec<_>>()[..] {
            ["_conv_stem" | "_bn0", _] => true,
            ["_blocks", index, ..] => index.parse::<usize>().is_ok_and(|index| index < blocks),
            _ => false,
        });
        tensors
    }

    /// Makes the network from its tensors. `device` is without automatic differentiation.
    ///
    /// # Errors
    /// Every tensor that is missing, superfluous or mis-shaped.
    pub fn load(
        &self,
        tensors: TensorMap,
        device: &Device,
    ) -> Result<EfficientNetLite, NetworkError> {
        let mut source = Source::new(tensors, device);
        let stem = source.normalized("_conv_stem", [self.stem, 3, 3, 3], "_bn0", EPSILON);
        let stem = source.convolution(stem);
        let mut blocks: Vec<Block> = Vec::new();
        let mut inputs = self.stem;
        for stage in &self.stages {
            for index in 0..stage.blocks {
                let stride = if index == 0 { stage.stride } else { 1 };
                blocks.push(Block::load(&mut source, blocks.len(), inputs, stage, stride));
                inputs = stage.channels;
            }
        }
        source.finish("EfficientNet-Lite0")?;
        Ok(EfficientNetLite { stem, blocks })
    }
}

#[derive(Debug, Clone)]
struct Block {
    expand: Option<Pointwise>,
    depthwise: Depthwise,
    project: Pointwise,
    kernel: usize,
    stride: usize,
    residual: bool,
}

impl Block {
    fn load(
        source: &mut Source<'_>,
        index: usize,
        inputs: usize,
        stage: &LiteStage,
        stride: usize,
    ) -> Self {
        let LiteStage { kernel, expansion, channels, .. } = *stage;
        let inner = inputs * expansion;
        let mut part = |convolution: &str, shape, norm: &str| {
            let name = |part: &str| format!("_blocks.{index}.{part}");
            source.normalized(&name(convolution), shape, &name(norm), EPSILON)
        };
        let expand = (expansion != 1).then(|| part("_expand_conv", [inner, inputs, 1, 1], "_bn0"));
        let depthwise = part("_depthwise_conv", [inner, 1, kernel, kernel], "_bn1");
        let project = part("_project_conv", [channels, inner, 1, 1], "_bn2");
        Self {
            expand: expand.map(|expand| source.pointwise(expand)),
            depthwise: source.depthwise(depthwise),
            project: source.pointwise(project),
            kernel,
            stride,
            residual: stride == 1 && inputs == channels,
        }
    }

    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let mut x = input.clone();
        if let Some(expand) = &self.expand {
            x = fused::clamp(expand.forward(x), 0.0, 6.0);
        }
        let [_, height, width, _] = x.dims();
        let geometry = Geometry::covering(self.kernel, self.stride, [height, width]);
        x = fused::clamp(self.depthwise.forward(x, geometry), 0.0, 6.0);
        x = self.project.forward(x);
        if self.residual { x + input } else { x }
    }
}

/// The network, frozen.
#[derive(Debug, Clone)]
pub struct EfficientNetLite {
    stem: Convolution,
    blocks: Vec<Block>,
}

impl EfficientNetLite {
    /// What comes out of the first `levels` resolutions: of each block after which the next one
    /// halves the picture, and of the last.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → each `[batch, height', width', channels]`,
    /// with half of the pixels along each axis first, rounded up.
    pub fn levels(&self, images: Tensor<4>, levels: usize) -> Vec<Tensor<4>> {
        // The published (pixel − 127) / 128.
        let x = images.mul_scalar(255.0 / 128.0).sub_scalar(127.0 / 128.0);
        let [_, _, height, width] = x.dims();
        let geometry = Geometry::covering(3, 2, [height, width]);
        let mut x = self.stem.clamped(x.permute([0, 2, 3, 1]), geometry, 6.0);
        let mut found = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            if found.len() == levels {
                break;
            }
            x = block.forward(x);
            if self.blocks.get(index + 1).is_none_or(|next| next.stride != 1) {
                found.push(x.clone());
            }
        }
        found
    }

    /// The mean over the picture of what comes out of the last block: one vector a picture, by
    /// which sets of pictures are compared.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1] → `[batch, channels]`.
    pub fn pooled(&self, images: Tensor<4>) -> Tensor<2> {
        let last = self.levels(images, usize::MAX).pop().expect("a network has blocks");
        let [batch, height, width, channels] = last.dims();
        last.reshape([batch, height * width, channels]).mean_dim(1).reshape([batch, channels])
    }
}
