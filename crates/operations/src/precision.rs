//! Matrix products in less than single precision, with parameters in single precision.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{FloatDType, Tensor},
};

use crate::parameters::Path;

/// The same module with the weights of its linear layers in bfloat16, so that
/// [`fused::linear`](crate::fused::linear) multiplies in it. Everything else keeps single
/// precision: biases, embeddings, norms, positions, codebooks.
///
/// On a differentiable device the weights stay derived from the old ones: gradients reach the
/// parameters of the module that was given, and have single precision there.
pub fn in_bf16<M: Module>(module: M) -> M {
    module.map(&mut Lower::default())
}

/// Casts the weights of linear layers.
#[derive(Default)]
struct Lower {
    path: Path,
}

impl ModuleMapper for Lower {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, is_linear_weight) = self.path.name();
        if is_linear_weight { param.map(|weight| weight.cast(FloatDType::BF16)) } else { param }
    }
}
