//! Both halves of the tokenizer on a GPU: pictures to tokens, and tokens to pictures.

use std::sync::Arc;

use engine::tokenizer::belongs;
use files::safetensors::TensorFile;
use tokenizer::{ConfigError, DecoderConfig, DecoderKind, EncoderInput, TokenizerConfig};
use tokens::CodebookIndex;

use crate::{
    LoadError,
    buffer::Buffer,
    device::{Device, GpuError},
    kernels::{
        Binding, Constants, Finish, Kernel, Product, ProductBuffers, ProductKernels, ProductShape,
        uniform,
    },
    transformer::{Linear, Transformer, TransformerWork},
    weights::{Parameters, Precision},
};

/// A linear layer outside the blocks with its shaders.
struct Layer {
    linear: Linear,
    kernels: Arc<ProductKernels>,
    /// Numbers of a row that it reads: its inputs, filled up to a multiple of four.
    inputs: usize,
}

impl Layer {
    fn build(
        parameters: &mut Parameters<'_>,
        device: &Device,
        name: &str,
        [inputs, outputs]: [usize; 2],
        precision: Precision,
        finish: Finish,
    ) -> Result<Self, GpuError> {
        let shape = ProductShape { inputs, outputs, precision, finish, norm: None };
        Ok(Self {
            linear: Linear::build(parameters, device, name, [inputs, outputs], precision)?,
            kernels: Arc::new(ProductKernels::of_many(device, shape)?),
            inputs: inputs.next_multiple_of(4),
        })
    }

    fn bind(
        &self,
        device: &Device,
        counts: &Buffer,
        [x, out]: [&Buffer; 2],
    ) -> Result<Product, GpuError> {
        let Linear { matrix, bias } = &self.linear;
        let buffers = ProductBuffers { counts, bias, norm: None, x, normed: x, out };
        Product::new(device, &self.kernels, matrix, &buffers)
    }
}

/// The sum of two tensors of one shape.
fn sum(mut left: Vec<f32>, right: &[f32]) -> Vec<f32> {
    left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
    left
}

/// Pictures to tokens: encoder, latents and codebook (`engine::Encoder` is its reference).
pub struct Encoder {
    config: TokenizerConfig,
    device: Device,
    patch_embedding: Layer,
    /// What the rows begin with: positions of patches, then latents.
    start: Buffer,
    rows: usize,
    transformer: Transformer,
    to_code: Layer,
    codebook: Buffer,
    code_squares: Buffer,
    nearest: Kernel,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Encoder {{ {:?}, {:?} }}", self.config, self.device)
    }
}

