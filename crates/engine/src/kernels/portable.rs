//! Kernels without any instruction set: the definition of the others.

use numerics::from_bf16;

use super::{Bf16Product, Fetch, Int8Panel, Kernels, RowScale, Rows, check_tile, rows};

const WIDTH: usize = 16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    product_int8,
    rows: rows::PORTABLE,
};

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
