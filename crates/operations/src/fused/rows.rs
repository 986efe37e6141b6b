//! Arithmetic on rows of numbers that the compiler turns into vector instructions.
//!
//! Functions here have no branches and no fused multiply-add, so that every instruction set
//! gives the same bits. Sums run in a fixed order: one partial sum per lane, then the lanes in
//! halves.

use numerics::{add, fold, fold_pairs};

/// No fused multiply-add.
pub(super) const FUSED: bool = false;

/// Sums `f` over a row.
#[inline(always)]
pub(super) fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    fold(row, 0.0, |sum, value| sum + f(value), add)
}

/// Sums `f` over pairs of two rows.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    fold_pairs(a, b, 0.0, |sum, a, b| sum + f(a, b), add)
}
