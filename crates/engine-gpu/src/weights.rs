//! A model's weights: read from its file, and laid out for the products.
//!
//! A matrix `[outputs, inputs]` is cut into panels of [`LANES`] outputs. Within a panel eight inputs of
//! one output lie together, then those of the next output: threads that compute neighbouring outputs
//! read neighbouring memory. Inputs are filled up with zeros to [`SLICES`] slices of equal length;
//! a product adds up each slice, then the slices, whichever shader computes it.

use std::collections::BTreeMap;

use engine::LoadError;
use files::{
    FileError, ParameterError,
    safetensors::{TensorFile, TensorView, check_finite, not_a_float},
};
use numerics::{bf16_bits, round_to_bf16};

use crate::{
    buffer::Buffer,
    device::{BINDING_BYTES, Device, GpuError},
};

/// Outputs of a panel.
pub(crate) const LANES: usize = 16;

/// Slices that the inputs of a product are cut into.
pub(crate) const SLICES: usize = 16;

/// Inputs that a thread reads together.
pub(crate) const STEP: usize = 8;

/// The number format of the weights; all else is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// The upper 16 bits of an f32, rounded.
    Bf16,
    /// 8-bit integers with a scale an output; what rows are looked up in, and layers at the edges of the
    /// tokenizer, are in bf16.
    Int8,
}

impl Precision {
    /// Bytes of a number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Words of [`STEP`] inputs of one output.
    const fn words(self) -> usize {
        match self {
            Self::F32 => STEP,
            Self::Bf16 => STEP / 2,
            Self::Int8 => STEP / 4,
        }
    }

    /// The format of what must not be rounded to 8 bits.
    pub(crate) const fn at_least_bf16(self) -> Self {
        match self {
            Self::Int8 => Self::Bf16,
            other => other,
        }
    }
}

/// A matrix in the memory of a GPU.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) bands: Vec<Band>,
    /// In 8 bits what each output is multiplied with: those of the first matrix, then of the second.
    pub(crate) scales: Option<Buffer>,
}

/// Some panels of a matrix: as many as one binding holds.
#[derive(Debug)]
pub(crate) struct Band {
    pub(crate) weights: Buffer,
    /// Its first panel, of each of the matrices.
    pub(crate) first: usize,
    /// Its panels, of each of the matrices.
    pub(crate) panels: usize,
}

/// Steps of one slice.
pub(crate) const fn steps(inputs: usize) -> usize {
    inputs.div_ceil(STEP * SLICES)
}

/// The scale of an output in 8 bits: its largest weight is 127.
fn scale(row: &[f32]) -> f32 {
    let largest = row.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    if largest > 0.0 { largest / 127.0 } else { 1.0 }
}

/// Lays out panel `panel` of a row-major matrix, whose outputs have these scales in 8 bits.
fn panel(
    (values, scales): (&[f32], &[f32]),
    inputs: usize,
    panel: usize,
    precision: Precision,
    out: &mut Vec<u32>,
) {
    for step in 0..steps(inputs) * SLICES {
        for lane in 0..LANES {
            let row = values.get((panel * LANES + lane) * inputs..).unwrap_or(&[]);
            let row = &row[..inputs.min(row.len())];
            let mut numbers = [0.0f32; STEP];
            let part = row.get(step * STEP..).unwrap_or(&[]);
            let count = part.len().min(STEP);
            numbers[..count].copy_from_slice(&part[..count]);
            match precision {
                Precision::F32 => out.extend(numbers.map(f32::to_bits)),
                Precision::Bf16 => out.extend(
                    numbers
                        .as_chunks::<2>()
                        .0
                        .iter()
                        .map(|[a, b]| bf16_bits(*a) | bf16_bits(*b) << 16),
                ),
                Precision::Int8 => {
                    // There is none beyond the last output, and all is zero.
                    let scale = scales.get(panel * LANES + lane).copied().unwrap_or(1.0);
                    let byte = |value: f32| ((value / scale).round() as i8).cast_unsigned();
                    let words = numbers.as_chunks::<4>().0.iter();
                    out.extend(words.map(|four| u32::from_le_bytes(four.map(byte))));
                }
            }
        }
    }
}

/// Words of a panel of one matrix with so many inputs.
const fn panel_words(inputs: usize, precision: Precision) -> usize {
    steps(inputs) * SLICES * LANES * precision.words()
}

/// Bytes of a laid out matrix `[outputs, inputs]`, of which there may be two, and its bands.
pub(crate) fn packed(
    [outputs, inputs]: [usize; 2],
    parts: usize,
    precision: Precision,
) -> (u64, usize) {
    let panel = 4 * (panel_words(inputs, precision) * parts) as u64;
    let panels = outputs.div_ceil(LANES) as u64;
    let fit = (BINDING_BYTES / panel).max(1);
    (panel * panels, panels.div_ceil(fit) as usize)
}

