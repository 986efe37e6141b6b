//! Tensors of a model, by name, from a file or out of thin air.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use tokens::noise::Noise;

use crate::{
    kernels::Kernels,
    matrix::{Matrix, Precision},
    memory::Arena,
};

/// Weights that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operating system refused to read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no safetensors file, or a part of one.
    #[error("`{}` is damaged or cut off: {what}; download or save it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The tensors are not those of the architecture.
    #[error("`{}` does not hold the weights of its architecture: {}", path.display(), problems.join("; "))]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Each tensor that does not fit.
        problems: Vec<String>,
    },
    /// A packed model that is another one's, or made for another machine.
    #[error("`{}` {what}; make it again with `alitok pack`", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// Why it does not fit.
        what: String,
    },
    /// The operating system refused to write.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system has no memory for the weights.
    #[error("there is no memory for the weights: {0}")]
    Memory(io::Error),
}

/// Where weights come from.
pub(crate) trait Source {
    /// The values of a tensor, in row-major order. Where there is none of this shape, the source
    /// remembers that and gives zeros.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32>;

    /// Where packed weights go.
    fn arena(&mut self) -> &mut Arena;

    /// A weight `[outputs, inputs]`, packed; of two names, two of one shape whose panels alternate.
    ///
    /// # Errors
    /// If there is no memory.
    fn matrix(
        &mut self,
        names: &[&str],
        shape: [usize; 2],
        precision: Precision,
    ) -> io::Result<Matrix> {
        let parts: Vec<_> = names.iter().map(|name| self.tensor(name, &shape)).collect();
        let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        Matrix::pack_parts(Kernels::detect(), precision, &parts, shape[1], self.arena())
    }
}

/// Maps a file into memory.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn map(path: &Path) -> Result<Mmap, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    // SAFETY: files appear whole and are replaced, never changed in place; whoever does it
    // nevertheless while a model is loaded gets damaged weights, as with any reader.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(read)
}

/// Gives memory of a mapped file back to the system, which reads it again where it is needed.
pub(crate) fn release(file: &Mmap, range: &Range<usize>) {
    #[cfg(unix)]
    {
        let unused = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: pages of a file that nobody writes to have the same bytes afterwards.
        #[allow(unsafe_code)]
        let released = unsafe { file.unchecked_advise_range(unused, range.start, range.len()) };
        // A wish: what is kept costs nothing but memory.
        let _ = released;
    }
    #[cfg(not(unix))]
    let _ = (file, range);
}

/// A file of tensors, mapped into memory.
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: Mmap,
}

impl TensorFile {
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        Ok(Self { path: path.to_owned(), bytes: map(path)? })
    }

    /// Builds something from the tensors whose names `belongs` wants.
    ///
    /// # Errors
    /// If the file is damaged, or a tensor is missing, superfluous or mis-shaped: all are named.
    pub(crate) fn build<T>(
        &self,
        belongs: impl Fn(&str) -> bool,
        build: impl FnOnce(&mut dyn Source) -> T,
    ) -> Result<T, LoadError> {
        let damaged = |error: safetensors::SafeTensorError| LoadError::Damaged {
            path: self.path.clone(),
            what: error.to_string(),
        };
        let file = SafeTensors::deserialize(&self.bytes).map_err(damaged)?;
        let unused = file.iter().filter(|(name, _)| belongs(name));
        let unused = unused.map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
        let mut tensors =
            FileTensors { file, unused, problems: Vec::new(), arena: Arena::default() };
        let built = build(&mut tensors);
        let FileTensors { unused, mut problems, .. } = tensors;
        problems.extend(unused.into_iter().map(|(name, shape)| {
            format!("tensor `{name}` of shape {shape:?} belongs to no parameter of the model")
        }));
        if problems.is_empty() {
            Ok(built)
        } else {
            Err(LoadError::Tensors { path: self.path.clone(), problems })
        }
    }
}

struct FileTensors<'a> {
    file: SafeTensors<'a>,
    unused: BTreeMap<String, Vec<usize>>,
    problems: Vec<String>,
    arena: Arena,
}

impl Source for FileTensors<'_> {
    fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.unused.remove(name);
        let problem = match self.file.tensor(name) {
            Err(_) => format!("tensor `{name}` is missing (expected shape {shape:?})"),
            Ok(view) if view.shape() != shape => {
                format!("tensor `{name}` has shape {:?}, expected {shape:?}", view.shape())
            }
            Ok(view) => match floats(view.data(), view.dtype()) {
                Some(values) => return values,
                None => {
                    let found = view.dtype();
                    format!("tensor `{name}` is of {found:?}; weights are F32, BF16, F16 or F64")
                }
            },
        };
        self.problems.push(problem);
        vec![0.0; shape.iter().product()]
    }
}

fn floats(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::BF16 => each(bytes, |bytes| crate::kernels::from_bf16(u16::from_le_bytes(bytes))),
        Dtype::F16 => each(bytes, |bytes| from_f16(u16::from_le_bytes(bytes))),
        _ => return None,
    })
}

fn from_f16(value: u16) -> f32 {
    let sign = if value >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(value >> 10 & 31), f32::from(value & 1023));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// Weights at random, each a pure function of its name, for measuring speed without a model:
/// uniform of deviation 0.02, ones in norms.
#[derive(Default)]
pub(crate) struct RandomTensors(Arena);

impl Source for RandomTensors {
    fn arena(&mut self) -> &mut Arena {
        &mut self.0
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        if name.ends_with("norm.weight") {
            return vec![1.0; count];
        }
        let mut noise = Noise::of_parameter(0, name, 0);
        let spread = 0.02 * 12f32.sqrt();
        (0..count).map(|_| spread * (noise.uniform() as f32 - 0.5)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_half_precision() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(from_f16(bits), value, "{bits:x}");
        }
        assert!(from_f16(0x7c01).is_nan());
    }
}
