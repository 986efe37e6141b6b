//! Weights of a model, by name: from a file, or random.

use std::{collections::BTreeMap, io, path::PathBuf, sync::atomic::AtomicBool};

use files::{
    FileError, ParameterError, list_problems,
    safetensors::{TensorFile, TensorView, check_finite, not_a_float},
};
use tokens::noise::Noise;

use crate::{
    kernels::{InstructionsError, Kernels},
    matrix::{Matrix, Precision, Values},
    memory::Arena,
    parallel::Pool,
};

/// Where the weights of a model come from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Weights {
    /// A file of a model folder, mapped or in memory.
    File(TensorFile),
    /// Random numbers, to measure speed without a model.
    ///
    /// Each is a pure function of its parameter's name: uniform of deviation 0.02, ones in norms.
    Random,
}

impl From<TensorFile> for Weights {
    fn from(file: TensorFile) -> Self {
        Self::File(file)
    }
}

/// Weights that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is damaged, or a tensor is of another kind.
    #[error(transparent)]
    File(#[from] FileError),
    /// The tensors are not those of the architecture.
    #[error(
        "`{}` does not hold the weights of its architecture: {}",
        path.display(), list_problems(problems)
    )]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Each tensor that does not fit.
        problems: Vec<ParameterError>,
    },
    /// The environment asks for an instruction set that there is not.
    #[error(transparent)]
    Instructions(#[from] InstructionsError),
    /// The operating system has no memory for the weights.
    #[error("there is no memory for the weights: {0}")]
    Memory(io::Error),
}

impl Weights {
    /// Builds a part of a model. It must use every tensor of the file whose name `belongs` accepts.
    ///
    /// # Errors
    /// If the file is damaged, or a tensor is missing, superfluous, mis-shaped, no float or not finite,
    /// the environment asks for instructions that there are not, or there is no memory.
    pub(crate) fn build<T>(
        &self,
        pool: &Pool,
        belongs: impl Fn(&str) -> bool,
        build: impl FnOnce(&mut Tensors<'_>) -> io::Result<T>,
    ) -> Result<T, LoadError> {
        let kernels = Kernels::chosen()?;
        let source = match self {
            Self::Random => None,
            Self::File(file) => Some((file, file.views()?)),
        };
        let views = source.as_ref().map(|(_, views)| views.iter());
        let unused = views.into_iter().flatten().filter(|(name, _)| belongs(name));
        let unused = unused.map(|(name, view)| (name.clone(), view.shape().to_vec())).collect();
        let (problems, strange) = (Vec::new(), None);
        let mut tensors =
            Tensors { kernels, source, unused, problems, strange, arena: Arena::default(), pool };
        let built = build(&mut tensors).map_err(LoadError::Memory)?;
        let Tensors { source, unused, mut problems, strange, .. } = tensors;
        if let Some(strange) = strange {
            return Err(strange.into());
        }
        problems
            .extend(unused.into_iter().map(|(name, shape)| ParameterError::Unused { name, shape }));
        match source {
            Some((file, _)) if !problems.is_empty() => {
                Err(LoadError::Tensors { path: file.path().to_owned(), problems })
            }
            _ => Ok(built),
        }
    }
}

/// What a part of a model is built from. A tensor that is missing or does not fit is noted, and
/// zeros take its place until the whole part is built.
pub(crate) struct Tensors<'a> {
    /// What weights are packed for.
    pub(crate) kernels: &'static Kernels,
    /// The file and what it holds; without one, weights are random.
    source: Option<(&'a TensorFile, BTreeMap<String, TensorView<'a>>)>,
    unused: BTreeMap<String, Vec<usize>>,
    problems: Vec<ParameterError>,
    /// The first tensor that is no float, or holds what is no finite number.
    strange: Option<FileError>,
    /// Where packed weights go.
    arena: Arena,
    /// What packs them.
    pool: &'a Pool,
}

