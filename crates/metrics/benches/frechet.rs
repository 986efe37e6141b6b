//! FID of 50 000 × 2048 features: `cargo bench -p alitok-metrics --bench frechet`. The same with NumPy
//! and SciPy: `numpy.mean`, `numpy.cov`, and `scipy.linalg.sqrtm` of the product of covariances.

use divan::{Bencher, black_box};
use metrics::{FeatureMatrix, Gaussian, Moments, frechet_distance};

fn main() {
    divan::main();
}

const ROWS: usize = 50_000;
const WIDTH: usize = 2048;

/// Correlated rows, not negative as Inception's: (row, column) by a hash, mixed with a few factors.
fn rows(first: usize, count: usize, seed: u64) -> FeatureMatrix {
    let hash = |a: usize, b: usize| {
        let mut bits = (a as u64) << 32 ^ (b as u64) ^ (seed << 56);
        for _ in 0..2 {
            bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        (bits >> 40) as f32 / (1 << 24) as f32
    };
    let values = (first..first + count).flat_map(|row| {
        (0..WIDTH).map(move |column| hash(row, column) * (0.2 + hash(row, column % 64 + WIDTH)))
    });
    FeatureMatrix::new(WIDTH, values.collect()).expect("whole rows of finite numbers")
}

fn gaussian(seed: u64, rows_in_all: usize) -> Gaussian {
    let mut moments = Moments::new(WIDTH);
    for first in (0..rows_in_all).step_by(1000) {
        moments.add(first as u64, &rows(first, 1000, seed)).expect("rows come once");
    }
    moments.gaussian().expect("there are rows")
}

#[divan::bench(sample_count = 1, sample_size = 1)]
fn moments_of_50_000(bencher: Bencher<'_, '_>) {
    let part = rows(0, 1000, 1);
    bencher.bench_local(|| {
        let mut moments = Moments::new(WIDTH);
        for first in (0..ROWS).step_by(1000) {
            moments.add(first as u64, black_box(&part)).expect("rows come once");
        }
        moments.gaussian()
    });
}

#[divan::bench(sample_count = 1, sample_size = 1)]
fn distance_of_2048_features(bencher: Bencher<'_, '_>) {
    let (first, second) = (gaussian(1, 6000), gaussian(2, 6000));
    bencher.bench_local(|| frechet_distance(black_box(&first), black_box(&second)));
}
