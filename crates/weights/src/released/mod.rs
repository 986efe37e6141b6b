//! The authors' names and layouts, and ours.
//!
//! Every tensor stands in an explicit table with both names and the released shape. Nothing is
//! matched by pattern: a missing, unknown or mis-shaped tensor is an error that names it.

mod generator;
mod tokenizer;

pub use generator::{export_generator, import_generator};
pub use tokenizer::{ReleasedTokenizer, export_tokenizer, import_tokenizer};

use ::tokenizer::DecoderKind;
use files::{HostTensor, ParameterError, TensorMap, list_problems};

use crate::checkpoint::Checkpoint;

/// A checkpoint that is not one of the released models, or a model that they cannot express.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReleasedError {
    /// Tensors are missing, unknown or of another shape.
    #[error("its tensors are not those of the released {kind}: {}", list_problems(problems))]
    Tensors {
        /// "tokenizer" or "generator".
        kind: &'static str,
        /// Each tensor that does not fit.
        problems: Vec<ParameterError>,
    },
    /// A tensor is missing without which nothing can be inferred.
    #[error("it is no released {kind}: tensor `{missing}` is missing")]
    Unrecognized {
        /// "tokenizer" or "generator".
        kind: &'static str,
        /// The tensor.
        missing: &'static str,
    },
    /// A weight is no tensor of floats.
    #[error(
        "`{name}` is {kind}, and weights are floats; of a quantized model take the file that it was \
         made from"
    )]
    Other {
        /// Name of the entry.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The file holds the other of the two models.
    #[error("it is a {found}, not a {wanted}; give the tokenizer first, then the generator")]
    WrongModel {
        /// What was asked for.
        wanted: &'static str,
        /// What the file holds.
        found: &'static str,
    },
    /// A shape from which no architecture follows.
    #[error("tensor `{name}` of shape {shape:?} {what}")]
    Architecture {
        /// Name of the tensor.
        name: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Why it cannot be.
        what: String,
    },
    /// The inferred architecture cannot be built.
    #[error("the architecture inferred from its shapes is impossible: {0}")]
    Impossible(String),
    /// The released code cannot express the model.
    #[error("the released code cannot express this model: {0}")]
    NotReleased(&'static str),
    /// The model lacks the decoder that was asked for.
    #[error("the model has no {0} decoder")]
    NoDecoder(DecoderKind),
}

/// How a released tensor is laid out where ours is a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The same.
    Same,
    /// A 1 × 1 convolution `[out, in, 1, 1]`; ours is `[out, in]`.
    PointConvolution,
    /// A convolution over patches `[out, 3, patch, patch]`; ours is `[out, patch·patch·3]` and
    /// runs by row, column and channel.
    PatchConvolution,
}

/// One row of a name table.
#[derive(Debug, Clone)]
struct Entry {
    released: String,
    ours: String,
    /// Released shape.
    shape: Vec<usize>,
    form: Form,
}

/// All tensors of a released model.
#[derive(Debug, Default)]
struct NameTable {
    kind: &'static str,
    entries: Vec<Entry>,
}

impl NameTable {
    fn add(&mut self, released: String, ours: String, shape: &[usize], form: Form) {
        self.entries.push(Entry { released, ours, shape: shape.to_vec(), form });
    }

    fn same(&mut self, released: impl Into<String>, ours: impl Into<String>, shape: &[usize]) {
        self.add(released.into(), ours.into(), shape, Form::Same);
    }

    /// Weight and bias of a linear layer from `inputs` to `outputs`.
    fn linear(&mut self, released: &str, ours: &str, inputs: usize, outputs: usize) {
        self.same(format!("{released}.weight"), format!("{ours}.weight"), &[outputs, inputs]);
        self.same(format!("{released}.bias"), format!("{ours}.bias"), &[outputs]);
    }

    /// The same where the released code has a 1 × 1 convolution.
    fn point_convolution(&mut self, released: &str, ours: &str, inputs: usize, outputs: usize) {
        self.add(
            format!("{released}.weight"),
            format!("{ours}.weight"),
            &[outputs, inputs, 1, 1],
            Form::PointConvolution,
        );
        self.same(format!("{released}.bias"), format!("{ours}.bias"), &[outputs]);
    }

    /// Scale and shift of a LayerNorm.
    fn layer_norm(&mut self, released: &str, ours: &str, width: usize) {
        self.same(format!("{released}.weight"), format!("{ours}.weight"), &[width]);
        self.same(format!("{released}.bias"), format!("{ours}.bias"), &[width]);
    }

    /// Released tensors under our names. Every one is used, and none is missing.
    fn import(&self, mut released: TensorMap) -> Result<TensorMap, ReleasedError> {
        let mut ours = TensorMap::new();
        let mut problems = Vec::new();
        for entry in &self.entries {
            let name = entry.released.clone();
            match released.remove(&name) {
                Some(tensor) if tensor.shape == entry.shape => {
                    ours.insert(entry.ours.clone(), entry.form.import(tensor));
                }
                Some(tensor) => problems.push(ParameterError::Shape {
                    name,
                    expected: entry.shape.clone(),
                    got: tensor.shape,
                }),
                None => {
                    problems.push(ParameterError::Missing { name, expected: entry.shape.clone() });
                }
            }
        }
        self.finish(ours, problems, released)
    }

