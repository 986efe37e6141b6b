//! Matrix products of numbers in bfloat16, summed in single precision.
//!
//! Where the processor multiplies them itself, both matrices are rounded and laid out in panels of
//! pairs on the way in: pairs in one instruction (AVX-512 BF16; on AMD's Zen 4 that is twice the rate
//! of single precision), or tiles of 16 × 32 numbers (Intel's AMX). Elsewhere rounded copies are
//! multiplied in single precision.
//!
//! Each number of the result is one chain of sums in the order of pairs: it does not depend on the
//! threads, nor on the other rows and columns.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;

use numerics::{bf16_bits, round_to_bf16, vectorized};
use rayon::prelude::*;

use super::{Matrix, Threads, product};

/// Columns of a tile of the result.
const COLUMNS: usize = 32;
/// Most rows of one.
const MOST_ROWS: usize = 32;

/// Panels of rows that a task works on: what they share of the other matrix stays in the cache.
const PANELS: usize = 4;

/// How a processor multiplies a panel of rows by one of columns.
#[derive(Clone, Copy)]
struct Kernel {
    /// Rows of a panel, and of a tile of the result.
    rows: usize,
    /// Panels have a multiple of so many pairs; zeros fill them.
    pairs: usize,
    /// Lays a matrix out in panels of rows, of so many pairs.
    lay_out: fn(Matrix<'_>, usize) -> Vec<u32>,
    /// Writes the product of a panel of rows and one of columns (`[pairs, COLUMNS]`) into the tile
    /// `[rows, COLUMNS]`.
    multiply: fn(rows: &[u32], columns: &[u32], tile: &mut [f32]),
}

/// left · right, both rounded to bfloat16, row after row.
pub(in super::super) fn product_in_bf16(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    assert_eq!(left.columns, right.rows, "inner dimensions of a product");
    match kernels().next() {
        Some(kernel) => multiply(left, right, kernel),
        None => of_rounded_copies(left, right),
    }
}

fn of_rounded_copies(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    let [first, second] = [left.values, right.values].map(|values| {
        let mut rounded = values.to_vec();
        rounded.par_chunks_mut(1 << 14).for_each(|chunk| vectorized(|| round_all(chunk)));
        rounded
    });
    let (left, right) = (Matrix { values: &first, ..left }, Matrix { values: &second, ..right });
    product(left, right, Threads::All)
}

#[inline(always)]
fn round_all(values: &mut [f32]) {
    for value in values {
        *value = round_to_bf16(*value);
    }
}

fn multiply(left: Matrix<'_>, right: Matrix<'_>, kernel: Kernel) -> Vec<f32> {
    let (rows, columns) = (left.rows, right.columns);
    let pairs = left.columns.div_ceil(2).next_multiple_of(kernel.pairs);
    let mut output = vec![0.0; rows * columns];
    if rows == 0 || columns == 0 || pairs == 0 {
        return output;
    }
    let of_rows = (kernel.lay_out)(left, pairs);
    let of_columns = panels::<COLUMNS>(right.transposed(), pairs);
    let tasks = output.par_chunks_mut(columns * kernel.rows * PANELS);
    tasks.zip(of_rows.par_chunks(pairs * kernel.rows * PANELS)).for_each(|(output, of_rows)| {
        let mut tile = [0.0; MOST_ROWS * COLUMNS];
        let tile = &mut tile[..kernel.rows * COLUMNS];
        for (index, of_columns) in of_columns.chunks_exact(pairs * COLUMNS).enumerate() {
            let first = index * COLUMNS;
            let width = COLUMNS.min(columns - first);
            let outputs = output.chunks_mut(columns * kernel.rows);
            for (output, of_rows) in outputs.zip(of_rows.chunks_exact(pairs * kernel.rows)) {
                (kernel.multiply)(of_rows, of_columns, tile);
                let rows = output.chunks_exact_mut(columns);
                for (row, tile) in rows.zip(tile.chunks_exact(COLUMNS)) {
                    row[first..first + width].copy_from_slice(&tile[..width]);
                }
            }
        }
    });
    output
}

/// The rows of a matrix in panels of `WIDTH`, rounded. A panel has, for each pair of neighbouring
/// numbers of a row, those of all its rows; what is missing at the ends is zero.
///
/// # Shapes
/// `[rows, columns]` → `[⌈rows / WIDTH⌉, pairs, WIDTH]`.
fn panels<const WIDTH: usize>(matrix: Matrix<'_>, pairs: usize) -> Vec<u32> {
    let Matrix { values, rows, columns, row_stride, column_stride } = matrix;
    let mut output = vec![0; rows.div_ceil(WIDTH) * pairs * WIDTH];
    output.par_chunks_exact_mut(pairs * WIDTH).enumerate().for_each(|(index, panel)| {
        let first = index * WIDTH;
        let count = WIDTH.min(rows - first);
        let values = &values[first * row_stride..];
        vectorized(|| {
            if row_stride == 1 {
                let used = columns.div_ceil(2);
                for (pair, panel) in panel.chunks_exact_mut(WIDTH).take(used).enumerate() {
                    let even = &values[2 * pair * column_stride..][..count];
                    if 2 * pair + 1 < columns {
                        let odd = &values[(2 * pair + 1) * column_stride..][..count];
                        for ((to, &even), &odd) in panel.iter_mut().zip(even).zip(odd) {
                            *to = bf16_bits(even) | bf16_bits(odd) << 16;
                        }
                    } else {
                        for (to, &even) in panel.iter_mut().zip(even) {
                            *to = bf16_bits(even);
                        }
                    }
                }
            } else {
                assert_eq!(column_stride, 1, "a matrix lies by rows or by columns");
                let mut row_pairs = vec![0; columns.div_ceil(2)];
                for row in 0..count {
                    pair_up(&values[row * row_stride..][..columns], &mut row_pairs);
                    let places = panel[row..].iter_mut().step_by(WIDTH);
                    places.zip(&row_pairs).for_each(|(to, &pair)| *to = pair);
                }
            }
        });
    });
    output
}

/// Rounds numbers and writes them as pairs; of an odd number the last has a zero beside it.
#[inline(always)]
fn pair_up(values: &[f32], pairs: &mut [u32]) {
    let (whole, rest) = values.as_chunks::<2>();
    for (to, &[even, odd]) in pairs.iter_mut().zip(whole) {
        *to = bf16_bits(even) | bf16_bits(odd) << 16;
    }
    if let (Some(last), &[even]) = (pairs.get_mut(whole.len()), rest) {
        *last = bf16_bits(even);
    }
}

/// The kernels that this processor has, fastest first.
fn kernels() -> impl Iterator<Item = Kernel> {
    let kernels: [Option<Kernel>; 2] = [
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        amx::kernel(),
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        None,
        #[cfg(target_arch = "x86_64")]
        avx512::kernel(),
        #[cfg(not(target_arch = "x86_64"))]
        None,
    ];
    kernels.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers that bfloat16 holds: every sum is exact.
    fn whole(count: usize, start: u32) -> Vec<f32> {
        (0..count as u32).map(|index| ((start + index * 7) % 11) as f32 - 5.0).collect()
    }

    fn uneven(count: usize, start: u32) -> Vec<f32> {
        let numbers = (0..count as u32).map(|index| (start + index) as f32 * 0.618_034);
        numbers.map(|number| number.fract() - 0.5).collect()
    }

    const SHAPES: [(usize, usize, usize); 8] = [
        (1, 1, 1),
        (1, 64, 5),
        (12, 2, 32),
        (13, 3, 33),
        (50, 33, 65),
        (200, 210, 220),
        (4, 0, 3),
        (0, 2, 2),
    ];

    #[test]
    fn should_multiply_any_shape_in_any_layout() {
        for (rows, inner, columns) in SHAPES {
            let (a, b) = (whole(rows * inner, 1), whole(inner * columns, 3));
            let left = Matrix::new(&a, rows, inner, inner);
            let right = Matrix::new(&b, inner, columns, columns);
            let expected = product(left, right, Threads::One);
            let same = |left, right| {
                assert_eq!(product_in_bf16(left, right), expected, "{rows} {inner} {columns}");
                for kernel in kernels() {
                    assert_eq!(multiply(left, right, kernel), expected, "{rows} {inner} {columns}");
                }
            };
            same(left, right);
            assert_eq!(of_rounded_copies(left, right), expected);
            // The same matrices, lying the other way.
            let turn = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
            };
            let (a, b) = (turn(&a, rows, inner), turn(&b, inner, columns));
            let left = Matrix::new(&a, inner, rows, rows).transposed();
            let right = Matrix::new(&b, columns, inner, inner).transposed();
            same(left, right);
        }
    }

