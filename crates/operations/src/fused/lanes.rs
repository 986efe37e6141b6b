//! Arithmetic on rows of numbers that the compiler turns into vector instructions.
//!
//! Functions here have no branches and no fused multiply-add, so that every instruction set
//! gives the same bits. Sums run in a fixed order: one partial sum per lane, then the lanes in
//! halves.

use numerics::{add, clamp, exp, fold, fold_pairs, greater, map};

/// No fused multiply-add.
pub(super) const FUSED: bool = false;

/// The nearest number to x + bias between two bounds, by rows as long as the bias.
#[inline(always)]
pub(super) fn shifted_clamp(rows: &mut [f32], bias: &[f32], low: f32, high: f32) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = clamp(*value + bias, low, high);
        }
    }
}

/// Sums `f` over a row.
#[inline(always)]
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    fold(row, 0.0, |sum, value| sum + f(value), add)
}

/// Sums `f` over pairs of two rows.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    fold_pairs(a, b, 0.0, |sum, a, b| sum + f(a, b), add)
}

/// Softmax of `scale · row`, in place.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], scale: f32) {
    let highest = fold(row, f32::NEG_INFINITY, |a, b| greater(a, b * scale), greater);
    map(row, |score| {
        let score = score * scale - highest;
        // Minus infinity is a mask: exactly zero, where `exp` ends at 1.6e-38.
        if score < -87.0 { 0.0 } else { exp::<FUSED>(score) }
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
    let highest = fold(row, f32::NEG_INFINITY, greater, greater);
    let total = sum(row, |score| exp::<FUSED>(score - highest)).ln();
    for score in row {
        *score = (*score - highest) - total;
    }
}

/// Turns the gradient of [`log_softmax`]'s result into that of its argument, in place.
#[inline(always)]
pub(super) fn log_softmax_backward(result: &[f32], gradient: &mut [f32]) {
    let total = sum(gradient, |g| g);
    for (g, result) in gradient.iter_mut().zip(result) {
        *g -= exp::<FUSED>(*result) * total;
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
