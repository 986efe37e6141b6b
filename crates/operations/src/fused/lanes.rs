//! Arithmetic on rows of numbers that the compiler turns into vector instructions.
//!
//! Functions here have no branches and no fused multiply-add, so that every instruction set
//! gives the same bits. Sums run in a fixed order: one partial sum per lane, then the lanes in
//! halves.

use macerator::{AutoArch, Simd, WithSimd};

/// How many numbers are worked on at a time; the widest registers (AVX-512) hold as many.
const LANES: usize = 16;

struct Work<F>(F);

impl<F: FnOnce()> WithSimd for Work<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        (self.0)();
    }
}

/// Runs a loop with the widest vector instructions of this machine.
#[inline]
pub(super) fn vectorized(work: impl FnOnce()) {
    AutoArch::new().dispatch(Work(work));
}

/// eˣ to one unit in the last place, for −87 ≤ x ≤ 88; the ends are continued as constants.
///
/// Reduction by multiples of ln 2 in two parts and a polynomial of degree 6, with the constants
/// of `expf` in Moshier's Cephes library.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // 1.5 · 2²³: adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // Written so that NaN stays NaN.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * (355.0 / 512.0) - whole * -2.121_944_4e-4;
    let mut series = 1.987_569_1e-4;
    series = series * rest + 1.398_199_9e-3;
    series = series * rest + 8.333_452e-3;
    series = series * rest + 4.166_579_6e-2;
    series = series * rest + 1.666_666_5e-1;
    series = series * rest + 0.5;
    let fraction = series * rest * rest + rest + 1.0;
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// The bits of the nearest bfloat16, of two equally near ones the even one; NaN stays NaN.
#[inline(always)]
pub(super) fn round_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    if x.is_nan() { quiet } else { rounded }
}

/// The nearest number between two bounds; NaN stays NaN.
#[inline(always)]
pub(super) fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// The nearest number to x + bias between two bounds, by rows as long as the bias.
#[inline(always)]
pub(super) fn shifted_clamp(rows: &mut [f32], bias: &[f32], low: f32, high: f32) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = clamp(*value + bias, low, high);
        }
    }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// exp(−x²/2) and the upper tail of the standard normal distribution at |x|, 1 − Φ(|x|).
///
/// The tail is the exponential times a polynomial in 1 / (1 + 0.3 |x|) (the form of Abramowitz
/// and Stegun 7.1.26), fitted anew for least relative error: 1.3e-7 up to |x| = 13.5.
#[inline(always)]
fn normal_tail(x: f32) -> (f32, f32) {
    let magnitude = x.abs();
    let power = exp(-0.5 * magnitude * magnitude);
    let t = 1.0 / (1.0 + 0.3 * magnitude);
    let mut series = 0.035_931_956;
    series = series * t - 0.158_276_84;
    series = series * t + 0.208_207_95;
    series = series * t - 0.055_394_977;
    series = series * t + 0.129_469_74;
    series = series * t + 0.099_637_344;
    series = series * t + 0.120_798_38;
    series = series * t + 0.119_626_39;
    (power, series * t * power)
}

/// x Φ(x), within 3e-7.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let (_, tail) = normal_tail(x);
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - x.abs() * tail
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x).
#[inline(always)]
pub(super) fn gelu_derivative(x: f32) -> f32 {
    const DENSITY_AT_ZERO: f32 = 0.398_942_3; // 1 / √(2π)
    let (power, tail) = normal_tail(x);
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    distribution + x * (DENSITY_AT_ZERO * power)
}

/// Folds `row` into one partial result per lane, then these into one, in fixed order.
#[inline(always)]
fn fold(
    row: &[f32],
    start: f32,
    each: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, tail) = row.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = each(lanes[lane], block[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = each(*lane, value);
    }
    join_lanes(lanes, join)
}

/// Sums `f` over a row.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    fold(row, 0.0, |sum, value| sum + f(value), |a, b| a + b)
}

/// Sums `f` over pairs of two rows.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a_blocks, a_tail) = a.as_chunks::<LANES>();
    let (b_blocks, b_tail) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane += f(a, b);
    }
    join_lanes(lanes, |a, b| a + b)
}