impl Encoder {
    /// Brings what the weights of a tokenizer of this valid architecture hold of the encoder to a GPU.
    ///
    /// # Errors
    /// If the file is damaged, a tensor is missing, superfluous or mis-shaped, or the GPU has no memory
    /// or cannot compute with these widths.
    pub fn load(
        file: &TensorFile,
        config: &TokenizerConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, LoadError> {
        let mut parameters = Parameters::new(file, belongs(config, None))?;
        let built = Self::build(&mut parameters, config, precision, device)?;
        parameters.finish()?;
        Ok(built)
    }

    fn build(
        parameters: &mut Parameters<'_>,
        config: &TokenizerConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, GpuError> {
        let (width, layout) = (config.encoder.width, config.layout());
        let mut start = parameters.tensor("encoder.positions", &[layout.grid(), width]);
        let causal = config.encoder_input == EncoderInput::CausalPatches;
        if !causal {
            let mut latents = |part: &str| {
                parameters.tensor(&format!("encoder.latents.{part}"), &[layout.len(), width])
            };
            let tokens = latents("tokens");
            start.extend(sum(tokens, &latents("positions")));
        }
        let size = config.token_size;
        let codebook = parameters.tensor("quantizer.codebook", &[config.codes, size]);
        let squares: Vec<f32> = codebook
            .chunks(size)
            .map(|code| code.iter().map(|value| value * value).sum())
            .collect();
        let transposed: Vec<f32> = (0..size)
            .flat_map(|place| codebook.iter().skip(place).step_by(size).copied())
            .collect();
        let constants = Constants::default().number("SIZE", size).number("CODES", config.codes);
        Ok(Self {
            patch_embedding: Layer::build(
                parameters,
                device,
                "encoder.patch_embedding",
                [config.patch_values(), width],
                precision.at_least_bf16(),
                Finish::Add,
            )?,
            rows: start.len() / width,
            start: Buffer::of(device, "positions and latents", &start)?,
            transformer: Transformer::build(
                parameters,
                device,
                "encoder",
                config.encoder,
                precision,
                causal,
            )?,
            // It is small, and so are the differences that decide between two codes.
            to_code: Layer::build(
                parameters,
                device,
                "encoder.to_code",
                [width, size],
                Precision::F32,
                Finish::Bias,
            )?,
            codebook: Buffer::of(device, "codebook", &transposed)?,
            code_squares: Buffer::of(device, "squares of the codes", &squares)?,
            nearest: Kernel::new(
                device,
                "nearest code",
                &constants,
                &[include_str!("kernels/nearest.wgsl")],
                &[Binding::Read, Binding::Read, Binding::Read, Binding::Write],
            )?,
            config: config.clone(),
            device: device.clone(),
        })
    }

    /// The architecture that it is part of.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Bytes of the blocks' weights.
    pub fn weight_bytes(&self) -> u64 {
        self.transformer.bytes()
    }

    /// Memory for [`encode`](Self::encode), one picture at a time.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub fn workspace(&self) -> Result<EncoderWorkspace, GpuError> {
        let Self { device, config, .. } = self;
        let (layout, width) = (config.layout(), config.encoder.width);
        let transformer = self.transformer.work(device, self.rows)?;
        transformer.counts.write(device, &[self.rows as u32, 0, 0, 0])?;
        let length = layout.len().min(self.rows);
        let patches =
            Buffer::zeros(device, "patches", layout.grid() * self.patch_embedding.inputs)?;
        let normed = Buffer::zeros(device, "rows after the last norm", length * width)?;
        let features = Buffer::zeros(device, "features", length * config.token_size)?;
        let codes = Buffer::zeros(device, "codes", length)?;
        let grid = uniform(device, [layout.grid() as u32, 0, 0, 0])?;
        let last = uniform(device, [length as u32, (self.rows - length) as u32, 0, 0])?;
        let counts = uniform(device, [length as u32, 0, 0, 0])?;
        let norm = &self.transformer.norm;
        Ok(EncoderWorkspace {
            embedding: self.patch_embedding.bind(device, &grid, [&patches, &transformer.start])?,
            output_norm: self.transformer.output_norm.bind(
                device,
                norm,
                &last,
                [&transformer.x, &normed],
            )?,
            to_code: self.to_code.bind(device, &counts, [&normed, &features])?,
            nearest: self
                .nearest
                .bind(device, &[&features, &self.codebook, &self.code_squares, &codes])?,
            readable: Buffer::readable(device, "codes to read", length)?,
            length,
            patches,
            codes,
            transformer,
        })
    }

    /// The tokens of one picture.
    ///
    /// # Shapes
    /// `planes [3, height, width]` row-major in [0, 1] → `[length]`.
    ///
    /// # Errors
    /// If the GPU was lost or refused the work.
    ///
    /// # Panics
    /// If the picture has another size than the tokenizer's.
    pub fn encode(
        &self,
        planes: &[f32],
        work: &mut EncoderWorkspace,
    ) -> Result<Vec<CodebookIndex>, GpuError> {
        let Self { config, device, .. } = self;
        let (image, patch, layout) = (config.image, config.patch, config.layout());
        assert_eq!(planes.len(), 3 * image.height * image.width, "values of a picture");
        let stride = self.patch_embedding.inputs;
        let mut patches = vec![0.0; layout.grid() * stride];
        for (cell, out) in patches.chunks_exact_mut(stride).enumerate() {
            let (row, column) = (cell / layout.columns(), cell % layout.columns());
            for (pixel, out) in out[..config.patch_values()].chunks_exact_mut(3).enumerate() {
                let (y, x) = (row * patch + pixel / patch, column * patch + pixel % patch);
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = planes[(channel * image.height + y) * image.width + x];
                }
            }
        }
        work.patches.write(device, &patches)?;
        let bytes = 4 * work.length as u64;
        device.checked("encoding", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            let (start, size) = (&work.transformer.start, self.start.bytes());
            encoder.copy_buffer_to_buffer(self.start.wgpu(), 0, start.wgpu(), 0, size);
            {
                let pass = &mut encoder.begin_compute_pass(&Default::default());
                work.embedding.run(pass, layout.grid());
                self.transformer.run(pass, &work.transformer, self.rows);
                self.transformer.norm.run(pass, &work.output_norm, work.length, 1);
                work.to_code.run(pass, work.length);
                self.nearest.run(pass, &work.nearest, work.length, 1);
            }
            let (codes, readable) = (work.codes.wgpu(), work.readable.wgpu());
            encoder.copy_buffer_to_buffer(codes, 0, readable, 0, bytes);
            device.queue().submit([encoder.finish()]);
        })?;
        let mut tokens = Vec::with_capacity(work.length);
        device.read(work.readable.wgpu(), bytes, |bytes| {
            let codes = bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
            // Codes fit, the config was checked.
            tokens.extend(codes.into_iter().map(|code| code as CodebookIndex));
        })?;
        Ok(tokens)
    }
}