    #[test]
    fn should_give_what_rounded_copies_give_and_not_what_exact_numbers_would() {
        for (rows, inner, columns) in SHAPES {
            let (a, b) = (uneven(rows * inner, 1), uneven(inner * columns, 3));
            let left = Matrix::new(&a, rows, inner, inner);
            let right = Matrix::new(&b, inner, columns, columns);
            let rounded = of_rounded_copies(left, right);
            for kernel in kernels() {
                let got = multiply(left, right, kernel);
                // Single precision, and another order of sums.
                let tolerance = 1e-6 * inner as f32;
                for (got, rounded) in got.iter().zip(&rounded) {
                    assert!((got - rounded).abs() <= tolerance, "{got} not {rounded}");
                }
                if rows * inner > 1000 {
                    let exact = product(left, right, Threads::All);
                    let far = |a: &f32, b: &f32| (a - b).abs() > 10.0 * tolerance;
                    assert!(got.iter().zip(&exact).any(|(got, exact)| far(got, exact)));
                }
            }
        }
    }

    #[test]
    fn should_give_a_row_the_same_bits_among_any_number_of_rows() {
        let (a, b) = (uneven(70 * 90, 1), uneven(90 * 40, 3));
        let right = Matrix::packed(&b, 40);
        for kernel in kernels() {
            let all = multiply(Matrix::packed(&a, 90), right, kernel);
            for rows in [1, 7, 12, 13, 33, 69] {
                let some = multiply(Matrix::packed(&a[..rows * 90], 90), right, kernel);
                assert_eq!(some, all[..rows * 40], "{rows}");
            }
        }
    }
}