    /// Our tensors under the released names. Every one is used, and none is missing.
    fn export(&self, mut ours: TensorMap) -> Result<TensorMap, ReleasedError> {
        let mut released = TensorMap::new();
        let mut problems = Vec::new();
        for entry in &self.entries {
            let name = entry.ours.clone();
            let expected = entry.form.our_shape(&entry.shape);
            match ours.remove(&name) {
                Some(tensor) if tensor.shape == expected => {
                    released
                        .insert(entry.released.clone(), entry.form.export(tensor, &entry.shape));
                }
                Some(tensor) => {
                    problems.push(ParameterError::Shape { name, expected, got: tensor.shape });
                }
                None => problems.push(ParameterError::Missing { name, expected }),
            }
        }
        self.finish(released, problems, ours)
    }

    fn finish(
        &self,
        result: TensorMap,
        mut problems: Vec<ParameterError>,
        unused: TensorMap,
    ) -> Result<TensorMap, ReleasedError> {
        problems.extend(
            unused
                .into_iter()
                .map(|(name, tensor)| ParameterError::Unused { name, shape: tensor.shape }),
        );
        if problems.is_empty() {
            Ok(result)
        } else {
            Err(ReleasedError::Tensors { kind: self.kind, problems })
        }
    }
}

impl Form {
    fn our_shape(self, released: &[usize]) -> Vec<usize> {
        match self {
            Self::Same => released.to_vec(),
            Self::PointConvolution | Self::PatchConvolution => {
                vec![released[0], released[1..].iter().product()]
            }
        }
    }

    fn import(self, tensor: HostTensor) -> HostTensor {
        let shape = self.our_shape(&tensor.shape);
        let values = match (self, &tensor.shape[..]) {
            (Self::PatchConvolution, &[_, channels, patch, _]) => {
                exchange_inner(&tensor.values, channels, patch * patch)
            }
            _ => tensor.values,
        };
        HostTensor::new(shape, values)
    }

    fn export(self, tensor: HostTensor, released: &[usize]) -> HostTensor {
        let values = match (self, released) {
            (Self::PatchConvolution, &[_, channels, patch, _]) => {
                exchange_inner(&tensor.values, patch * patch, channels)
            }
            _ => tensor.values,
        };
        HostTensor::new(released, values)
    }
}

/// `[out, a, b]` → `[out, b, a]`.
fn exchange_inner(values: &[f32], a: usize, b: usize) -> Vec<f32> {
    let mut exchanged = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(a * b) {
        for column in 0..b {
            exchanged.extend((0..a).map(|row| filter[row * b + column]));
        }
    }
    exchanged
}

/// The shape of a tensor from which the architecture is inferred.
fn shape_of<const D: usize>(
    kind: &'static str,
    tensors: &TensorMap,
    name: &'static str,
    axes: &str,
) -> Result<[usize; D], ReleasedError> {
    let tensor = tensors.get(name).ok_or(ReleasedError::Unrecognized { kind, missing: name })?;
    match <[usize; D]>::try_from(&tensor.shape[..]) {
        Ok(shape) if !tensor.values.is_empty() => Ok(shape),
        _ => Err(ReleasedError::Architecture {
            name,
            shape: tensor.shape.clone(),
            what: format!("should have {D} dimensions, none of them 0: {axes}"),
        }),
    }
}

/// One more than the largest number behind `prefix`. A gap is found when the table is applied.
fn count_layers(tensors: &TensorMap, prefix: &str) -> usize {
    tensors
        .keys()
        .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok())
        .map(|index| index.saturating_add(1))
        .max()
        .unwrap_or(0)
        // More layers than tensors are a gap anyway; no table needs to be that long.
        .min(tensors.len() + 1)
}

/// Refuses the other kind of model.
fn check_kind(checkpoint: &Checkpoint, wanted: &'static str) -> Result<(), ReleasedError> {
    let found = if checkpoint.tensors.contains_key("embeddings.weight") {
        "generator"
    } else if checkpoint.tensors.contains_key("latent_tokens") {
        "tokenizer"
    } else {
        wanted
    };
    if found != wanted {
        return Err(ReleasedError::WrongModel { wanted, found });
    }
    Ok(())
}

impl NameTable {
    /// Refuses a state dict in which a tensor of the model is no tensor of floats. Other entries that
    /// are none, such as counts and masks, hold no weights and are left out.
    fn check_others(&self, checkpoint: &Checkpoint) -> Result<(), ReleasedError> {
        let mut names = self.entries.iter().map(|entry| &entry.released);
        match names.find_map(|name| checkpoint.others.get_key_value(name)) {
            None => Ok(()),
            Some((name, kind)) => {
                Err(ReleasedError::Other { name: name.clone(), kind: kind.clone() })
            }
        }
    }
}
