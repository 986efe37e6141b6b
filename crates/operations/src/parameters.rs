//! A module's parameters by name, in the layout that other frameworks read.
//!
//! Names are field paths joined with dots (`blocks.0.attention.query_key_value.weight`). Shapes
//! and values follow PyTorch: a linear layer's weight is `[out, in]`, a normalization's scale is
//! called `weight` and its shift `bias`. Burn keeps linear weights as `[in, out]` and says
//! `gamma` and `beta`; this module is the only place that knows.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{DType, Tensor, TensorData},
};
use files::{HostTensor, ParameterError, TensorMap};

/// Copies a tensor from its device.
pub fn host_tensor<const D: usize>(tensor: Tensor<D>) -> HostTensor {
    let shape = tensor.dims().to_vec();
    let values = tensor
        .into_data()
        .convert_dtype(DType::F32)
        .try_into_vec::<f32>()
        .expect("the data was just converted to f32");
    HostTensor { shape, values }
}

/// The path of the module being walked, and how its parameters translate.
#[derive(Default)]
pub(crate) struct Path {
    names: Vec<String>,
    containers: Vec<String>,
}

impl Path {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    fn container(&self) -> &str {
        self.containers
            .last()
            .map_or("", |container| container.rsplit(':').next().unwrap_or_default())
    }

    /// The parameter's name outside, and whether it is stored transposed inside, as the weights
    /// of linear layers are.
    pub(crate) fn name(&self) -> (String, bool) {
        let container = self.container();
        let mut names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        if let (Some(last), "LayerNorm" | "RmsNorm") = (names.last_mut(), container) {
            *last = match *last {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
        }
        let transposed = container == "Linear" && self.names.last().is_some_and(|n| n == "weight");
        (names.join("."), transposed)
    }
}

/// Copies the values of parameters, or their gradients.
struct Copies<'a> {
    path: Path,
    gradients: Option<&'a GradientsParams>,
    found: TensorMap,
}

impl ModuleVisitor for Copies<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (name, transposed) = self.path.name();
        let tensor = match self.gradients {
            None => Some(param.val()),
            Some(gradients) => gradients.get::<D>(param.id),
        };
        if let Some(tensor) = tensor {
            let tensor = host_tensor(tensor);
            self.found.insert(name, if transposed { tensor.transposed() } else { tensor });
        }
    }
}

fn copies<M: Module>(module: &M, gradients: Option<&GradientsParams>) -> TensorMap {
    let mut copies = Copies { path: Path::default(), gradients, found: TensorMap::new() };
    module.visit(&mut copies);
    copies.found
}

/// Copies every parameter of a module, by name.
pub fn collect<M: Module>(module: &M) -> TensorMap {
    copies(module, None)
}

/// The gradients of a module's parameters, by name; parameters without a gradient are left out.
pub fn gradients<M: Module>(module: &M, gradients: &GradientsParams) -> TensorMap {
    copies(module, Some(gradients))
}

struct Replace<F> {
    path: Path,
    with: F,
}

impl<F: FnMut(&str, &[usize]) -> Option<HostTensor>> ModuleMapper for Replace<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (name, transposed) = self.path.name();
        let mut shape = param.dims().to_vec();
        if transposed {
            shape.reverse();
        }
        match (self.with)(&name, &shape) {
            None => param,
            Some(tensor) => {
                let tensor = if transposed { tensor.transposed() } else { tensor };
                param.map(|old| {
                    let data = TensorData::new(tensor.values, tensor.shape);
                    Tensor::from_data(data, &old.device()).set_require_grad(old.is_require_grad())
                })
            }
        }
    }
}

/// Replaces parameters by what `with` returns for their name and shape; `None` keeps one as it is.
/// Identities of parameters, and whether they require gradients, stay.
///
/// # Panics
/// If a returned tensor has another shape than the one that was asked for.
pub fn replace<M: Module>(
    module: M,
    mut with: impl FnMut(&str, &[usize]) -> Option<HostTensor>,
) -> M {
    module.map(&mut Replace {
        path: Path::default(),
        with: |name: &str, shape: &[usize]| {
            let tensor = with(name, shape);
            if let Some(tensor) = &tensor {
                assert_eq!(tensor.shape, shape, "shape of `{name}`");
            }
            tensor
        },
    })
}

/// Loads every parameter of a module from the tensor of its name.
///
/// # Errors
/// All that does not fit: missing, unused and mis-shaped tensors, each by name.
pub fn load<M: Module>(module: M, mut tensors: TensorMap) -> Result<M, Vec<ParameterError>> {
    let mut errors = Vec::new();
    let module = replace(module, |name, expected| match tensors.remove(name) {
        Some(tensor) if tensor.shape == expected => Some(tensor),
        Some(tensor) => {
            errors.push(ParameterError::Shape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                got: tensor.shape,
            });
            None
        }
        None => {
            errors.push(ParameterError::Missing {
                name: name.to_owned(),
                expected: expected.to_vec(),
            });
            None
        }
    });
    errors.extend(
        tensors
            .into_iter()
            .map(|(name, tensor)| ParameterError::Unused { name, shape: tensor.shape }),
    );
    if errors.is_empty() { Ok(module) } else { Err(errors) }
}

/// A parameter without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The parameter's name.
    pub name: String,
    /// What gradients are found by.
    pub id: ParamId,
    /// Shape, with linear weights as `[out, in]`.
    pub shape: Vec<usize>,
    /// Whether Burn keeps the value transposed.
    pub transposed: bool,
}

/// A module's parameters in the order of their fields, without copying their values.
pub fn identities<M: Module>(module: &M) -> Vec<Identity> {
    struct Identities {
        path: Path,
        found: Vec<Identity>,
    }
    impl ModuleVisitor for Identities {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            self.path.enter(name, container_type);
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (name, transposed) = self.path.name();
            let mut shape = param.dims().to_vec();
            if transposed {
                shape.reverse();
            }
            self.found.push(Identity { name, id: param.id, shape, transposed });
        }
    }
    let mut visitor = Identities { path: Path::default(), found: Vec::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// Names and shapes of a module's parameters, without copying their values.
pub fn shapes<M: Module>(module: &M) -> BTreeMap<String, Vec<usize>> {
    identities(module).into_iter().map(|identity| (identity.name, identity.shape)).collect()
}
