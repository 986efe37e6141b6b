//! Kernels for the 128-bit instructions of WebAssembly: 4 numbers in a register.
//!
//! There is no instruction that multiplies and adds in one rounding (that of relaxed SIMD rounds as
//! the machine likes), so all results have the bits of [`portable`]. A module cannot ask what the
//! machine has: this table is compiled where the whole program is compiled for these instructions.
//!
//! Browsers on x86 keep v128 in 16 registers, so a tile is two rows by 16 outputs at a time: 8
//! registers of sums, 2 of activations, and those in passing.
#![allow(unsafe_code)] // loads and stores; every entry checks its slices
#![allow(clippy::needless_range_loop)] // registers of several arrays by row and vector

use std::arch::wasm32::*;

use super::{
    Bf16Product, Fetch, Int8Panel, Kernels, RowScale, Rows, check_int8, check_tile,
    checked_products, portable, rows, with_rows,
};

const LANES: usize = 4;
const VECTORS: usize = 4;
const WIDTH: usize = VECTORS * LANES;

/// Rows that are computed together.
const ROWS: usize = 2;

pub(super) static KERNELS: Kernels = Kernels {
    name: "simd128",
    choice: "simd128",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    widening_bf16: None,
    narrow_pairs: false,
    fetch_groups: 1,
    product_int8,
    // Panels are as wide as the portable ones.
    product_int4: portable::product_int4::<false>,
    // The compiler makes them of these instructions, too.
    rows: rows::PORTABLE,
    peaks: portable::peaks::<false>(),
};

checked_products!(WIDTH);

/// Calls `$pair::<R>` for the rows from `$first`, two at a time.
macro_rules! in_pairs {
    ($rows:ident, |$first:ident| $kernel:ident($($argument:expr),*)) => {
        for $first in (0..$rows).step_by(ROWS) {
            if $first + 1 < $rows {
                $kernel::<2>($($argument),*);
            } else {
                $kernel::<1>($($argument),*);
            }
        }
    };
}

unsafe fn tile_f32<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const f32,
    _: Fetch,
    out: &mut [f32],
) {
    // SAFETY: the caller answers for all that is read.
    unsafe { in_pairs!(R, |first| pair_f32(x, first, panel, out)) }
}

/// # Safety
/// The panel has its width of weights for every input, and there are `R` rows from `first` on.
unsafe fn pair_f32<const R: usize>(
    x: &Rows<'_, f32>,
    first: usize,
    panel: *const f32,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[f32x4_splat(0.0); VECTORS]; R];
    for k in 0..x.depth {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let x: [v128; R] = std::array::from_fn(|row| {
                v128_load32_splat(start.add((first + row) * stride + k).cast())
            });
            for vector in 0..VECTORS {
                let weights = v128_load(panel.add(k * WIDTH + vector * LANES).cast());
                for row in 0..R {
                    sums[row][vector] = f32x4_add(sums[row][vector], f32x4_mul(x[row], weights));
                }
            }
        }
    }
    store(&sums, first, out);
}

unsafe fn tile_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    _: Fetch,
    out: &mut [f32],
) {
    // SAFETY: the caller answers for all that is read.
    unsafe { in_pairs!(R, |first| pair_bf16(x, first, panel, out)) }
}

/// # Safety
/// As for [`pair_f32`], with the depth in pairs.
unsafe fn pair_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    first: usize,
    panel: *const u16,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let upper = u32x4_splat(0xffff_0000);
    let mut sums = [[f32x4_splat(0.0); VECTORS]; R];
    for pair in 0..x.depth / 2 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let x: [[v128; 2]; R] = std::array::from_fn(|row| {
                let x = start.add((first + row) * stride + 2 * pair);
                [v128_load32_splat(x.cast()), v128_load32_splat(x.add(1).cast())]
            });
            for vector in 0..VECTORS {
                // A bf16 is the upper half of an f32; of a pair the first is the lower half.
                let both = v128_load(panel.add(2 * (pair * WIDTH + vector * LANES)).cast());
                let (even, odd) = (u32x4_shl(both, 16), v128_and(both, upper));
                for row in 0..R {
                    let sum = f32x4_add(sums[row][vector], f32x4_mul(x[row][0], even));
                    sums[row][vector] = f32x4_add(sum, f32x4_mul(x[row][1], odd));
                }
            }
        }
    }
    store(&sums, first, out);
}

unsafe fn tile_int8<const R: usize>(
    x: &Rows<'_, u8>,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    _: Fetch,
    out: &mut [f32],
) {
    // SAFETY: the caller answers for all that is read.
    unsafe { in_pairs!(R, |first| pair_int8(x, first, scales, panel, out)) }
}

/// # Safety
/// As for [`pair_f32`], with the depth in fours, and scales and sums for every row and output.
unsafe fn pair_int8<const R: usize>(
    x: &Rows<'_, u8>,
    first: usize,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    out: &mut [f32],
) {
    let (start, stride, weights) = (x.values.as_ptr(), x.stride, panel.weights.as_ptr());
    let mut sums = [[i32x4_splat(0); VECTORS]; R];
    for four in 0..x.depth / 4 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            // Widened to 16 bits, so that unsigned and signed meet exactly.
            let x: [v128; R] = std::array::from_fn(|row| {
                let x = start.add((first + row) * stride + 4 * four);
                i16x8_extend_low_u8x16(v128_load32_splat(x.cast()))
            });
            for vector in 0..VECTORS {
                let both = v128_load(weights.add(4 * (four * WIDTH + vector * LANES)).cast());
                let (low, high) = (i16x8_extend_low_i8x16(both), i16x8_extend_high_i8x16(both));
                for row in 0..R {
                    // Of each output two sums of two products.
                    let low = i32x4_dot_i16x8(x[row], low);
                    let high = i32x4_dot_i16x8(x[row], high);
                    let sum = i32x4_add(
                        i32x4_shuffle::<0, 2, 4, 6>(low, high),
                        i32x4_shuffle::<1, 3, 5, 7>(low, high),
                    );
                    sums[row][vector] = i32x4_add(sums[row][vector], sum);
                }
            }
        }
    }
    let mut floats = [[f32x4_splat(0.0); VECTORS]; R];
    for row in 0..R {
        let RowScale { scale, zero } = scales[first + row];
        for vector in 0..VECTORS {
            // SAFETY: the caller has checked that both have 16 numbers.
            let (of_weights, scales) = unsafe {
                (
                    v128_load(panel.sums.as_ptr().add(vector * LANES).cast()),
                    v128_load(panel.scales.as_ptr().add(vector * LANES).cast()),
                )
            };
            let exact = i32x4_sub(sums[row][vector], i32x4_mul(i32x4_splat(zero), of_weights));
            let scale = f32x4_mul(f32x4_splat(scale), scales);
            floats[row][vector] = f32x4_mul(f32x4_convert_i32x4(exact), scale);
        }
    }
    store(&floats, first, out);
}

fn store<const R: usize>(sums: &[[v128; VECTORS]; R], first: usize, out: &mut [f32]) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let to = &mut out[(first + row) * WIDTH + vector * LANES..][..LANES];
            // SAFETY: the slice has 4 numbers.
            unsafe { v128_store(to.as_mut_ptr().cast(), sum) }
        }
    }
}
