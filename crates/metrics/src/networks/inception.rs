//! Inception v3 as TensorFlow published it on 5 December 2015, which FID and its kin are defined
//! by. It differs from the paper's and torchvision's: average pools leave the zeros around the
//! picture out, the last block has a max pool in the place of an average pool, and there are 1008
//! classes. Tensors have the names of torch-fidelity's conversion
//! (`weights-inception-2015-12-05-6726825d.pth`, which others call `pt_inception-…`).

use burn::tensor::{Device, Tensor, TensorData};
use files::TensorMap;
use operations::fused::{self, Geometry};

use super::{Convolution, NetworkError, Pointwise, beside, resize::Filter, source::Source};

/// Added to the variance in every batch norm.
const EPSILON: f64 = 1e-3;

/// The architecture: the published one, or one with every width divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InceptionConfig {
    /// What every number of channels is divided by (rounded down, at least 1); 1 as published.
    pub thinner: usize,
    /// Number of logits, 1008 as published.
    pub classes: usize,
}

impl InceptionConfig {
    /// The published network.
    pub fn published() -> Self {
        Self { thinner: 1, classes: 1008 }
    }

    /// Makes the network from its tensors. `device` is without automatic differentiation.
    ///
    /// # Errors
    /// Every tensor that is missing, superfluous or mis-shaped.
    pub fn load(&self, tensors: TensorMap, device: &Device) -> Result<Inception, NetworkError> {
        let mut loader = Loader { source: Source::new(tensors, device), thinner: self.thinner };
        let mut channels = 3;
        let mut stem = Vec::new();
        for (name, outputs, kernel, stride, padding) in [
            ("Conv2d_1a_3x3", 32, 3, 2, 0),
            ("Conv2d_2a_3x3", 32, 3, 1, 0),
            ("Conv2d_2b_3x3", 64, 3, 1, 1),
            ("Conv2d_3b_1x1", 80, 1, 1, 0),
            ("Conv2d_4a_3x3", 192, 3, 1, 0),
        ] {
            let geometry = Geometry { kernel: [kernel; 2], stride, padding: [padding; 4] };
            stem.push((name, loader.unit(name, &mut channels, outputs, geometry)));
        }
        let mut blocks = Vec::new();
        for (name, kind) in [
            ("Mixed_5b", Kind::A { pool: 32 }),
            ("Mixed_5c", Kind::A { pool: 64 }),
            ("Mixed_5d", Kind::A { pool: 64 }),
            ("Mixed_6a", Kind::B),
            ("Mixed_6b", Kind::C { inner: 128 }),
            ("Mixed_6c", Kind::C { inner: 160 }),
            ("Mixed_6d", Kind::C { inner: 160 }),
            ("Mixed_6e", Kind::C { inner: 192 }),
            ("Mixed_7a", Kind::D),
            ("Mixed_7b", Kind::E { pool: Pool::Average }),
            ("Mixed_7c", Kind::E { pool: Pool::Largest }),
        ] {
            blocks.push((name, loader.block(name, kind, &mut channels)));
        }
        let mut source = loader.source;
        let head = source.biased("fc", &[self.classes, channels]);
        let head = source.pointwise(head);
        source.finish("Inception v3 (2015-12-05)")?;
        Ok(Inception { stem, blocks, head })
    }
}

/// The kinds of blocks.
#[derive(Clone, Copy)]
enum Kind {
    A { pool: usize },
    B,
    C { inner: usize },
    D,
    E { pool: Pool },
}

/// What a block does to its input beside convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// Mean of 3×3 pixels without the zeros around the picture.
    Average,
    /// Largest of 3×3 pixels.
    Largest,
    /// Largest of 3×3 pixels at every second place.
    Halving,
}

/// A convolution, its batch norm and ReLU.
#[derive(Debug, Clone)]
struct Unit {
    convolution: Convolution,
    geometry: Geometry,
}

impl Unit {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.convolution.clamped(x, self.geometry, f32::INFINITY)
    }
}

/// Some units one after another, then some side by side on what comes out, joined.
#[derive(Debug, Clone)]
struct Branch {
    units: Vec<Unit>,
    fork: Vec<Unit>,
}

impl Branch {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.units.iter().fold(x, |x, unit| unit.forward(x));
        if self.fork.is_empty() {
            return x;
        }
        Tensor::cat(self.fork.iter().map(|unit| unit.forward(x.clone())).collect(), 3)
    }
}

/// Branches and a pool side by side, joined in this order.
#[derive(Debug, Clone)]
struct Block {
    branches: Vec<Branch>,
    pool: Pool,
    /// After the pool; a halving one has none.
    after_pool: Option<Unit>,
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pooled = pool(x.clone(), self.pool);
        let mut parts: Vec<_> =
            self.branches.iter().map(|branch| branch.forward(x.clone())).collect();
        parts.push(match &self.after_pool {
            Some(unit) => unit.forward(pooled),
            None => pooled,
        });
        Tensor::cat(parts, 3)
    }
}

