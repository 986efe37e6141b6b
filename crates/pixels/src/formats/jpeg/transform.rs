//! From coefficients to samples: libjpeg's accurate integer transform (`jidctint.c`), to the bit.
//!
//! Two passes of the one-dimensional transform of Loeffler, Ligtenberg and Moschytz (1989), over
//! columns and over rows, in fixed point with 13 fractional bits; two more are kept in between.

// Rows and columns by number read like the formulas, and become vectors.
#![allow(clippy::needless_range_loop)]

use numerics::Kernel;

use super::Block;

const CONSTANT_BITS: u32 = 13;
const KEPT_BITS: u32 = 2;

/// Makes the samples of rows of `across` blocks each.
pub(super) struct Inverse<'a> {
    pub(super) blocks: &'a [Block],
    pub(super) across: usize,
    pub(super) quantizer: &'a [u16; 64],
    /// `[rows, 8, across, 8]`
    pub(super) samples: &'a mut [u8],
}

impl Kernel for Inverse<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { blocks, across, quantizer, samples } = self;
        let stride = 8 * across;
        let rows = samples.chunks_exact_mut(8 * stride).zip(blocks.chunks_exact(across));
        for (samples, blocks) in rows {
            for (index, block) in blocks.iter().enumerate() {
                inverse_block(block, quantizer, &mut samples[8 * index..], stride);
            }
        }
    }
}

#[inline(always)]
fn inverse_block(block: &Block, quantizer: &[u16; 64], samples: &mut [u8], stride: usize) {
    // Most blocks of even colour are nothing but their mean.
    let mut others = 0;
    for &value in &block[1..] {
        others |= value;
    }
    let mut levels = [[0u8; 8]; 8];
    if others == 0 {
        let mean = i32::from(block[0]).wrapping_mul(i32::from(quantizer[0])) << KEPT_BITS;
        levels = [[to_sample(mean.wrapping_add(1 << 4) >> 5); 8]; 8];
    } else {
        let mut values = [[0i32; 8]; 8];
        for row in 0..8 {
            for column in 0..8 {
                let index = 8 * row + column;
                values[row][column] =
                    i32::from(block[index]).wrapping_mul(i32::from(quantizer[index]));
            }
        }
        columns::<{ CONSTANT_BITS - KEPT_BITS }>(&mut values);
        transpose(&mut values);
        columns::<{ CONSTANT_BITS + KEPT_BITS + 3 }>(&mut values);
        transpose(&mut values);
        for row in 0..8 {
            for column in 0..8 {
                levels[row][column] = to_sample(values[row][column]);
            }
        }
    }
    for row in 0..8 {
        samples[row * stride..][..8].copy_from_slice(&levels[row]);
    }
}

/// Samples are stored around zero.
#[inline(always)]
fn to_sample(value: i32) -> u8 {
    value.wrapping_add(128).clamp(0, 255) as u8
}

/// Exchanges rows and columns: three times the rows of both halves are shuffled into each other,
/// which vector instructions can do.
#[inline(always)]
fn transpose(values: &mut [[i32; 8]; 8]) {
    for _ in 0..3 {
        let source = *values;
        for row in 0..4 {
            for column in 0..4 {
                values[2 * row][2 * column] = source[row][column];
                values[2 * row][2 * column + 1] = source[row + 4][column];
                values[2 * row + 1][2 * column] = source[row][column + 4];
                values[2 * row + 1][2 * column + 1] = source[row + 4][column + 4];
            }
        }
    }
}

/// The one-dimensional transform of each column, rounded by `SHIFT` bits.
#[inline(always)]
fn columns<const SHIFT: u32>(values: &mut [[i32; 8]; 8]) {
    // Wrapping, because a damaged file can hold any coefficients.
    let times = |a: i32, b: i32| a.wrapping_mul(b);
    let add = |a: i32, b: i32| a.wrapping_add(b);
    let sub = |a: i32, b: i32| a.wrapping_sub(b);
    for column in 0..8 {
        let at = |row: usize| values[row][column];
        // The even part.
        let z1 = times(add(at(2), at(6)), 4433);
        let t2 = sub(z1, times(at(6), 15137));
        let t3 = add(z1, times(at(2), 6270));
        let t0 = add(at(0), at(4)) << CONSTANT_BITS;
        let t1 = sub(at(0), at(4)) << CONSTANT_BITS;
        let (e0, e3) = (add(t0, t3), sub(t0, t3));
        let (e1, e2) = (add(t1, t2), sub(t1, t2));
        // The odd part.
        let (t0, t1, t2, t3) = (at(7), at(5), at(3), at(1));
        let z5 = times(add(add(t0, t2), add(t1, t3)), 9633);
        let z1 = times(add(t0, t3), -7373);
        let z2 = times(add(t1, t2), -20995);
        let z3 = add(times(add(t0, t2), -16069), z5);
        let z4 = add(times(add(t1, t3), -3196), z5);
        let o0 = add(times(t0, 2446), add(z1, z3));
        let o1 = add(times(t1, 16819), add(z2, z4));
        let o2 = add(times(t2, 25172), add(z2, z3));
        let o3 = add(times(t3, 12299), add(z1, z4));

        let round = |value: i32| value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT;
        for (row, even, odd) in [(0, e0, o3), (1, e1, o2), (2, e2, o1), (3, e3, o0)] {
            values[row][column] = round(add(even, odd));
            values[7 - row][column] = round(sub(even, odd));
        }
    }
}
