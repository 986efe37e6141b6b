//! What joins a language model and the codes of pictures, in Janus' names.

use std::path::Path;

use files::{
    HostTensor, ParameterError, TensorMap,
    safetensors::{TensorFile, check_finite, not_a_float},
};
use tokens::noise::Noise;

use crate::{LanguageConfig, LanguageError};

/// Janus' names (`janus/models/modeling_vlm.py`, `projector.py`) and ours, without `weight` and `bias`.
const NAMES: [(&str, &str); 4] = [
    ("gen_aligner.layers.0", "adaptor.input"),
    ("gen_aligner.layers.2", "adaptor.output"),
    ("gen_head.output_mlp_projector", "head.input"),
    ("gen_head.vision_head", "head.output"),
];

/// The codebook.
const CODEBOOK: &str = "gen_embed.weight";

/// A file of adaptor and head, whose sizes are known. Weights are read on demand.
#[derive(Debug)]
pub struct ImageSide {
    file: TensorFile,
    /// Hidden width of the adaptor.
    pub adaptor_hidden: usize,
    /// Hidden width of the head.
    pub head_hidden: usize,
}

impl ImageSide {
    /// Opens a `.safetensors` file of Janus' names.
    ///
    /// # Errors
    /// If it is damaged, or has no adaptor and head.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LanguageError> {
        let file = TensorFile::open(path)?;
        let rows = |name: &str| {
            let name = format!("{name}.weight");
            match file.views()?.get(&name).map(|view| view.shape().to_vec()) {
                Some(shape) if shape.len() == 2 => Ok(shape[0]),
                Some(got) => {
                    let problem = ParameterError::Shape { name, expected: vec![0, 0], got };
                    Err(tensors_error(&file, vec![problem]))
                }
                None => {
                    let problem = ParameterError::Missing { name, expected: vec![] };
                    Err(tensors_error(&file, vec![problem]))
                }
            }
        };
        let (adaptor_hidden, head_hidden) = (rows(NAMES[0].0)?, rows(NAMES[2].0)?);
        Ok(Self { file, adaptor_hidden, head_hidden })
    }

    /// Reads adaptor and head, under our names.
    ///
    /// # Errors
    /// If a tensor is missing, unknown, mis-shaped or not finite, or the codebook is not that of the
    /// tokenizer, `[codes, code_size]`.
    pub fn tensors(
        &self,
        config: &LanguageConfig,
        codebook: &HostTensor,
    ) -> Result<TensorMap, LanguageError> {
        let views = self.file.views()?;
        let (mut tensors, mut problems) = (TensorMap::new(), Vec::new());
        let name_of = |ours: &str| {
            let (stem, what) = ours.rsplit_once('.').unwrap_or((ours, ""));
            let (theirs, _) = NAMES.iter().find(|(_, known)| *known == stem)?;
            Some(format!("{theirs}.{what}"))
        };
        let shapes = config.image_side_shapes();
        let expected =
            shapes.iter().filter_map(|(ours, shape)| Some((name_of(ours)?, ours, shape)));
        let mut unused = views.clone();
        let mut read = |name: &str, shape: &[usize]| -> Result<Option<HostTensor>, LanguageError> {
            unused.remove(name);
            let (name, expected) = (name.to_owned(), shape.to_vec());
            match views.get(&name) {
                None => problems.push(ParameterError::Missing { name, expected }),
                Some(view) if view.shape() != shape => {
                    let got = view.shape().to_vec();
                    problems.push(ParameterError::Shape { name, expected, got });
                }
                Some(view) if !view.is_float() => {
                    return Err(not_a_float(self.file.path(), &name, &view.kind()).into());
                }
                Some(view) => {
                    let mut values = vec![0.0; shape.iter().product()];
                    view.read(0, &mut values);
                    check_finite(self.file.path(), &name, &values)?;
                    return Ok(Some(HostTensor::new(shape, values)));
                }
            }
            Ok(None)
        };
        // The codebook first: where it is another one, the shapes that differ only follow from it.
        if let Some(view) = views.get(CODEBOOK)
            && view.shape() != codebook.shape
        {
            let (got, shape) = (view.shape(), &codebook.shape);
            let what = format!("its codebook has shape {got:?}, the tokenizer's {shape:?}");
            return Err(self.other_codebook(what));
        }
        if let Some(ours) = read(CODEBOOK, &codebook.shape)? {
            // Either may have been stored in bf16.
            let far = |(one, other): (&f32, &f32)| (one - other).abs() > other.abs() / 128.0;
            let differ = ours.values.iter().zip(&codebook.values).filter(|&pair| far(pair)).count();
            if differ > 0 {
                let count = codebook.values.len();
                let what = format!(
                    "{differ} of the {count} numbers of its codebook differ from the tokenizer's"
                );
                return Err(self.other_codebook(what));
            }
        }
        for (name, ours, shape) in expected {
            if let Some(tensor) = read(&name, shape)? {
                tensors.insert(ours.clone(), tensor);
            }
        }
        problems.extend(
            unused
                .into_iter()
                .map(|(name, view)| ParameterError::Unused { name, shape: view.shape().to_vec() }),
        );
        match problems.is_empty() {
            true => Ok(tensors),
            false => Err(tensors_error(&self.file, problems)),
        }
    }

    /// An adaptor and a head that have learned nothing: weights of deviation 0.02, as Qwen2 begins, and
    /// no biases. Each is a function of the seed and its name.
    pub fn fresh(config: &LanguageConfig, seed: u64) -> TensorMap {
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product();
            let values = match name.ends_with(".bias") {
                true => vec![0.0; count],
                false => {
                    let mut noise = Noise::of_parameter(seed, &name, 0);
                    (0..count).map(|_| (0.02 * noise.normal()) as f32).collect()
                }
            };
            (name, HostTensor::new(shape, values))
        };
        config.image_side_shapes().into_iter().map(tensor).collect()
    }

    fn other_codebook(&self, what: String) -> LanguageError {
        LanguageError::Codebook { path: self.file.path().to_owned(), what }
    }
}

fn tensors_error(file: &TensorFile, problems: Vec<ParameterError>) -> LanguageError {
    LanguageError::Tensors { path: file.path().to_owned(), problems }
}
