//! Features of Inception v3, weights at random: `cargo bench -p alitok-metrics --bench inception`.
//! `benches/peers/metrics_speed.py` takes the same of torch-fidelity.

use burn::tensor::{Device, Tensor, TensorData};
use divan::{Bencher, black_box};
use files::{HostTensor, ParameterError, TensorMap};
use metrics::networks::{Inception, InceptionConfig};

fn main() {
    divan::main();
}

/// Weights of about the size that keeps numbers in range from layer to layer.
fn network() -> Inception {
    let device = Device::flex();
    let config = InceptionConfig::published();
    let problems = match config.load(TensorMap::new(), &device) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems,
    };
    let mut bits = 1_u64;
    let mut uniform = || {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 40) as f32 / (1 << 24) as f32
    };
    let mut tensors = TensorMap::new();
    for problem in problems {
        let ParameterError::Missing { name, expected } = problem else { continue };
        let inputs: usize = expected[1..].iter().product();
        let (low, high) = match name.rsplit('.').next() {
            Some("running_var") => (0.5, 1.5),
            _ if expected.len() > 1 => {
                (-(3.0 / inputs as f32).sqrt(), (6.0 / inputs as f32).sqrt())
            }
            _ => (0.0, 1.0),
        };
        let count = expected.iter().product();
        let values = (0..count).map(|_| low + (high - low) * uniform()).collect();
        tensors.insert(name, HostTensor::new(expected, values));
    }
    config.load(tensors, &device).expect("all tensors have their shapes")
}

/// Of this many pictures of 256 × 256 pixels at a time; 8 are what the program takes.
#[divan::bench(args = [8, 64], sample_count = 3, sample_size = 1)]
fn features(bencher: Bencher<'_, '_>, batch: usize) {
    let network = network();
    let values = (0..batch * 3 * 256 * 256).map(|at| (at * 31 % 256) as f32).collect::<Vec<_>>();
    let data = TensorData::new(values, [batch, 3, 256, 256]);
    let images = Tensor::<4>::from_data(data, &Device::flex());
    bencher
        .counter(divan::counter::ItemsCount::new(batch))
        .bench_local(|| network.features(black_box(images.clone())).logits.into_data());
}