fn pool(x: Tensor<4>, pool: Pool) -> Tensor<4> {
    match pool {
        Pool::Halving => {
            fused::max_pool(x, Geometry { kernel: [3; 2], stride: 2, padding: [0; 4] })
        }
        Pool::Largest => fused::max_pool(x, Geometry::same(3)),
        Pool::Average => {
            let [_, height, width, channels] = x.dims();
            let plain = x.device().without_autodiff();
            let ones = Tensor::<3>::ones([3, 3, channels], &plain);
            let none = Tensor::<1>::zeros([channels], &plain);
            // Pixels under the window along an axis: three, but two at the edges.
            let under = |at: usize, extent: usize| (at + 2).min(extent) - at.saturating_sub(1);
            let shares: Vec<f32> = (0..height * width)
                .map(|at| 1.0 / (under(at / width, height) * under(at % width, width)) as f32)
                .collect();
            let shares = TensorData::new(shares, [1, height, width, 1]);
            let shares = beside(&x, &Tensor::<4>::from_data(shares, &plain));
            let (ones, none) = (beside(&x, &ones), beside(&x, &none));
            fused::depthwise_convolution(x, ones, none, Geometry::same(3)) * shares
        }
    }
}

struct Loader<'a> {
    source: Source<'a>,
    thinner: usize,
}

/// A kernel that keeps the size of the picture, or halves it without zeros.
fn kernel(height: usize, width: usize, stride: usize) -> Geometry {
    let (rows, columns) = if stride == 1 { (height / 2, width / 2) } else { (0, 0) };
    Geometry { kernel: [height, width], stride, padding: [rows, rows, columns, columns] }
}

impl Loader<'_> {
    /// One unit; `channels` go in and are then those that come out.
    fn unit(
        &mut self,
        name: &str,
        channels: &mut usize,
        outputs: usize,
        geometry: Geometry,
    ) -> Unit {
        let outputs = (outputs / self.thinner).max(1);
        let [height, width] = geometry.kernel;
        let folded = self.source.normalized(
            &format!("{name}.conv"),
            [outputs, *channels, height, width],
            &format!("{name}.bn"),
            EPSILON,
        );
        *channels = outputs;
        Unit { convolution: self.source.convolution(folded), geometry }
    }

    /// Units one after another, from (name, channels that come out, kernel); returns the channels
    /// at the end too.
    fn chain(
        &mut self,
        block: &str,
        mut channels: usize,
        units: &[(&str, usize, Geometry)],
    ) -> (Branch, usize) {
        let units = units.iter().map(|&(name, outputs, geometry)| {
            self.unit(&format!("{block}.{name}"), &mut channels, outputs, geometry)
        });
        let units = units.collect();
        (Branch { units, fork: Vec::new() }, channels)
    }

    fn block(&mut self, name: &str, kind: Kind, channels: &mut usize) -> Block {
        let inputs = *channels;
        let one = kernel(1, 1, 1);
        let (across, down) = (kernel(1, 7, 1), kernel(7, 1, 1));
        let three = kernel(3, 3, 1);
        let halving = kernel(3, 3, 2);
        let mut outputs = 0;
        let mut branches = Vec::new();
        let mut add = |loader: &mut Self, units: &[(&str, usize, Geometry)]| {
            let (branch, channels) = loader.chain(name, inputs, units);
            branches.push(branch);
            outputs += channels;
        };
        let (pool, pool_channels) = match kind {
            Kind::A { pool } => {
                add(self, &[("branch1x1", 64, one)]);
                add(self, &[("branch5x5_1", 48, one), ("branch5x5_2", 64, kernel(5, 5, 1))]);
                add(
                    self,
                    &[
                        ("branch3x3dbl_1", 64, one),
                        ("branch3x3dbl_2", 96, three),
                        ("branch3x3dbl_3", 96, three),
                    ],
                );
                (Pool::Average, pool)
            }
            Kind::B => {
                add(self, &[("branch3x3", 384, halving)]);
                add(
                    self,
                    &[
                        ("branch3x3dbl_1", 64, one),
                        ("branch3x3dbl_2", 96, three),
                        ("branch3x3dbl_3", 96, halving),
                    ],
                );
                (Pool::Halving, 0)
            }
            Kind::C { inner } => {
                add(self, &[("branch1x1", 192, one)]);
                add(
                    self,
                    &[
                        ("branch7x7_1", inner, one),
                        ("branch7x7_2", inner, across),
                        ("branch7x7_3", 192, down),
                    ],
                );
                add(
                    self,
                    &[
                        ("branch7x7dbl_1", inner, one),
                        ("branch7x7dbl_2", inner, down),
                        ("branch7x7dbl_3", inner, across),
                        ("branch7x7dbl_4", inner, down),
                        ("branch7x7dbl_5", 192, across),
                    ],
                );
                (Pool::Average, 192)
            }
            Kind::D => {
                add(self, &[("branch3x3_1", 192, one), ("branch3x3_2", 320, halving)]);
                add(
                    self,
                    &[
                        ("branch7x7x3_1", 192, one),
                        ("branch7x7x3_2", 192, across),
                        ("branch7x7x3_3", 192, down),
                        ("branch7x7x3_4", 192, halving),
                    ],
                );
                (Pool::Halving, 0)
            }
            Kind::E { pool } => {
                add(self, &[("branch1x1", 320, one)]);
                add(self, &[("branch3x3_1", 384, one)]);
                add(self, &[("branch3x3dbl_1", 448, one), ("branch3x3dbl_2", 384, three)]);
                (pool, 192)
            }
        };
        if let Kind::E { .. } = kind {
            // The last two branches fork into a row and a column of pixels.
            let inner = (384 / self.thinner).max(1);
            for (branch, stem) in [(1, "branch3x3_2"), (2, "branch3x3dbl_3")] {
                for (suffix, geometry) in [("a", kernel(1, 3, 1)), ("b", kernel(3, 1, 1))] {
                    let mut channels = inner;
                    let name = format!("{name}.{stem}{suffix}");
                    let unit = self.unit(&name, &mut channels, 384, geometry);
                    branches[branch].fork.push(unit);
                }
                // It was counted once already.
                outputs += inner;
            }
        }
        let after_pool = match pool {
            Pool::Halving => {
                outputs += inputs;
                None
            }
            Pool::Average | Pool::Largest => {
                let mut channels = inputs;
                let name = format!("{name}.branch_pool");
                let unit = self.unit(&name, &mut channels, pool_channels, one);
                outputs += channels;
                Some(unit)
            }
        };
        *channels = outputs;
        Block { branches, pool, after_pool }
    }
}

