//! Kernels for AVX2 with fused multiply-add: 8 numbers in a register, 16 registers.
//!
//! A tile is six rows by 16 outputs: 12 registers of sums, two of weights, one of activations.
#![allow(unsafe_code)] // intrinsics; every entry checks its slices and the processor

use std::arch::x86_64::*;

use super::{
    Bf16Product, Fetch, Int8Panel, Kernels, RowScale, Rows, check_tile, checked_products, rows,
    with_rows,
};

const LANES: usize = 8;
const WIDTH: usize = 2 * LANES;

static KERNELS: Kernels = Kernels {
    name: "avx2",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    product_int8,
    rows: row_kernels::TABLE,
};

/// The table, where the processor has all of the instructions.
pub(super) fn kernels() -> Option<&'static Kernels> {
    (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(&KERNELS)
}

rows::row_kernels!("avx2,fma");

checked_products!(WIDTH);

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_f32<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const f32,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for k in 0..x.depth {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(k * WIDTH);
            let weights = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*start.add(row * stride + k));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_fmadd_ps(x, weights, *sum);
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for pair in 0..x.depth / 2 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(pair * 2 * WIDTH);
            for vector in 0..2 {
                // A bf16 is the upper half of an f32; of a pair the first is the lower half.
                let both = _mm256_loadu_si256(weights.add(vector * WIDTH).cast());
                let odd = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
                let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = start.add(row * stride + 2 * pair);
                    let sum = _mm256_fmadd_ps(_mm256_set1_ps(*x), even, sums[vector]);
                    sums[vector] = _mm256_fmadd_ps(_mm256_set1_ps(*x.add(1)), odd, sum);
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_int8<const R: usize>(
    x: &Rows<'_, u8>,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride, weights) = (x.values.as_ptr(), x.stride, panel.weights.as_ptr());
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for four in 0..x.depth / 4 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = weights.add(four * 4 * WIDTH);
            // The one instruction for unsigned times signed bytes saturates at 16 bits; widened
            // to 16 bits first, sums are exact. A register then holds four outputs of four inputs.
            for vector in 0..2 {
                let at = weights.add(vector * 4 * LANES);
                let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.cast()));
                let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(16).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let all = start.add(row * stride + 4 * four).cast::<i32>().read_unaligned();
                    let x = _mm256_cvtepu8_epi16(_mm_set1_epi32(all));
                    let low = _mm256_madd_epi16(x, low);
                    let high = _mm256_madd_epi16(x, high);
                    // Joins halves of an output; the order is 0 1 4 5 2 3 6 7 until the end.
                    let joined = _mm256_hadd_epi32(low, high);
                    sums[vector] = _mm256_add_epi32(sums[vector], joined);
                }
            }
        }
    }
    let mut floats = [[_mm256_setzero_ps(); 2]; R];
    for (row, (floats, sums)) in floats.iter_mut().zip(&sums).enumerate() {
        let RowScale { scale, zero } = scales[row];
        for (vector, (float, &sum)) in floats.iter_mut().zip(sums).enumerate() {
            let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(sum);
            // SAFETY: the caller has checked that both have 16 numbers.
            let (of_weights, scales) = unsafe {
                (
                    _mm256_loadu_si256(panel.sums.as_ptr().add(vector * LANES).cast()),
                    _mm256_loadu_ps(panel.scales.as_ptr().add(vector * LANES)),
                )
            };
            let offset = _mm256_mullo_epi32(_mm256_set1_epi32(zero), of_weights);
            let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offset));
            *float = _mm256_mul_ps(exact, _mm256_mul_ps(_mm256_set1_ps(scale), scales));
        }
    }
    store(&floats, out);
}

#[target_feature(enable = "avx2")]
fn store<const R: usize>(sums: &[[__m256; 2]; R], out: &mut [f32]) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let to = &mut out[row * WIDTH + vector * LANES..][..LANES];
            // SAFETY: the slice has 8 numbers.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sum) }
        }
    }
}