impl Matrix {
    /// Lays out one row-major matrix `[outputs, inputs]`, or two of one shape whose panels alternate,
    /// in bands of at most `most` bytes.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn pack(
        device: &Device,
        what: &str,
        parts: &[Vec<f32>],
        [outputs, inputs]: [usize; 2],
        precision: Precision,
        most: u64,
    ) -> Result<Self, GpuError> {
        let panels = outputs.div_ceil(LANES);
        let panel_words = panel_words(inputs, precision) * parts.len();
        let fit = usize::try_from(most / (4 * panel_words as u64)).unwrap_or(usize::MAX).max(1);
        let scales: Vec<Vec<f32>> = match precision {
            Precision::Int8 => {
                let of = |part: &Vec<f32>| part.chunks(inputs).map(scale).collect();
                parts.iter().map(of).collect()
            }
            _ => vec![Vec::new(); parts.len()],
        };
        let mut bands = Vec::new();
        let mut first = 0;
        while first < panels {
            let count = fit.min(panels - first);
            let mut words = Vec::with_capacity(count * panel_words);
            for index in first..first + count {
                for (part, scales) in parts.iter().zip(&scales) {
                    panel((part, scales), inputs, index, precision, &mut words);
                }
            }
            let weights = Buffer::of(device, what, &words)?;
            bands.push(Band { weights, first, panels: count });
            first += count;
        }
        let scales = match precision {
            Precision::Int8 => Some(Buffer::of(device, what, &scales.concat())?),
            _ => None,
        };
        Ok(Self { bands, scales })
    }

    /// Bytes of the memory that a product reads.
    pub(crate) fn bytes(&self) -> u64 {
        self.bands.iter().map(|band| band.weights.bytes()).sum()
    }
}

/// The tensors of a file while a model is built from them. One that is missing or does not fit is
/// noted, and zeros take its place until the whole model is built.
pub(crate) struct Parameters<'a> {
    file: &'a TensorFile,
    views: BTreeMap<String, TensorView<'a>>,
    unused: BTreeMap<String, Vec<usize>>,
    problems: Vec<ParameterError>,
    strange: Option<FileError>,
}

impl<'a> Parameters<'a> {
    /// Every tensor whose name `belongs` accepts must be used.
    ///
    /// # Errors
    /// If the file is damaged.
    pub(crate) fn new(
        file: &'a TensorFile,
        belongs: impl Fn(&str) -> bool,
    ) -> Result<Self, FileError> {
        let views = file.views()?;
        let unused = views.iter().filter(|(name, _)| belongs(name));
        let unused = unused.map(|(name, view)| (name.clone(), view.shape().to_vec())).collect();
        Ok(Self { file, views, unused, problems: Vec::new(), strange: None })
    }

    /// The values of a tensor, in row-major order.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let mut values = vec![0.0; shape.iter().product()];
        self.unused.remove(name);
        match self.views.get(name) {
            None => self
                .problems
                .push(ParameterError::Missing { name: name.to_owned(), expected: shape.to_vec() }),
            Some(view) if view.shape() != shape => self.problems.push(ParameterError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                got: view.shape().to_vec(),
            }),
            Some(view) if !view.is_float() => {
                let path = self.file.path();
                self.strange.get_or_insert_with(|| not_a_float(path, name, &view.kind()));
            }
            Some(view) => {
                view.read(0, &mut values);
                if self.strange.is_none() {
                    self.strange = check_finite(self.file.path(), name, &values).err();
                }
            }
        }
        values
    }

    /// A weight `[outputs, inputs]` on the GPU; of two names, two of one shape whose panels alternate.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn matrix(
        &mut self,
        device: &Device,
        names: &[String],
        shape: [usize; 2],
        precision: Precision,
    ) -> Result<Matrix, GpuError> {
        let parts: Vec<_> = names.iter().map(|name| self.tensor(name, &shape)).collect();
        let most = BINDING_BYTES.min(device.info().binding_bytes);
        Matrix::pack(device, &names[0], &parts, shape, precision, most)
    }

    /// A vector on the GPU.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn vector(
        &mut self,
        device: &Device,
        name: &str,
        length: usize,
    ) -> Result<Buffer, GpuError> {
        Buffer::of(device, name, &self.tensor(name, &[length]))
    }

    /// Rows by id on the GPU, with the numbers that `precision` can hold, in f32.
    ///
    /// # Errors
    /// If the GPU has no memory for it.
    pub(crate) fn table(
        &mut self,
        device: &Device,
        name: &str,
        shape: [usize; 2],
        precision: Precision,
    ) -> Result<Buffer, GpuError> {
        let mut values = self.tensor(name, &shape);
        if precision != Precision::F32 {
            values.iter_mut().for_each(|value| *value = round_to_bf16(*value));
        }
        Buffer::of(device, name, &values)
    }

    /// Looks whether the file held what was asked for, and nothing else.
    ///
    /// # Errors
    /// If a tensor was missing, superfluous, mis-shaped, no float or not finite.
    pub(crate) fn finish(mut self) -> Result<(), LoadError> {
        if let Some(strange) = self.strange {
            return Err(strange.into());
        }
        let unused = self.unused.into_iter();
        self.problems.extend(unused.map(|(name, shape)| ParameterError::Unused { name, shape }));
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(LoadError::Tensors { path: self.file.path().to_owned(), problems: self.problems })
    }
}