impl<'a> Tensors<'a> {
    /// The values of a tensor, in row-major order.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) -> Vec<f32> {
        let count = shape.iter().product();
        if self.source.is_none() {
            return random(name, count);
        }
        let mut values = vec![0.0; count];
        if let Some(view) = self.find(name, shape) {
            view.read(0, &mut values);
            self.check(name, &values);
        }
        values
    }

    /// A weight `[outputs, inputs]`, packed; of two names, two of one shape whose panels alternate.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn matrix(
        &mut self,
        names: &[&str],
        shape: [usize; 2],
        precision: Precision,
    ) -> io::Result<Matrix> {
        let kernels = self.kernels;
        if self.source.is_none() {
            let parts: Vec<Vec<f32>> =
                names.iter().map(|name| random(name, shape[0] * shape[1])).collect();
            let parts: Vec<Values<'_>> = parts.iter().map(|part| Values::Numbers(part)).collect();
            return Matrix::pack_parts(
                kernels,
                precision,
                &parts,
                shape,
                &mut self.arena,
                self.pool,
            );
        }
        let views: Vec<_> = names.iter().map(|name| self.find(name, &shape)).collect();
        let strange = AtomicBool::new(false);
        let stored = |view| Values::Stored(view, &strange);
        let parts: Vec<Values<'_>> =
            views.iter().map(|view| view.as_ref().map_or(Values::Zeros, stored)).collect();
        let matrix =
            Matrix::pack_parts(kernels, precision, &parts, shape, &mut self.arena, self.pool)?;
        if strange.into_inner() {
            for (name, view) in names.iter().zip(&views) {
                let Some(view) = view else { continue };
                let mut values = vec![0.0; shape[0] * shape[1]];
                view.read(0, &mut values);
                self.check(name, &values);
            }
        }
        if let Some((file, _)) = &self.source {
            views.iter().flatten().for_each(|view| file.release(view));
        }
        Ok(matrix)
    }

    /// Leaves a tensor unread that belongs to the model and is not needed now.
    pub(crate) fn leave(&mut self, name: &str) {
        self.unused.remove(name);
    }

    /// Notes a tensor that holds values which are no finite numbers.
    fn check(&mut self, name: &str, values: &[f32]) {
        if let (None, Some((file, _))) = (&self.strange, &self.source) {
            self.strange = check_finite(file.path(), name, values).err();
        }
    }

    /// A tensor of the file; if it does not fit, that is noted.
    fn find(&mut self, name: &str, shape: &[usize]) -> Option<TensorView<'a>> {
        self.unused.remove(name);
        let (file, views) = self.source.as_ref()?;
        match views.get(name) {
            None => self
                .problems
                .push(ParameterError::Missing { name: name.to_owned(), expected: shape.to_vec() }),
            Some(view) if view.shape() != shape => self.problems.push(ParameterError::Shape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                got: view.shape().to_vec(),
            }),
            Some(view) if !view.is_float() => {
                self.strange.get_or_insert_with(|| not_a_float(file.path(), name, &view.kind()));
            }
            Some(view) => return Some(view.clone()),
        }
        None
    }
}

fn random(name: &str, count: usize) -> Vec<f32> {
    if name.ends_with("norm.weight") {
        return vec![1.0; count];
    }
    let mut noise = Noise::of_parameter(0, name, 0);
    let spread = 0.02 * 12f32.sqrt();
    (0..count).map(|_| spread * (noise.uniform() as f32 - 0.5)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file of one tensor.
    fn file(dtype: &str, shape: [usize; 2], data: &[u8]) -> Weights {
        let mut header = format!(
            r#"{{"w":{{"dtype":"{dtype}","shape":[{},{}],"data_offsets":[0,{}]}}}}"#,
            shape[0],
            shape[1],
            data.len()
        );
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
        TensorFile::from_bytes("w.safetensors", bytes).into()
    }

    fn read(weights: &Weights, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, LoadError> {
        weights.build(&Pool::new(1), |_| true, |tensors| Ok(tensors.tensor(name, &shape)))
    }

    #[test]
    fn should_read_half_precision() {
        let half: Vec<u8> = [0x3c00u16, 0xc000, 0x0001, 0x03ff, 0x7bff, 0xfbff]
            .iter()
            .flat_map(|bits| bits.to_le_bytes())
            .collect();
        let small = 2f32.powi(-24);
        assert_eq!(
            read(&file("F16", [2, 3], &half), "w", [2, 3]).unwrap(),
            [1.0, -2.0, small, 1023.0 * small, 65504.0, -65504.0]
        );
        let brain = file("BF16", [1, 2], &[0x80, 0x3f, 0x40, 0xc0]);
        assert_eq!(read(&brain, "w", [1, 2]).unwrap(), [1.0, -3.0]);
    }

    #[test]
    fn should_refuse_what_is_no_finite_number() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bytes: Vec<u8> = [0.5, -1.0, 2.0, value]
                .iter()
                .flat_map(|value: &f32| value.to_le_bytes())
                .collect();
            let weights = file("F32", [2, 2], &bytes);
            let pool = Pool::new(1);
            let alone = read(&weights, "w", [2, 2]).map(drop);
            let packed = weights.build(
                &pool,
                |_| true,
                |tensors| tensors.matrix(&["w"], [2, 2], Precision::F32).map(drop),
            );
            for refused in [alone, packed] {
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("tensor `w`") && error.contains("no finite"), "{error}");
            }
        }
    }

    #[test]
    fn should_name_every_tensor_that_does_not_fit() {
        let weights = file("F32", [1, 2], &[0; 8]);
        let problems = |name, shape| match read(&weights, name, shape) {
            Err(LoadError::Tensors { problems, .. }) => problems,
            other => panic!("{other:?}"),
        };
        let (name, shape) = ("w".to_owned(), vec![1, 2]);
        assert_eq!(
            problems("w", [2, 1]),
            [ParameterError::Shape {
                name: name.clone(),
                expected: vec![2, 1],
                got: shape.clone()
            }]
        );
        assert_eq!(
            problems("v", [1, 1]),
            [
                ParameterError::Missing { name: "v".to_owned(), expected: vec![1, 1] },
                ParameterError::Unused { name, shape },
            ]
        );
        let strange = read(&file("I32", [1, 1], &[0; 4]), "w", [1, 1]).unwrap_err();
        assert!(matches!(&strange, LoadError::File(FileError::Tensor { name, .. }) if name == "w"));
        let cut = TensorFile::from_bytes("cut", [1, 0, 0].to_vec());
        assert!(matches!(read(&cut.into(), "w", [1, 1]), Err(LoadError::File(_))));
    }
}
