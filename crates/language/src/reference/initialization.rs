//! Initial values of a language model's parameters, as a pure function of seed and name.

use burn::module::Module;
use files::HostTensor;
use operations::parameters::replace;
use tokens::noise::Noise;

/// Standard deviation of weights and embeddings (`initializer_range` of Qwen2).
const DEVIATION: f64 = 0.02;

/// Normal weights of deviation 0.02, zero biases, and ones in norms.
pub(crate) fn initialize<M: Module>(module: M, seed: u64) -> M {
    replace(module, |name, shape| {
        let mut values = vec![0.0; shape.iter().product()];
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        if parent.ends_with("norm") {
            values.fill(1.0);
        } else if last == "weight" {
            let mut noise = Noise::of_parameter(seed, name, 0);
            values.fill_with(|| (DEVIATION * noise.normal()) as f32);
        }
        Some(HostTensor::new(shape, values))
    })
}
