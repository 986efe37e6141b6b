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
    language_model::LanguageModel,
    matrix::Precision,
    parallel::Pool,
    sequence::{POSITIONS, SequenceModel, Step},
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

/// What a step of a model costs.
pub trait Cost: SequenceModel {
    /// Bytes of the weights that a step reads, however many positions it has.
    fn streamed_bytes(&self) -> usize;
    /// Bytes of keys and values of one position of one sequence.
    fn position_bytes(&self) -> usize;
    /// Multiplications of one position with the weights.
    fn multiplications(&self) -> usize;
    /// Multiplications of one position with what one position before it left.
    fn pair_multiplications(&self) -> usize;
}

impl Cost for Generator {
    fn streamed_bytes(&self) -> usize {
        Generator::streamed_bytes(self)
    }

    fn position_bytes(&self) -> usize {
        Generator::position_bytes(self)
    }

    fn multiplications(&self) -> usize {
        Generator::multiplications(self)
    }

    fn pair_multiplications(&self) -> usize {
        2 * self.config().width * self.config().layers
    }
}

impl Cost for LanguageModel {
    fn streamed_bytes(&self) -> usize {
        LanguageModel::streamed_bytes(self)
    }

    fn position_bytes(&self) -> usize {
        LanguageModel::position_bytes(self)
    }

    fn multiplications(&self) -> usize {
        LanguageModel::multiplications(self)
    }

    fn pair_multiplications(&self) -> usize {
        2 * self.config().width * self.config().layers
    }
}

/// Times the steps of guided pictures at these positions of the sequence, after conditions of so many
/// ids; between them the cache is taken to be filled, whatever stands in it. Without the cache, a step
/// computes all positions so far again.
///
/// # Errors
/// If there is no memory for so many pictures, or the device fails.
///
/// # Panics
/// If a position is beyond the sequence.
pub fn steps<M: Cost>(
    model: &M,
    condition: usize,
    pictures: usize,
    positions: &[usize],
    cached: bool,
) -> Result<Vec<StepTime>, GenerateError> {
    let (layout, codes) = (model.layout(), model.codes());
    let rows = 2 * pictures;
    let ids = ids(model, rows, condition + layout.len());
    let mut session = model.session(condition, rows)?;
    let mut chosen = vec![None; pictures];
    let mut logits = vec![[vec![0.0; codes], vec![0.0; codes]]; model.pool().threads()];
    let sampling = SamplingConfig::default();
    let mut step = |token: usize| -> Result<StepTime, GenerateError> {
        // The last id that is read to choose this token.
        let position = condition - 1 + token;
        let started = Instant::now();
        let first = if cached { position } else { 0 };
        for start in (first..=position).step_by(POSITIONS) {
            let end = (start + POSITIONS).min(position + 1);
            let logits = usize::from(end > position);
            let step = |slot: usize| {
                let ids = &ids[slot][start..end];
                Step { slot, condition, start, ids, logits }
            };
            let steps: Vec<Step<'_>> = (0..rows).map(step).collect();
            model.step(&mut session, &steps)?;
        }
        model.pool().pieces(&mut chosen, 1, &mut logits, |picture, chosen, [one, two]| {
            model.logits(&session, 2 * picture, one);
            model.logits(&session, 2 * picture + 1, two);
            guidance::guide(one, two, 2.0);
            let mut noise = Noise::new(0, Purpose::Sampling, token as u64, picture as u64);
            chosen[0] = choose(one, &sampling, &mut noise);
        });
        let seconds = started.elapsed().as_secs_f64();
        Ok(cost(model, seconds, rows, (first, position + 1)))
    };
    // Memory is touched for the first time before the clock matters.
    for position in [0, positions.last().copied().unwrap_or(0)] {
        step(position)?;
    }
    positions.iter().map(|&position| step(position)).collect()
}

/// The fastest of a few times that so many conditions of so many ids are read, in as few steps as the
/// model allows.
///
/// # Errors
/// If there is no memory for so many, or the device fails.
pub fn prefill<M: Cost>(
    model: &M,
    condition: usize,
    sequences: usize,
) -> Result<StepTime, GenerateError> {
    const ROUNDS: usize = 6;
    let ids = ids(model, sequences, condition);
    let mut session = model.session(condition, sequences)?;
    let most = model.most_positions();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for start in (0..condition).step_by(most) {
            let end = (start + most).min(condition);
            let logits = usize::from(end == condition);
            let step =
                |slot: usize| Step { slot, condition, start, ids: &ids[slot][start..end], logits };
            model.step(&mut session, &(0..sequences).map(step).collect::<Vec<_>>())?;
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(cost(model, best, sequences, (0, condition)))
}

/// Ids that every model has, of each sequence others.
fn ids<M: Cost>(model: &M, sequences: usize, count: usize) -> Vec<Vec<usize>> {
    let of = |row: usize| (0..count).map(|at| (row + 7 * at) % model.codes()).collect();
    (0..sequences).map(of).collect()
}

/// What it costs each of `rows` sequences to read the positions from `first` to `end`.
fn cost<M: Cost>(model: &M, seconds: f64, rows: usize, (first, end): (usize, usize)) -> StepTime {
    let (rows, first, end) = (rows as f64, first as f64, end as f64);
    // Position p sees p + 1 positions.
    let pairs = (end * (end + 1.0) - first * (first + 1.0)) / 2.0;
    StepTime {
        seconds,
        bytes: model.streamed_bytes() as f64 + rows * end * model.position_bytes() as f64,
        products: rows
            * ((end - first) * model.multiplications() as f64
                + pairs * model.pair_multiplications() as f64),
    }
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
