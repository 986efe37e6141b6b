//! What the machine can do, to hold the engine's speed against: how fast it reads memory, and how
//! fast it multiplies.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use generator::{GenerateError, SamplingConfig, choose, guidance};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::{
    generator::Generator,
    kernels::{Fetch, Kernels},
    matrix::Precision,
    parallel::Pool,
    sequence::{POSITIONS, Step},
    tensors::LoadError,
};

/// Speeds of a machine with a pool of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes that all threads together copy in a second, each counted when it is read and when it
    /// is written.
    pub copy_bytes_per_second: f64,
    /// Bytes that all threads together read in a second.
    pub read_bytes_per_second: f64,
    /// Multiplications with addition that all threads together do in a second, by the instruction
    /// that products of this number format are made of, in registers alone.
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

/// Adds up a piece of memory, fast enough to wait for nothing but memory; what is read a little
/// later is fetched as products do it, or left to the processor.
fn sum(words: &[u64], fetches: bool) -> u64 {
    const LINES: usize = 4;
    let mut fetch = match fetches {
        true => Fetch::after(words, 2048, LINES),
        false => Fetch::NOTHING,
    };
    let mut lanes = [0u64; 32];
    for block in words.as_chunks::<32>().0 {
        fetch.step();
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Measures the machine, for less than two seconds: the best of several tries of each.
///
/// # Errors
/// If the environment asks for instructions that there are not, or there is no memory.
pub fn limits(pool: &Pool, precision: Precision) -> Result<Limits, LoadError> {
    /// Larger than the caches of most machines, in 8-byte words.
    const WORDS: usize = 1 << 25;
    const PIECE: usize = 1 << 15;
    const LEAST: Duration = Duration::from_millis(400);
    /// About a millisecond.
    const ROUNDS: usize = 1 << 18;
    let mut scratch = vec![0u64; pool.threads()];
    let mut from: Vec<u64> = (0..WORDS as u64).collect();
    let read = [false, true].map(|fetches| {
        best(LEAST, || {
            pool.pieces(&mut from, PIECE, &mut scratch, |_, piece, total| {
                *total = total.wrapping_add(sum(piece, fetches));
            });
        })
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

    let peaks = Kernels::chosen()?.peaks;
    let peak = match precision {
        Precision::F32 => peaks.f32,
        Precision::Bf16 => peaks.bf16,
        Precision::Int8 => peaks.int8,
        Precision::Int4 => peaks.int4,
    };
    let products = AtomicU64::new(0);
    let multiply = best(LEAST, || {
        products.store(0, Ordering::Relaxed);
        pool.run(pool.threads(), |_, _| {
            products.fetch_add(peak(black_box(ROUNDS)), Ordering::Relaxed);
        });
    });
    let bytes = (8 * WORDS) as f64;
    Ok(Limits {
        copy_bytes_per_second: bytes / copy,
        read_bytes_per_second: bytes / read[0].min(read[1]),
        products_per_second: products.into_inner() as f64 / multiply,
    })
}

/// The least time that a step must take on a machine of these limits.
///
/// It must read `bytes` and do `products`; where both are fully overlapped, the slower decides.
pub fn least_seconds(limits: &Limits, bytes: f64, products: f64) -> f64 {
    let reading = bytes / limits.read_bytes_per_second.max(limits.copy_bytes_per_second);
    reading.max(products / limits.products_per_second)
}

/// How one step of decoding was timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Seconds that the step took, choice of tokens included.
    pub seconds: f64,
    /// Bytes of weights, keys and values that it had to read.
    pub bytes: f64,
    /// Multiplications that it had to do.
    pub products: f64,
}

/// Times the steps of guided pictures at these positions of the sequence; between them the cache
/// is taken to be filled, whatever stands in it. Without the cache, a step computes all positions
/// so far again.
///
/// # Errors
/// If there is no memory for so many pictures.
///
/// # Panics
/// If a position is beyond the sequence.
pub fn steps(
    generator: &Generator,
    pictures: usize,
    positions: &[usize],
    cached: bool,
) -> Result<Vec<StepTime>, GenerateError> {
    let config = generator.config();
    let rows = 2 * pictures;
    let ids: Vec<Vec<usize>> = (0..rows)
        .map(|row| (0..config.layout.len()).map(|at| (row + 7 * at) % config.codes).collect())
        .collect();
    let mut session = generator.session(rows)?;
    let mut chosen = vec![None; pictures];
    let mut logits =
        vec![[vec![0.0; config.codes], vec![0.0; config.codes]]; generator.pool().threads()];
    let sampling = SamplingConfig::default();
    let mut step = |position: usize| {
        let started = Instant::now();
        let first = if cached { position } else { 0 };
        for start in (first..=position).step_by(POSITIONS) {
            let end = (start + POSITIONS).min(position + 1);
            let logits = usize::from(end > position);
            let step = |slot: usize| {
                let ids = &ids[slot][start..end];
                Step { slot, condition: 1, start, ids, logits }
            };
            let steps: Vec<Step<'_>> = (0..rows).map(step).collect();
            generator.step(&mut session, &steps);
        }
        generator.pool().pieces(&mut chosen, 1, &mut logits, |picture, chosen, [one, two]| {
            session.logits(2 * picture, one);
            session.logits(2 * picture + 1, two);
            guidance::guide(one, two, 2.0);
            let mut noise = Noise::new(0, Purpose::Sampling, position as u64, picture as u64);
            chosen[0] = choose(one, &sampling, &mut noise);
        });
        let seconds = started.elapsed().as_secs_f64();
        let computed = (position + 1 - first) as f64 * rows as f64;
        let seen = rows as f64 * (position + 1) as f64;
        let pairs = if cached { seen } else { seen * (position + 2) as f64 / 2.0 };
        StepTime {
            seconds,
            bytes: generator.streamed_bytes() as f64 + seen * generator.position_bytes() as f64,
            products: computed * generator.multiplications() as f64
                + 2.0 * pairs * (config.width * config.layers) as f64,
        }
    };
    // Memory is touched for the first time before the clock matters.
    for position in [0, positions.last().copied().unwrap_or(0)] {
        step(position);
    }
    Ok(positions.iter().map(|&position| step(position)).collect())
}

/// What a generator predicts of a picture that is there already: its logits before each token,
/// given the class and all tokens before, without guidance.
///
/// # Shapes
/// `tokens [count]`, at most a whole sequence → `[count, codes]`.
///
/// # Errors
/// If the class is out of range, or there is no memory.
///
/// # Panics
/// If there are too many tokens, or one is no code.
pub fn teacher_forced(
    generator: &Generator,
    class: usize,
    tokens: &[CodebookIndex],
) -> Result<Vec<f32>, GenerateError> {
    let config = generator.config();
    let mut ids = vec![config.vocabulary().class(class)?];
    ids.extend(tokens.iter().map(|&token| usize::from(token)));
    // The last token predicts nothing.
    ids.truncate(tokens.len());
    let mut session = generator.session(1)?;
    let mut logits = vec![0.0; tokens.len() * config.codes];
    for (piece, ids) in ids.chunks(POSITIONS).enumerate() {
        let start = piece * POSITIONS;
        let step = Step { slot: 0, condition: 1, start, ids, logits: ids.len() };
        generator.step(&mut session, &[step]);
        let logits = &mut logits[start * config.codes..];
        for (row, logits) in logits.chunks_exact_mut(config.codes).take(ids.len()).enumerate() {
            session.logits(row, logits);
        }
    }
    Ok(logits)
}