/// Memory that encoding works in.
pub struct EncoderWorkspace {
    transformer: TransformerWork,
    length: usize,
    patches: Buffer,
    codes: Buffer,
    readable: Buffer,
    embedding: Product,
    output_norm: wgpu::BindGroup,
    to_code: Product,
    nearest: wgpu::BindGroup,
}

impl std::fmt::Debug for EncoderWorkspace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("EncoderWorkspace")
    }
}

/// Tokens to pictures: codebook and one decoder (`engine::Decoder` is its reference).
pub struct Decoder {
    config: TokenizerConfig,
    kind: DecoderKind,
    device: Device,
    /// `[codes, size]`, on the CPU: a picture's codes are few.
    codebook: Vec<f32>,
    embedding: Layer,
    /// What the rows begin with: leading tokens and all positions.
    start: Buffer,
    leading: usize,
    transformer: Transformer,
    width: usize,
    patch: Layer,
    color: Buffer,
    planes: Kernel,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Decoder {{ {:?}, {:?}, {:?} }}", self.config, self.kind, self.device)
    }
}

/// Why a decoder cannot be opened on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// The model does not have it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Pixels of a workgroup of the last shader.
const PIXELS: usize = 256;

impl Decoder {
    /// Brings what the weights of a tokenizer of this valid architecture hold of a decoder to a GPU.
    ///
    /// # Errors
    /// If the model has no such decoder, the file is damaged, a tensor is missing, superfluous or
    /// mis-shaped, or the GPU has no memory or cannot compute with these widths.
    pub fn load(
        file: &TensorFile,
        config: &TokenizerConfig,
        kind: DecoderKind,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, DecoderError> {
        let decoder = *config.decoder(kind)?;
        let load = || -> Result<Self, LoadError> {
            let mut parameters = Parameters::new(file, belongs(config, Some(kind)))?;
            let built = Self::build(&mut parameters, config, (kind, decoder), precision, device)?;
            parameters.finish()?;
            Ok(built)
        };
        Ok(load()?)
    }

    fn build(
        parameters: &mut Parameters<'_>,
        config: &TokenizerConfig,
        (kind, decoder): (DecoderKind, DecoderConfig),
        precision: Precision,
        device: &Device,
    ) -> Result<Self, GpuError> {
        let (width, layout) = (decoder.transformer.width, config.layout());
        let name = |part: &str| format!("{}.{part}", kind.section());
        let values = config.patch_values();
        if decoder.prefix_head {
            // Of use in training only.
            parameters.tensor(&name("prefix_head.patch.weight"), &[values, width]);
            parameters.tensor(&name("prefix_head.patch.bias"), &[values]);
            parameters.tensor(&name("prefix_head.color.weight"), &[3, 3]);
            parameters.tensor(&name("prefix_head.color.bias"), &[3]);
        }
        let leading = parameters.tensor(&name("leading"), &[decoder.leading, width]);
        let positions =
            parameters.tensor(&name("positions"), &[decoder.leading + layout.len(), width]);
        let mut color = parameters.tensor(&name("head.color.weight"), &[3, 3]);
        color.extend(parameters.tensor(&name("head.color.bias"), &[3]));
        let constants =
            Constants::default().number("PATCH", config.patch).number("COLUMNS", layout.columns());
        Ok(Self {
            codebook: parameters.tensor("quantizer.codebook", &[config.codes, config.token_size]),
            embedding: Layer::build(
                parameters,
                device,
                &name("embedding"),
                [config.token_size, width],
                Precision::F32,
                Finish::Add,
            )?,
            start: Buffer::of(device, "leading tokens and positions", &sum(positions, &leading))?,
            leading: decoder.leading,
            transformer: Transformer::build(
                parameters,
                device,
                kind.section(),
                decoder.transformer,
                precision,
                kind == DecoderKind::Causal,
            )?,
            width,
            patch: Layer::build(
                parameters,
                device,
                &name("head.patch"),
                [width, values],
                precision.at_least_bf16(),
                Finish::Bias,
            )?,
            color: Buffer::of(device, "color", &color)?,
            planes: Kernel::new(
                device,
                "color",
                &constants,
                &[include_str!("kernels/color.wgsl")],
                &[Binding::Uniform, Binding::Read, Binding::Read, Binding::Write],
            )?,
            config: config.clone(),
            kind,
            device: device.clone(),
        })
    }

    /// The architecture that it is part of.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// Which decoder it is.
    pub fn kind(&self) -> DecoderKind {
        self.kind
    }

    /// Bytes of the blocks' weights.
    pub fn weight_bytes(&self) -> u64 {
        self.transformer.bytes()
    }

    /// Memory for [`decode`](Self::decode), one picture at a time.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub fn workspace(&self) -> Result<DecoderWorkspace, GpuError> {
        let Self { device, config, width, .. } = self;
        let (layout, values) = (config.layout(), config.patch_values());
        let transformer = self.transformer.work(device, self.leading + layout.len())?;
        let room = |what: &str, rows, width| Buffer::zeros(device, what, rows * width);
        let codes = room("codes", layout.len(), self.embedding.inputs)?;
        let normed = room("rows after the last norm", layout.grid(), *width)?;
        let patches = room("patches", layout.grid(), values)?;
        let planes = room("a picture", layout.grid(), values)?;
        let [embedded, last, cells] =
            [uniform(device, [0; 4])?, uniform(device, [0; 4])?, uniform(device, [0; 4])?];
        Ok(DecoderWorkspace {
            embedding: self.embedding.bind(device, &embedded, [&codes, &transformer.start])?,
            output_norm: self.transformer.output_norm.bind(
                device,
                &self.transformer.norm,
                &last,
                [&transformer.x, &normed],
            )?,
            patch: self.patch.bind(device, &cells, [&normed, &patches])?,
            color: self.planes.bind(device, &[&cells, &self.color, &patches, &planes])?,
            readable: Buffer::readable(device, "a picture to read", layout.grid() * values)?,
            counts: [embedded, last, cells],
            codes,
            planes,
            transformer,
        })
    }