#[inline(always)]
fn join_lanes(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Replaces each value by `f` of it, and the last ones, which fill no block, with padding, so
/// that no value is worked on alone.
#[inline(always)]
fn map(row: &mut [f32], f: impl Fn(f32) -> f32) {
    let (blocks, tail) = row.as_chunks_mut::<LANES>();
    for block in blocks {
        for value in block {
            *value = f(*value);
        }
    }
    if !tail.is_empty() {
        let mut block = [0.0; LANES];
        block[..tail.len()].copy_from_slice(tail);
        for value in &mut block {
            *value = f(*value);
        }
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

/// Softmax of `scale · row`, in place.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], scale: f32) {
    let greater = |a, b| if b > a { b } else { a };
    let highest = fold(row, f32::NEG_INFINITY, |a, b| greater(a, b * scale), greater);
    map(row, |score| {
        let score = score * scale - highest;
        // Minus infinity is a mask: exactly zero, where `exp` ends at 1.6e-38.
        if score < -87.0 { 0.0 } else { exp(score) }
    });
    let total = sum(row, |probability| probability);
    let inverse = 1.0 / total;
    for probability in row {
        *probability *= inverse;
    }
}

/// Logarithm of the softmax of a row, in place.
#[inline(always)]
pub(super) fn log_softmax(row: &mut [f32]) {
    let greater = |a, b| if b > a { b } else { a };
    let highest = fold(row, f32::NEG_INFINITY, greater, greater);
    let total = sum(row, |score| exp(score - highest)).ln();
    for score in row {
        *score = (*score - highest) - total;
    }
}

/// Turns the gradient of [`log_softmax`]'s result into that of its argument, in place.
#[inline(always)]
pub(super) fn log_softmax_backward(result: &[f32], gradient: &mut [f32]) {
    let total = sum(gradient, |g| g);
    for (g, result) in gradient.iter_mut().zip(result) {
        *g -= exp(*result) * total;
    }
}

/// Sum of the squares of a row.
#[inline(always)]
pub(super) fn square_sum(row: &[f32]) -> f32 {
    sum(row, |x| x * x)
}

/// Turns the gradient of [`softmax`]'s result into that of its argument, in place.
#[inline(always)]
pub(super) fn softmax_backward(probabilities: &[f32], gradient: &mut [f32], scale: f32) {
    let mean = sum_pairs(probabilities, gradient, |p, g| p * g);
    for (g, p) in gradient.iter_mut().zip(probabilities) {
        *g = scale * *p * (*g - mean);
    }
}

/// What a row is moved and scaled by to have mean 0 (if `centered`) and mean square 1.
#[derive(Clone, Copy)]
pub(super) struct Statistics {
    mean: f32,
    inverse_deviation: f32,
}

impl Statistics {
    #[inline(always)]
    pub(super) fn of(row: &[f32], centered: bool, epsilon: f32) -> Self {
        let per_value = 1.0 / row.len() as f32;
        let mean = if centered { sum(row, |x| x) * per_value } else { 0.0 };
        let variance = sum(row, |x| (x - mean) * (x - mean)) * per_value;
        Self { mean, inverse_deviation: 1.0 / (variance + epsilon).sqrt() }
    }

    #[inline(always)]
    pub(super) fn normalize(self, x: f32) -> f32 {
        (x - self.mean) * self.inverse_deviation
    }
}

/// Turns the gradient of a normalized and scaled row into that of the row, in place; adds what
/// belongs to scale and shift to theirs.
#[inline(always)]
pub(super) fn normalize_backward(
    row: &[f32],
    scale: &[f32],
    statistics: Statistics,
    centered: bool,
    gradient: &mut [f32],
    for_scale: &mut [f32],
    for_shift: &mut [f32],
) {
    for ((g, &x), total) in gradient.iter().zip(row).zip(for_scale) {
        *total += g * statistics.normalize(x);
    }
    for (g, total) in gradient.iter().zip(for_shift) {
        *total += g;
    }
    for (g, scale) in gradient.iter_mut().zip(scale) {
        *g *= scale;
    }
    let per_value = 1.0 / row.len() as f32;
    let mean = if centered { sum(gradient, |g| g) * per_value } else { 0.0 };
    let slope = sum_pairs(gradient, row, |g, x| g * statistics.normalize(x)) * per_value;
    for (g, &x) in gradient.iter_mut().zip(row) {
        let normalized = statistics.normalize(x);
        *g = (*g - mean - normalized * slope) * statistics.inverse_deviation;
    }
}
