//! The vision transformer of the tokenizer's halves, for one picture at a time, as a list of dispatches.

use std::sync::Arc;

use tokenizer::{NORM_EPSILON, TransformerConfig};

use crate::{
    buffer::Buffer,
    device::{Device, GpuError},
    kernels::{
        Binding, Constants, Finish, Kernel, Product, ProductBuffers, ProductKernels, ProductShape,
        layer_norm_kernel, uniform,
    },
    weights::{Matrix, Parameters, Precision},
};

/// Most numbers of a head: tiles of keys and values of that width fill the workgroup memory.
const HEAD: usize = 128;

/// Rows of a workgroup of attention.
const ROWS: usize = 64;

/// A linear layer with a bias.
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Buffer,
}

impl Linear {
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn build(
        parameters: &mut Parameters<'_>,
        device: &Device,
        name: &str,
        [inputs, outputs]: [usize; 2],
        precision: Precision,
    ) -> Result<Self, GpuError> {
        let weight = [format!("{name}.weight")];
        Ok(Self {
            matrix: parameters.matrix(device, &weight, [outputs, inputs], precision)?,
            bias: parameters.vector(device, &format!("{name}.bias"), outputs)?,
        })
    }
}

/// Weight and bias of a layer norm.
pub(crate) struct Norm {
    weight: Buffer,
    bias: Buffer,
}

impl Norm {
    fn build(
        parameters: &mut Parameters<'_>,
        device: &Device,
        name: &str,
        width: usize,
    ) -> Result<Self, GpuError> {
        Ok(Self {
            weight: parameters.vector(device, &format!("{name}.weight"), width)?,
            bias: parameters.vector(device, &format!("{name}.bias"), width)?,
        })
    }

    /// The memory for one use of it.
    pub(crate) fn bind(
        &self,
        device: &Device,
        kernel: &Kernel,
        counts: &Buffer,
        [x, out]: [&Buffer; 2],
    ) -> Result<wgpu::BindGroup, GpuError> {
        kernel.bind(device, &[counts, &self.weight, &self.bias, x, out])
    }
}

struct Block {
    attention_norm: Norm,
    query_key_value: Linear,
    projection: Linear,
    feed_forward_norm: Norm,
    up: Linear,
    down: Linear,
}

/// The compiled products that all blocks share.
struct Products {
    query_key_value: Arc<ProductKernels>,
    projection: Arc<ProductKernels>,
    up: Arc<ProductKernels>,
    down: Arc<ProductKernels>,
}

/// Norm, blocks and norm of a vision transformer.
pub(crate) struct Transformer {
    config: TransformerConfig,
    input_norm: Norm,
    blocks: Vec<Block>,
    pub(crate) output_norm: Norm,
    products: Products,
    pub(crate) norm: Kernel,
    attention: Kernel,
}

impl Transformer {
    /// # Errors
    /// If the GPU has no memory for it, or cannot compute with these widths.
    pub(crate) fn build(
        parameters: &mut Parameters<'_>,
        device: &Device,
        name: &str,
        config: TransformerConfig,
        precision: Precision,
        causal: bool,
    ) -> Result<Self, GpuError> {
        let (width, hidden, head) = (config.width, config.hidden(), config.width / config.heads);
        device.check_head(head, HEAD)?;
        let mut blocks = Vec::with_capacity(config.layers);
        for block in 0..config.layers {
            let name = |part: &str| format!("{name}.blocks.{block}.{part}");
            let mut linear = |part: &str, shape| {
                Linear::build(parameters, device, &name(part), shape, precision)
            };
            let query_key_value = linear("attention.query_key_value", [width, 3 * width])?;
            let projection = linear("attention.projection", [width, width])?;
            let up = linear("feed_forward.up", [width, hidden])?;
            let down = linear("feed_forward.down", [hidden, width])?;
            let mut norm = |part: &str| Norm::build(parameters, device, &name(part), width);
            blocks.push(Block {
                attention_norm: norm("attention_norm")?,
                query_key_value,
                projection,
                feed_forward_norm: norm("feed_forward_norm")?,
                up,
                down,
            });
        }
        let product = |inputs, outputs, finish| {
            let shape = ProductShape { inputs, outputs, precision, finish, norm: None };
            ProductKernels::of_many(device, shape).map(Arc::new)
        };
        let constants = Constants::default()
            .number("HEAD", head)
            .number("HEADS", config.heads)
            .float("SCALE", (head as f32).sqrt().recip())
            .flag("CAUSAL", causal);
        Ok(Self {
            input_norm: Norm::build(parameters, device, &format!("{name}.input_norm"), width)?,
            blocks,
            output_norm: Norm::build(parameters, device, &format!("{name}.output_norm"), width)?,
            products: Products {
                query_key_value: product(width, 3 * width, Finish::Bias)?,
                projection: product(width, width, Finish::Add)?,
                up: product(width, hidden, Finish::Gelu)?,
                down: product(hidden, width, Finish::Add)?,
            },
            norm: layer_norm_kernel(device, width, NORM_EPSILON as f32)?,
            attention: Kernel::new(
                device,
                "attention of all rows",
                &constants,
                &[include_str!("kernels/attention_rows.wgsl")],
                &[Binding::Uniform, Binding::Read, Binding::Write],
            )?,
            config,
        })
    }