/// What Inception says of pictures.
#[derive(Debug, Clone)]
pub struct InceptionFeatures {
    /// `pool_3`: `[batch, 2048]`, for FID, KID, precision and recall.
    pub pool: Tensor<2>,
    /// The first 7 channels of `mixed_6/conv` (the 1×1 branch of `Mixed_6d`, after its ReLU) in
    /// the order row, column, channel: `[batch, 17·17·7]`, for sFID.
    pub spatial: Tensor<2>,
    /// Logits without bias, `[batch, 1008]`, for the Inception Score.
    pub logits_without_bias: Tensor<2>,
    /// Logits, `[batch, 1008]`.
    pub logits: Tensor<2>,
}

/// The network, frozen.
#[derive(Debug, Clone)]
pub struct Inception {
    stem: Vec<(&'static str, Unit)>,
    blocks: Vec<(&'static str, Block)>,
    head: Pointwise,
}

impl Inception {
    /// Side in pixels that pictures are resized to.
    pub const SIDE: usize = 299;
    /// Channels of sFID's features.
    const SPATIAL_CHANNELS: usize = 7;
    /// TensorFlow's `mixed_6`, counted on from `mixed`, which is `Mixed_5b`. Its 1×1 branch comes
    /// first in what the block puts out.
    const SPATIAL_BLOCK: &str = "Mixed_6d";

    /// The features of pictures of any size, resized as TensorFlow 1 does.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]`, whole numbers from 0 to 255.
    pub fn features(&self, images: Tensor<4>) -> InceptionFeatures {
        let mut spatial = None;
        let last = self.walk(images, &mut |name, x| {
            if name == Self::SPATIAL_BLOCK {
                let [batch, height, width, channels] = x.dims();
                let kept = Self::SPATIAL_CHANNELS.min(channels);
                let first = x.clone().narrow(3, 0, kept);
                spatial = Some(first.reshape([batch, height * width * kept]));
            }
        });
        let [batch, height, width, channels] = last.dims();
        let pool = last.reshape([batch, height * width, channels]).mean_dim(1);
        let pool = pool.reshape([batch, channels]);
        let weight = beside(&pool, &self.head.weight);
        let logits_without_bias = fused::linear(pool.clone(), weight, None);
        let bias = beside(&pool, &self.head.bias);
        InceptionFeatures {
            logits: logits_without_bias.clone() + bias.unsqueeze(),
            logits_without_bias,
            spatial: spatial.expect("the block is one of the network's"),
            pool,
        }
    }

    /// Calls `each` with every stage's name (`resized`, then those of the tensors) and result, and
    /// returns the last.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]`, whole numbers from 0 to 255; results have their
    /// channels last.
    pub fn walk(
        &self,
        images: Tensor<4>,
        each: &mut dyn FnMut(&'static str, &Tensor<4>),
    ) -> Tensor<4> {
        let mut x = Filter::TensorFlow1.resize(images, Self::SIDE);
        each("resized", &x);
        x = (x - 128.0) / 128.0;
        for (name, unit) in &self.stem {
            x = unit.forward(x);
            each(name, &x);
            if matches!(*name, "Conv2d_2b_3x3" | "Conv2d_4a_3x3") {
                x = pool(x, Pool::Halving);
            }
        }
        for (name, block) in &self.blocks {
            x = block.forward(x);
            each(name, &x);
        }
        x
    }
}
