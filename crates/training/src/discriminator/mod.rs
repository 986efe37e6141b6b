//! The discriminator: it tells pictures from reconstructions, and so teaches the tokenizer what
//! a mean squared error does not see.

mod normalization;
mod resampling;

use burn::{
    module::{Initializer, Module, Param},
    tensor::{Device, Tensor},
};
use files::HostTensor;
use operations::{
    fused::{self, Geometry},
    parameters::replace,
};
use serde::{Deserialize, Serialize};
use tokens::noise::Noise;

use normalization::normalize;
use resampling::{adaptive_max_pool, blur_down};

/// The two architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DiscriminatorConfig {
    /// PatchGAN (Isola et al. 2017) as in Open-MAGViT2, which the paper names: 4×4 convolutions,
    /// batch normalization, leaky ReLU of 0.2. With 64 channels and 3 layers a logit sees 70×70
    /// pixels.
    PatchGan {
        /// Channels of the first convolution, 64 in the paper; each layer doubles them, up to
        /// eightfold.
        channels: usize,
        /// Layers that halve the picture, 3 in the paper.
        layers: usize,
    },
    /// TA-TiTok's, which the released code has: a 5×5 convolution, stages of 3×3 convolution,
    /// blur and halving, group normalization and leaky ReLU of 0.1, and a head on 16×16 places.
    BlurDown {
        /// Channels of the first convolution and of the first stage, 128 in the released code;
        /// each further stage doubles them. A multiple of 32.
        hidden: usize,
        /// Number of stages, 3 in the released code.
        stages: usize,
    },
}

/// Groups of the blur-down architecture's normalization.
const GROUPS: usize = 32;

/// Places of the blur-down architecture's logits, down and across.
const LOGITS: usize = 16;

impl DiscriminatorConfig {
    /// Whether it can be built: what is wrong with it if not.
    pub(crate) const fn problem(&self) -> Option<&'static str> {
        match *self {
            Self::PatchGan { channels: 0, .. } | Self::PatchGan { layers: 0, .. } => {
                Some("must have at least 1 channel and 1 layer")
            }
            // Beyond these are damaged or hostile files alone.
            Self::PatchGan { channels, layers } if channels > 1024 || layers > 8 => {
                Some("must have at most 1024 channels and 8 layers")
            }
            Self::BlurDown { hidden, stages } if hidden > 1024 || stages > 8 => {
                Some("must have a `hidden` of at most 1024 and 8 stages")
            }
            Self::BlurDown { hidden, stages }
                if hidden == 0 || hidden % GROUPS != 0 || stages == 0 =>
            {
                Some("must have at least 1 stage and a `hidden` that is a multiple of 32")
            }
            _ => None,
        }
    }

    /// Whether a logit depends on all pictures that are judged together.
    pub const fn joins_pictures(&self) -> bool {
        matches!(self, Self::PatchGan { .. })
    }

    /// Fewest pixels a side that a picture must have.
    pub fn smallest_side(&self) -> usize {
        match *self {
            // Two 4×4 convolutions of step 1 follow, each of which takes a pixel away.
            Self::PatchGan { layers, .. } => 3 << layers,
            Self::BlurDown { .. } => 1,
        }
    }

    /// A discriminator whose parameters are a function of seed and name.
    ///
    /// They begin as in the code each comes from. PatchGAN: weights normal with deviation 0.02,
    /// those of the norms around 1; blur-down: uniform within ± inputs^−½, as PyTorch begins a
    /// convolution. Biases of convolutions are uniform within ± inputs^−½ in both, those of norms
    /// zero.
    ///
    /// # Panics
    /// If a size is zero, or the blur-down architecture's is no multiple of 32.
    pub fn initialize(&self, seed: u64, device: &Device) -> Discriminator {
        assert!(self.problem().is_none(), "{self:?}");
        let discriminator = self.build(device);
        let inputs = |weight: &[usize]| weight[1..].iter().product::<usize>();
        let shapes = operations::parameters::shapes(&discriminator);
        replace(discriminator, |name, shape| {
            // Apart from the tokenizer's parameters, whatever those are called.
            let mut noise = Noise::of_parameter(seed, &format!("discriminator.{name}"), 0);
            let normal = |noise: &mut Noise, mean: f64| (mean + 0.02 * noise.normal()) as f32;
            let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
            let values = |next: &mut dyn FnMut() -> f32| {
                (0..shape.iter().product()).map(|_| next()).collect::<Vec<f32>>()
            };
            let patch_gan = matches!(self, Self::PatchGan { .. });
            let values = match (parent.ends_with("norm"), last) {
                (true, "weight") if patch_gan => values(&mut || normal(&mut noise, 1.0)),
                (true, _) => return None,
                (false, "weight") if patch_gan => values(&mut || normal(&mut noise, 0.0)),
                (false, _) => {
                    let bound = (inputs(&shapes[&format!("{parent}.weight")]) as f64).powf(-0.5);
                    values(&mut || ((2.0 * noise.uniform() - 1.0) * bound) as f32)
                }
            };
            Some(HostTensor::new(shape, values))
        })
    }

    /// A discriminator of zeros.
    pub(crate) fn build(&self, device: &Device) -> Discriminator {
        let stage = |inputs: usize, outputs: usize, kernel: usize, bias: bool| Stage {
            convolution: Convolution::new(inputs, outputs, kernel, bias, device),
            norm: Norm {
                weight: Initializer::Ones.init([outputs], device),
                bias: Initializer::Zeros.init([outputs], device),
            },
        };
        match *self {
            Self::PatchGan { channels, layers } => {
                let width = |layer: usize| channels << layer.min(3);
                Discriminator {
                    input: Convolution::new(3, channels, 4, true, device),
                    // A bias before a batch norm would be subtracted again.
                    stages: (1..=layers).map(|n| stage(width(n - 1), width(n), 4, false)).collect(),
                    hidden: None,
                    output: Convolution::new(width(layers), 1, 4, true, device),
                    config: *self,
                }
            }
            Self::BlurDown { hidden, stages } => {
                let width = |stage: usize| hidden << stage.saturating_sub(1);
                let last = width(stages);
                Discriminator {
                    input: Convolution::new(3, hidden, 5, true, device),
                    stages: (1..=stages).map(|n| stage(width(n - 1), width(n), 3, true)).collect(),
                    hidden: Some(Convolution::new(last, last, 1, true, device)),
                    output: Convolution::new(last, 1, 5, true, device),
                    config: *self,
                }
            }
        }
    }
}

