//! Kernels without any instruction set: the definition of the others.

use std::hint::black_box;

use numerics::{from_bf16, multiply_add};

use super::{
    Bf16Product, Fetch, INT4_WORDS, InputGroup, Int8Panel, Kernels, Peaks, RowScale, Rows,
    check_int4, check_tile, rows,
};

const WIDTH: usize = 16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    choice: "portable",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    widening_bf16: None,
    narrow_pairs: false,
    fetch_groups: 1,
    product_int8,
    product_int4: product_int4::<false>,
    rows: rows::PORTABLE,
    peaks: peaks::<false>(),
};

/// What the compiler makes of loops over registers.
pub(super) const fn peaks<const FUSED: bool>() -> Peaks {
    Peaks { f32: peak_f32::<FUSED>, bf16: peak_f32::<FUSED>, int8: peak_int8, int4: peak_int8 }
}

/// Numbers that are enough registers of any instruction set, for no instruction to wait for another.
const CHAINS: usize = 32;

fn peak_f32<const FUSED: bool>(rounds: usize) -> u64 {
    let (x, weights) = (black_box(0.5), black_box([0.25; CHAINS]));
    let mut sums = [0.0; CHAINS];
    for _ in 0..rounds {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = multiply_add::<FUSED>(x, weight, *sum);
        }
    }
    black_box(sums);
    (rounds * CHAINS) as u64
}

fn peak_int8(rounds: usize) -> u64 {
    let (mut x, weights) = (black_box(3i16), black_box([5i16; CHAINS]));
    let mut sums = [0i32; CHAINS];
    for _ in 0..rounds {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = sum.wrapping_add(i32::from(x) * i32::from(weight));
        }
        // Else every round would add the same.
        x ^= 1;
    }
    black_box(sums);
    (rounds * CHAINS) as u64
}

fn product_f32(x: Rows<'_, f32>, panel: &[f32], _: Fetch, out: &mut [f32]) {
    check_tile(&x, panel, WIDTH, 1, out);
    let (groups, _) = panel.as_chunks::<WIDTH>();
    for row in 0..x.count() {
        let mut sums = [0.0; WIDTH];
        for (&x, weights) in x.row(row).iter().zip(groups) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
        out[row * WIDTH..][..WIDTH].copy_from_slice(&sums);
    }
}

fn product_bf16(x: Rows<'_, f32>, panel: &[u16], _: Fetch, out: &mut [f32]) {
    check_tile(&x, panel, WIDTH, 2, out);
    let (groups, _) = panel.as_chunks::<{ 2 * WIDTH }>();
    for row in 0..x.count() {
        let mut sums = [0.0; WIDTH];
        for (x, weights) in x.row(row).as_chunks::<2>().0.iter().zip(groups) {
            for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                *sum += x[0] * from_bf16(weights[0]);
                *sum += x[1] * from_bf16(weights[1]);
            }
        }
        out[row * WIDTH..][..WIDTH].copy_from_slice(&sums);
    }
}

pub(super) fn product_int4<const FUSED: bool>(
    x: Rows<'_, InputGroup>,
    scales: &[f32],
    panel: &[u32],
    _: Fetch,
    out: &mut [f32],
) {
    check_int4(&x, scales, panel, WIDTH, out);
    for row in 0..x.count() {
        let mut sums = [0.0; WIDTH];
        for (x, panel) in x.row(row).iter().zip(panel.chunks_exact(INT4_WORDS * WIDTH)) {
            let (weights, ends) = panel.split_at((INT4_WORDS - 1) * WIDTH);
            let mut exact = [0i32; WIDTH];
            for (x, words) in x.levels.as_chunks::<8>().0.iter().zip(weights.as_chunks().0) {
                let words: &[u32; WIDTH] = words;
                for (sum, word) in exact.iter_mut().zip(words) {
                    for (byte, weights) in word.to_le_bytes().into_iter().enumerate() {
                        *sum += i32::from(x[byte]) * i32::from(weights & 15);
                        *sum += i32::from(x[4 + byte]) * i32::from(weights >> 4);
                    }
                }
            }
            for ((sum, exact), ends) in sums.iter_mut().zip(exact).zip(ends) {
                let (scale, minimum) = (from_bf16(*ends as u16), from_bf16((ends >> 16) as u16));
                *sum = multiply_add::<FUSED>(scale, exact as f32, *sum);
                *sum = multiply_add::<FUSED>(minimum, x.sum, *sum);
            }
        }
        for (out, sum) in out[row * WIDTH..][..WIDTH].iter_mut().zip(sums) {
            *out = sum * scales[row];
        }
    }
}

fn product_int8(
    x: Rows<'_, u8>,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    _: Fetch,
    out: &mut [f32],
) {
    check_tile(&x, panel.weights, WIDTH, 4, out);
    let (groups, _) = panel.weights.as_chunks::<{ 4 * WIDTH }>();
    for row in 0..x.count() {
        let mut sums = [0i32; WIDTH];
        for (x, weights) in x.row(row).as_chunks::<4>().0.iter().zip(groups) {
            for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
                for (&x, &weight) in x.iter().zip(weights) {
                    *sum += i32::from(x) * i32::from(weight);
                }
            }
        }
        let RowScale { scale, zero } = scales[row];
        for (output, sum) in sums.into_iter().enumerate() {
            let exact = sum - zero * panel.sums[output];
            out[row * WIDTH + output] = exact as f32 * (scale * panel.scales[output]);
        }
    }
}
