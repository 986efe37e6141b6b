//! The shaders: each a file of WGSL, compiled for a model's sizes, which stand before it as constants.

use std::sync::Arc;

use crate::{
    buffer::Buffer,
    device::{Device, GpuError},
    weights::{LANES, Matrix, Precision, steps},
};

/// What a shader does with a binding.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Binding {
    /// Four words, the same for all threads.
    Uniform,
    /// Memory that it reads.
    Read,
    /// Memory that it reads and writes.
    Write,
}

/// A compiled shader.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    name: &'static str,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// Constants that stand before a shader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Constants(String);

impl Constants {
    pub(crate) fn number(mut self, name: &str, value: usize) -> Self {
        self.0 += &format!("const {name}: u32 = {value}u;\n");
        self
    }

    pub(crate) fn float(mut self, name: &str, value: f32) -> Self {
        self.0 += &format!("const {name}: f32 = {value:?};\n");
        self
    }

    pub(crate) fn flag(mut self, name: &str, value: bool) -> Self {
        self.0 += &format!("const {name}: bool = {value};\n");
        self
    }
}

impl Kernel {
    /// Compiles the parts of a shader, one after the other.
    ///
    /// # Errors
    /// If the GPU refuses it.
    pub(crate) fn new(
        device: &Device,
        name: &'static str,
        constants: &Constants,
        parts: &[&str],
        bindings: &[Binding],
    ) -> Result<Self, GpuError> {
        let source = constants.0.clone() + &parts.concat();
        let entries: Vec<_> = (0..)
            .zip(bindings)
            .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match kind {
                        Binding::Uniform => wgpu::BufferBindingType::Uniform,
                        Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Binding::Write => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        device.checked(name, 0, || {
            let gpu = device.wgpu();
            let module = gpu.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let layout = gpu.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(name),
                entries: &entries,
            });
            let pipeline_layout = gpu.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(name),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = gpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every shader writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Self { name, pipeline, layout }
        })
    }

    /// The memory that the shader works on, for many runs. A binding's number is its place.
    ///
    /// # Errors
    /// If the GPU refuses it.
    pub(crate) fn bind(
        &self,
        device: &Device,
        buffers: &[&Buffer],
    ) -> Result<wgpu::BindGroup, GpuError> {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.wgpu().as_entire_binding(),
            })
            .collect();
        device.checked(self.name, 0, || {
            device.wgpu().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(self.name),
                layout: &self.layout,
                entries: &entries,
            })
        })
    }

    pub(crate) fn run(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        group: &wgpu::BindGroup,
        columns: usize,
        rows: usize,
    ) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, group, &[]);
        // The engine's sizes are far below 65,535 workgroups; wgpu refuses more.
        pass.dispatch_workgroups(columns as u32, rows as u32, 1);
    }
}

/// What is done with the sums of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Adds a bias.
    Bias,
    /// Adds a bias, then that to what is there.
    Add,
    /// The SiLU of the first matrix's sum times the second one's.
    SiluGate,
    /// Adds a bias, then takes the GELU.
    Gelu,
}

/// The size of a product, for which its shaders are compiled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ProductShape {
    /// Rows of `x` are filled up to a multiple of four.
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) precision: Precision,
    pub(crate) finish: Finish,
    /// The epsilon of a root-mean-square norm that inputs go through.
    pub(crate) norm: Option<f32>,
}

/// The shaders of one product: for one, two and four rows at a time, and for many.
#[derive(Debug, Clone)]
pub(crate) struct ProductKernels {
    shape: ProductShape,
    /// None where rows are many always.
    few: Vec<(usize, Kernel)>,
    many: Kernel,
    norm: Option<Kernel>,
}

/// From this many rows on the shader for many rows is used.
pub(crate) const MANY: usize = 24;

const PRODUCT: &str = include_str!("product.wgsl");
const MEAN_SQUARE: &str = include_str!("mean_square.wgsl");

impl ProductKernels {
    /// For any number of rows.
    ///
    /// # Errors
    /// If the GPU refuses a shader.
    pub(crate) fn new(device: &Device, shape: ProductShape) -> Result<Self, GpuError> {
        Self::compile(device, shape, &[1, 2, 4])
    }

    /// For many rows; few take as long.
    ///
    /// # Errors
    /// If the GPU refuses a shader.
    pub(crate) fn of_many(device: &Device, shape: ProductShape) -> Result<Self, GpuError> {
        Self::compile(device, shape, &[])
    }

    fn compile(device: &Device, shape: ProductShape, few: &[usize]) -> Result<Self, GpuError> {
        let weights = match shape.precision {
            Precision::F32 => include_str!("weights_f32.wgsl"),
            Precision::Bf16 => include_str!("weights_bf16.wgsl"),
            Precision::Int8 => include_str!("weights_int8.wgsl"),
        };
        let constants = Constants::default()
            .number("INPUTS4", shape.inputs.div_ceil(4))
            .number("OUTPUTS", shape.outputs)
            .number("STEPS", steps(shape.inputs))
            .number(
                "FINISH",
                match shape.finish {
                    Finish::Bias => 0,
                    Finish::Add => 1,
                    Finish::SiluGate => 2,
                    Finish::Gelu => 3,
                },
            )
            .number("PARTS", if shape.finish == Finish::SiluGate { 2 } else { 1 })
            .flag("SCALED", shape.precision == Precision::Int8)
            .float("EPSILON", shape.norm.unwrap_or(0.0));
        let bindings = [
            Binding::Uniform,
            Binding::Uniform,
            Binding::Read,
            Binding::Read,
            Binding::Read,
            Binding::Read,
            Binding::Write,
            Binding::Read,
        ];
        let compile = |&rows: &usize| -> Result<_, GpuError> {
            let constants =
                constants.clone().number("ROWS", rows).flag("NORM", shape.norm.is_some());
            let parts = [PRODUCT, weights, MEAN_SQUARE, include_str!("product_few.wgsl")];
            Ok((rows, Kernel::new(device, "product of few rows", &constants, &parts, &bindings)?))
        };
        let parts = [PRODUCT, weights, include_str!("product_many.wgsl")];
        Ok(Self {
            shape,
            few: few.iter().map(compile).collect::<Result<_, _>>()?,
            many: Kernel::new(device, "product of many rows", &constants, &parts, &bindings)?,
            norm: shape
                .norm
                .map(|epsilon| norm_kernel(device, shape.inputs, epsilon, false))
                .transpose()?,
        })
    }
}