    /// Bytes of the blocks' weights.
    pub(crate) fn bytes(&self) -> u64 {
        let linears = |block: &Block| {
            [&block.query_key_value, &block.projection, &block.up, &block.down]
                .map(|linear| linear.matrix.bytes())
        };
        self.blocks.iter().flat_map(linears).sum()
    }

    /// Memory for pictures of up to `rows` rows.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn work(&self, device: &Device, rows: usize) -> Result<TransformerWork, GpuError> {
        let (width, hidden) = (self.config.width, self.config.hidden());
        let room = |what: &str, width: usize| Buffer::zeros(device, what, rows * width);
        let counts = uniform(device, [0; 4])?;
        let start = room("rows before a norm", width)?;
        let x = room("residual stream", width)?;
        let mixed = room("queries, keys and values", 3 * width)?;
        let attended = room("mixed values", width)?;
        let between = room("hidden numbers", hidden)?;
        let product = |kernels: &Arc<_>, linear: &Linear, x: &Buffer, out: &Buffer| {
            let (counts, bias) = (&counts, &linear.bias);
            let buffers = ProductBuffers { counts, bias, norm: None, x, normed: x, out };
            Product::new(device, kernels, &linear.matrix, &buffers)
        };
        let products = &self.products;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let norm = |norm: &Norm| norm.bind(device, &self.norm, &counts, [&x, &start]);
            blocks.push(BlockWork {
                attention_norm: norm(&block.attention_norm)?,
                query_key_value: product(
                    &products.query_key_value,
                    &block.query_key_value,
                    &start,
                    &mixed,
                )?,
                projection: product(&products.projection, &block.projection, &attended, &x)?,
                feed_forward_norm: norm(&block.feed_forward_norm)?,
                up: product(&products.up, &block.up, &start, &between)?,
                down: product(&products.down, &block.down, &between, &x)?,
            });
        }
        Ok(TransformerWork {
            input_norm: self.input_norm.bind(device, &self.norm, &counts, [&start, &x])?,
            attention: self.attention.bind(device, &[&counts, &mixed, &attended])?,
            blocks,
            counts,
            start,
            x,
        })
    }

    /// Runs `rows` rows in `work.start` through norm and blocks, into `work.x`; returns the number of
    /// dispatches. `work.counts` holds the number of rows.
    pub(crate) fn run(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        work: &TransformerWork,
        rows: usize,
    ) -> usize {
        self.norm.run(pass, &work.input_norm, rows, 1);
        let mut dispatches = 1;
        for block in &work.blocks {
            self.norm.run(pass, &block.attention_norm, rows, 1);
            dispatches += 1 + block.query_key_value.run(pass, rows);
            self.attention.run(pass, &work.attention, rows.div_ceil(ROWS), self.config.heads);
            dispatches += 1 + block.projection.run(pass, rows);
            self.norm.run(pass, &block.feed_forward_norm, rows, 1);
            dispatches += 1 + block.up.run(pass, rows);
            dispatches += block.down.run(pass, rows);
        }
        dispatches
    }
}

/// The products and norms of a block on the memory that all blocks share.
struct BlockWork {
    attention_norm: wgpu::BindGroup,
    query_key_value: Product,
    projection: Product,
    feed_forward_norm: wgpu::BindGroup,
    up: Product,
    down: Product,
}

/// Memory that a transformer works in.
pub(crate) struct TransformerWork {
    /// How many rows there are.
    pub(crate) counts: Buffer,
    /// What goes in, `[rows, width]`; then rows after a norm.
    pub(crate) start: Buffer,
    /// The residual stream, `[rows, width]`.
    pub(crate) x: Buffer,
    input_norm: wgpu::BindGroup,
    attention: wgpu::BindGroup,
    blocks: Vec<BlockWork>,
}