    /// The picture of one sequence of tokens. A causal decoder also takes the beginning of one,
    /// up to the end of a row, and returns the rows of the picture that it decides.
    ///
    /// # Shapes
    /// `tokens [length]` → `[3, height, width]` row-major in [0, 1].
    ///
    /// # Errors
    /// If the GPU was lost or refused the work.
    ///
    /// # Panics
    /// If there are too few or too many tokens, or one is no code.
    pub fn decode(
        &self,
        tokens: &[CodebookIndex],
        work: &mut DecoderWorkspace,
    ) -> Result<Vec<f32>, GpuError> {
        let Self { config, device, leading, .. } = self;
        let layout = config.layout();
        let picture_rows = match self.kind {
            DecoderKind::Bidirectional => layout.rows(),
            DecoderKind::Causal => tokens.len().saturating_sub(layout.prefix()) / layout.columns(),
        };
        assert!(picture_rows <= layout.rows(), "tokens of a picture");
        assert_eq!(tokens.len(), layout.len_of_rows(picture_rows), "tokens of whole rows");
        assert!(tokens.iter().all(|&token| usize::from(token) < config.codes), "tokens are codes");
        if picture_rows == 0 {
            return Ok(Vec::new());
        }
        let (rows, cells) = (leading + tokens.len(), picture_rows * layout.columns());
        let stride = self.embedding.inputs;
        let mut codes = vec![0.0; tokens.len() * stride];
        for (row, &token) in codes.chunks_exact_mut(stride).zip(tokens) {
            let size = config.token_size;
            row[..size].copy_from_slice(&self.codebook[usize::from(token) * size..][..size]);
        }
        work.codes.write(device, &codes)?;
        let first = leading + layout.prefix();
        work.transformer.counts.write(device, &[rows as u32, 0, 0, 0])?;
        let counts = [[tokens.len(), 0, *leading, 0], [cells, first, 0, 0], [cells, 0, 0, 0]];
        for (buffer, counts) in work.counts.iter().zip(counts) {
            buffer.write(device, &counts.map(|count| count as u32))?;
        }
        let bytes = 4 * (cells * config.patch_values()) as u64;
        device.checked("decoding", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            let (start, size) = (&work.transformer.start, 4 * (rows * self.width) as u64);
            encoder.copy_buffer_to_buffer(self.start.wgpu(), 0, start.wgpu(), 0, size);
            {
                let pass = &mut encoder.begin_compute_pass(&Default::default());
                work.embedding.run(pass, tokens.len());
                self.transformer.run(pass, &work.transformer, rows);
                self.transformer.norm.run(pass, &work.output_norm, cells, 1);
                work.patch.run(pass, cells);
                let pixels = cells * config.patch * config.patch;
                self.planes.run(pass, &work.color, pixels.div_ceil(PIXELS), 1);
            }
            let (planes, readable) = (work.planes.wgpu(), work.readable.wgpu());
            encoder.copy_buffer_to_buffer(planes, 0, readable, 0, bytes);
            device.queue().submit([encoder.finish()]);
        })?;
        let mut planes = Vec::new();
        device.read(work.readable.wgpu(), bytes, |bytes| {
            planes = bytemuck::pod_collect_to_vec::<u8, f32>(bytes);
        })?;
        Ok(planes)
    }
}

/// Memory that decoding works in.
pub struct DecoderWorkspace {
    transformer: TransformerWork,
    /// Of the embedding, the last norm, and the head.
    counts: [Buffer; 3],
    codes: Buffer,
    planes: Buffer,
    readable: Buffer,
    embedding: Product,
    output_norm: wgpu::BindGroup,
    patch: Product,
    color: wgpu::BindGroup,
}

impl std::fmt::Debug for DecoderWorkspace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DecoderWorkspace")
    }
}
