//! What the machine can do, to hold the engine's speed against: how fast it reads memory, and how
//! fast it multiplies.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use crate::{
    kernels::Kernels,
    matrix::{Activations, Finish, Matrix, Outputs, Precision},
    parallel::Pool,
};

/// Speeds of a machine with a pool of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes that all threads together copy in a second, each counted when it is read and when it
    /// is written.
    pub copy_bytes_per_second: f64,
    /// Bytes that all threads together read in a second.
    pub read_bytes_per_second: f64,
    /// Multiplications with addition that all threads together do in a second, in a product of
    /// matrices that stay in the cache.
    pub products_per_second: f64,
}

/// Repeats `work` for at least this time and returns the fewest seconds that one took.
fn best(least: Duration, mut work: impl FnMut()) -> f64 {
    let started = Instant::now();
    let mut best = f64::INFINITY;
    while started.elapsed() < least {
        let before = Instant::now();
        work();
        best = best.min(before.elapsed().as_secs_f64());
    }
    best
}

/// Adds up a piece of memory, fast enough to wait for nothing but memory.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0u64; 32];
    for block in words.as_chunks::<32>().0 {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Measures the machine, for about a second: the best of several tries of each.
///
/// # Errors
/// If there is no memory.
pub fn limits(pool: &Pool, precision: Precision) -> io::Result<Limits> {
    /// Larger than the caches of most machines, in 8-byte words.
    const WORDS: usize = 1 << 25;
    const PIECE: usize = 1 << 15;
    const LEAST: Duration = Duration::from_millis(400);
    let mut scratch = vec![0u64; pool.threads()];
    let mut from: Vec<u64> = (0..WORDS as u64).collect();
    let read = best(LEAST, || {
        pool.pieces(&mut from, PIECE, &mut scratch, |_, piece, total| {
            *total = total.wrapping_add(sum(piece));
        });
    });
    black_box(&scratch);
    // Halves of one piece of memory, so that each unit reads and writes its own.
    let copy = best(LEAST, || {
        pool.pieces(&mut from, 2 * PIECE, &mut scratch, |_, piece, _| {
            let (from, to) = piece.split_at_mut(PIECE);
            to.copy_from_slice(from);
        });
    });
    black_box(&from);
    drop(from);

    let (rows, depth, outputs) = (192, 768, 768);
    let weights: Vec<f32> = (0..depth * outputs).map(|index| (index % 7) as f32 - 3.0).collect();
    let matrix = Matrix::pack(Kernels::detect(), precision, &weights, depth)?;
    let mut activations = Activations::new(pool);
    activations.set(pool, &matrix, rows, |row, out| out.fill(row as f32 * 0.01));
    let mut out = Outputs::default();
    let product =
        best(LEAST, || matrix.product(pool, &activations, Finish::Plain, black_box(&mut out)));
    let bytes = (8 * WORDS) as f64;
    Ok(Limits {
        copy_bytes_per_second: bytes / copy,
        read_bytes_per_second: bytes / read,
        products_per_second: (rows * depth * outputs) as f64 / product,
    })
}

/// The least time that a step must take on a machine of these limits.
///
/// It must read `bytes` and do `products`; where both are fully overlapped, the slower decides.
pub fn least_seconds(limits: &Limits, bytes: f64, products: f64) -> f64 {
    let reading = bytes / limits.read_bytes_per_second.max(limits.copy_bytes_per_second);
    reading.max(products / limits.products_per_second)
}
