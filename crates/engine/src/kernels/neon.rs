//! Kernels for NEON: 4 numbers in a register, 32 registers.
//!
//! A tile is six rows by 16 outputs: 24 registers of sums, four of weights, one of activations.
#![allow(unsafe_code)] // intrinsics; every entry checks its slices

use std::arch::aarch64::*;

use super::{
    Bf16Product, Fetch, Int8Panel, Kernels, RowScale, Rows, check_int8, check_tile,
    checked_products, portable, rows, with_rows,
};

const LANES: usize = 4;
const VECTORS: usize = 4;
const WIDTH: usize = VECTORS * LANES;

static KERNELS: Kernels = Kernels {
    name: "neon",
    choice: "neon",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    widening_bf16: None,
    narrow_pairs: false,
    fetch_groups: 1,
    product_int8,
    // Panels are as wide as the portable ones.
    product_int4: portable::product_int4::<true>,
    rows: row_kernels::TABLE,
    peaks: portable::peaks::<true>(),
};

/// The table; every 64-bit ARM processor that runs this program's targets has NEON.
pub(super) fn kernels() -> Option<&'static Kernels> {
    std::arch::is_aarch64_feature_detected!("neon").then_some(&KERNELS)
}

rows::row_kernels!("neon");

checked_products!(WIDTH);

#[target_feature(enable = "neon")]
unsafe fn tile_f32<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const f32,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
    for k in 0..x.depth {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(k * WIDTH);
            let weights: [float32x4_t; VECTORS] =
                std::array::from_fn(|vector| vld1q_f32(weights.add(vector * LANES)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = *start.add(row * stride + k);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = vfmaq_n_f32(*sum, weights, x);
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "neon")]
unsafe fn tile_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let upper = vdupq_n_u32(0xffff_0000);
    let mut sums = [[vdupq_n_f32(0.0); VECTORS]; R];
    for pair in 0..x.depth / 2 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(pair * 2 * WIDTH);
            for vector in 0..VECTORS {
                // A bf16 is the upper half of an f32; of a pair the first is the lower half.
                let both = vreinterpretq_u32_u16(vld1q_u16(weights.add(vector * 2 * LANES)));
                let odd = vreinterpretq_f32_u32(vandq_u32(both, upper));
                let even = vreinterpretq_f32_u32(vshlq_n_u32::<16>(both));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = start.add(row * stride + 2 * pair);
                    sums[vector] = vfmaq_n_f32(sums[vector], even, *x);
                    sums[vector] = vfmaq_n_f32(sums[vector], odd, *x.add(1));
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "neon")]
unsafe fn tile_int8<const R: usize>(
    x: &Rows<'_, u8>,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    _: Fetch,
    out: &mut [f32],
) {
    let (start, stride, weights) = (x.values.as_ptr(), x.stride, panel.weights.as_ptr());
    let mut sums = [[vdupq_n_s32(0); VECTORS]; R];
    for four in 0..x.depth / 4 {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = weights.add(four * 4 * WIDTH);
            for vector in 0..VECTORS {
                // Widened to 16 bits, so that unsigned and signed meet exactly.
                let both = vld1q_s8(weights.add(vector * 4 * LANES));
                let (low, high) = (vmovl_s8(vget_low_s8(both)), vmovl_high_s8(both));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let all = start.add(row * stride + 4 * four).cast::<u32>().read_unaligned();
                    let x = vmovl_u8(vcreate_u8(u64::from(all)));
                    let x = vget_low_s16(vreinterpretq_s16_u16(x));
                    // Four outputs of four inputs each, joined in pairs twice.
                    let first = vmull_s16(x, vget_low_s16(low));
                    let second = vmull_s16(x, vget_high_s16(low));
                    let third = vmull_s16(x, vget_low_s16(high));
                    let fourth = vmull_s16(x, vget_high_s16(high));
                    let pairs = vpaddq_s32(first, second);
                    let others = vpaddq_s32(third, fourth);
                    sums[vector] = vaddq_s32(sums[vector], vpaddq_s32(pairs, others));
                }
            }
        }
    }
    let mut floats = [[vdupq_n_f32(0.0); VECTORS]; R];
    for (row, (floats, sums)) in floats.iter_mut().zip(&sums).enumerate() {
        let RowScale { scale, zero } = scales[row];
        for (vector, (float, &sum)) in floats.iter_mut().zip(sums).enumerate() {
            // SAFETY: the caller has checked that both have 16 numbers.
            let (of_weights, scales) = unsafe {
                (
                    vld1q_s32(panel.sums.as_ptr().add(vector * LANES)),
                    vld1q_f32(panel.scales.as_ptr().add(vector * LANES)),
                )
            };
            let exact = vcvtq_f32_s32(vmlsq_n_s32(sum, of_weights, zero));
            *float = vmulq_f32(exact, vmulq_n_f32(scales, scale));
        }
    }
    store(&floats, out);
}

#[target_feature(enable = "neon")]
fn store<const R: usize>(sums: &[[float32x4_t; VECTORS]; R], out: &mut [f32]) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let to = &mut out[row * WIDTH + vector * LANES..][..LANES];
            // SAFETY: the slice has 4 numbers.
            unsafe { vst1q_f32(to.as_mut_ptr(), sum) }
        }
    }
}