#[derive(Module, Debug)]
struct Convolution {
    /// `[out, in, kernel, kernel]`.
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Convolution {
    fn new(inputs: usize, outputs: usize, kernel: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([outputs, inputs, kernel, kernel], device),
            bias: bias.then(|| Initializer::Zeros.init([outputs], device)),
        }
    }

    /// # Shapes
    /// `[batch, height, width, in]` → `[batch, height', width', out]`.
    fn forward(&self, x: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let x = fused::convolution(x, self.weight.val(), geometry);
        match &self.bias {
            Some(bias) => x + bias.val().unsqueeze(),
            None => x,
        }
    }
}

#[derive(Module, Debug)]
struct Norm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Stage {
    convolution: Convolution,
    norm: Norm,
}

/// Tells pictures from reconstructions.
#[derive(Module, Debug)]
pub struct Discriminator {
    input: Convolution,
    stages: Vec<Stage>,
    hidden: Option<Convolution>,
    output: Convolution,
    #[module(skip)]
    config: DiscriminatorConfig,
}

impl Discriminator {
    /// One logit a place, above zero for what it takes for a picture.
    ///
    /// A batch norm normalizes by the statistics of the batch it is given, always: pictures and
    /// reconstructions are judged apart, and no running statistics are kept, since nothing would
    /// ever read them.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` with values in [0, 1] → `[batch, 1, rows, columns]`.
    ///
    /// # Panics
    /// If the pictures are smaller than [`DiscriminatorConfig::smallest_side`].
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        // Channels last from here on.
        let x = images.permute([0, 2, 3, 1]);
        let x = match self.config {
            DiscriminatorConfig::PatchGan { layers, .. } => {
                let geometry = |stride| Geometry { kernel: [4; 2], stride, padding: [1; 4] };
                let mut x = fused::leaky_relu(self.input.forward(x, geometry(2)), 0.2);
                for (index, stage) in self.stages.iter().enumerate() {
                    let stride = if index + 1 < layers { 2 } else { 1 };
                    x = stage.convolution.forward(x, geometry(stride));
                    let norm = &stage.norm;
                    // One group a channel, over the whole batch at once.
                    let [batch, height, width, channels] = x.dims();
                    x = normalize(
                        x.reshape([1, batch * height * width, channels, 1]),
                        norm.weight.val(),
                        norm.bias.val(),
                    )
                    .reshape([batch, height, width, channels]);
                    x = fused::leaky_relu(x, 0.2);
                }
                self.output.forward(x, geometry(1))
            }
            DiscriminatorConfig::BlurDown { .. } => {
                let mut x = fused::leaky_relu(self.input.forward(x, Geometry::same(5)), 0.1);
                for stage in &self.stages {
                    x = blur_down(stage.convolution.forward(x, Geometry::same(3)));
                    let [batch, height, width, channels] = x.dims();
                    x = normalize(
                        x.reshape([batch, height * width, GROUPS, channels / GROUPS]),
                        stage.norm.weight.val(),
                        stage.norm.bias.val(),
                    )
                    .reshape([batch, height, width, channels]);
                    x = fused::leaky_relu(x, 0.1);
                }
                let x = adaptive_max_pool(x, LOGITS);
                let hidden = self.hidden.as_ref().expect("this architecture has a hidden layer");
                let x = fused::leaky_relu(hidden.forward(x, Geometry::same(1)), 0.1);
                self.output.forward(x, Geometry::same(5))
            }
        };
        x.permute([0, 3, 1, 2])
    }
}