/// A root-mean-square norm of all rows, or of those that a list names.
pub(crate) fn norm_kernel(
    device: &Device,
    width: usize,
    epsilon: f32,
    gather: bool,
) -> Result<Kernel, GpuError> {
    let constants = Constants::default()
        .number("INPUTS4", width / 4)
        .float("EPSILON", epsilon)
        .flag("GATHER", gather);
    let bindings = [Binding::Uniform, Binding::Read, Binding::Read, Binding::Read, Binding::Write];
    Kernel::new(device, "norm", &constants, &[MEAN_SQUARE, include_str!("norm.wgsl")], &bindings)
}

/// A layer norm of rows, from one buffer to another.
pub(crate) fn layer_norm_kernel(
    device: &Device,
    width: usize,
    epsilon: f32,
) -> Result<Kernel, GpuError> {
    let constants = Constants::default().number("WIDTH4", width / 4).float("EPSILON", epsilon);
    let bindings = [Binding::Uniform, Binding::Read, Binding::Read, Binding::Read, Binding::Write];
    Kernel::new(device, "layer norm", &constants, &[include_str!("layer_norm.wgsl")], &bindings)
}

/// Where a product reads and writes.
pub(crate) struct ProductBuffers<'a> {
    /// How many rows there are, and, where there is no norm, the first row read and the first written.
    pub(crate) counts: &'a Buffer,
    pub(crate) bias: &'a Buffer,
    /// Weights of the norm.
    pub(crate) norm: Option<&'a Buffer>,
    pub(crate) x: &'a Buffer,
    /// Where rows lie after the norm, if they are many.
    pub(crate) normed: &'a Buffer,
    pub(crate) out: &'a Buffer,
}

/// A product with its memory, to be run many times.
#[derive(Debug)]
pub(crate) struct Product {
    kernels: Arc<ProductKernels>,
    norm: Option<wgpu::BindGroup>,
    /// For each band its panels, and its memory for few and for many rows.
    bands: Vec<(usize, [wgpu::BindGroup; 2])>,
}

impl Product {
    /// # Errors
    /// If the GPU refuses it.
    pub(crate) fn new(
        device: &Device,
        kernels: &Arc<ProductKernels>,
        matrix: &Matrix,
        buffers: &ProductBuffers<'_>,
    ) -> Result<Self, GpuError> {
        let ProductBuffers { counts, bias, norm, x, normed, out } = *buffers;
        let weights = norm.unwrap_or(bias);
        // Without scales the shader reads none.
        let scales = matrix.scales.as_ref().unwrap_or(bias);
        let mut bands = Vec::new();
        for band in &matrix.bands {
            let place = uniform(device, [band.first as u32, band.panels as u32, 0, 0])?;
            let many = if norm.is_some() { normed } else { x };
            let bind = |x: &Buffer| {
                // All have the same bindings.
                kernels
                    .many
                    .bind(device, &[counts, &place, &band.weights, bias, weights, x, out, scales])
            };
            bands.push((band.panels, [bind(x)?, bind(many)?]));
        }
        let norm = match (&kernels.norm, norm) {
            (Some(kernel), Some(norm)) => {
                // It reads no list.
                Some(kernel.bind(device, &[counts, bias, norm, x, normed])?)
            }
            _ => None,
        };
        Ok(Self { kernels: Arc::clone(kernels), norm, bands })
    }

    /// Runs it for this many rows; returns the number of dispatches.
    pub(crate) fn run(&self, pass: &mut wgpu::ComputePass<'_>, rows: usize) -> usize {
        let kernels = &*self.kernels;
        let fits = kernels.few.iter().find(|(most, _)| rows <= *most).or(kernels.few.last());
        if let (true, Some((at_once, kernel))) = (rows < MANY, fits) {
            for (panels, [few, _]) in &self.bands {
                kernel.run(pass, few, *panels, rows.div_ceil(*at_once));
            }
            return self.bands.len();
        }
        if let (Some(kernel), Some(group)) = (&kernels.norm, &self.norm) {
            kernel.run(pass, group, rows, 1);
        }
        let parts = if kernels.shape.finish == Finish::SiluGate { 2 } else { 1 };
        for (panels, [_, many]) in &self.bands {
            kernels.many.run(pass, many, (panels * parts).div_ceil(4), rows.div_ceil(64));
        }
        self.bands.len() + usize::from(self.norm.is_some())
    }
}

/// Four words that a shader reads as a uniform.
///
/// # Errors
/// If the GPU has no memory.
pub(crate) fn uniform(device: &Device, words: [u32; 4]) -> Result<Buffer, GpuError> {
    Buffer::uniform(device, "uniform", words)
}

const _: () = assert!(LANES == 16, "the shaders have panels of 16");

#[cfg(test)]
pub(crate) mod tests;
