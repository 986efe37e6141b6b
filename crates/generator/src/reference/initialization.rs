//! Initial values of a generator's parameters, as a pure function of seed and name.

use files::HostTensor;
use operations::parameters::replace;
use rayon::prelude::*;
use tokens::noise::Noise;

use crate::reference::model::Generator;

/// Standard deviation of weights and embeddings (released code, `_init_weights`).
const DEVIATION: f64 = 0.02;

/// Numbers that share one address of noise; the parts of a large matrix are drawn in parallel.
const PART: usize = 1 << 16;

/// Normal of deviation 0.02 for linear layers and the embedding, zero biases, ones in norms, and
/// a zero output layer, so that an untrained model finds all codes equally likely.
pub(crate) fn initialize(model: Generator, seed: u64) -> Generator {
    replace(model, |name, shape| {
        let count = shape.iter().product();
        let mut values = vec![0.0; count];
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        if parent.ends_with("norm") {
            values.fill(1.0);
        } else if last == "weight" && parent != "output" {
            values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
                let mut noise = Noise::of_parameter(seed, name, part as u64);
                values.fill_with(|| (DEVIATION * noise.normal()) as f32);
            });
        }
        Some(HostTensor::new(shape, values))
    })
}
