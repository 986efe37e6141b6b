//! Matrix products of numbers in bfloat16, summed in single precision.
//!
//! Where the processor multiplies pairs of them in one instruction (AVX-512 BF16), both matrices
//! are rounded and laid out in panels of pairs on the way in; on AMD's Zen 4 that is twice the rate
//! of single precision. Elsewhere rounded copies are multiplied in single precision.
//!
//! Each number of the result is one chain of sums in the order of pairs: it does not depend on the
//! threads, nor on the other rows and columns.

use numerics::{bf16_bits, round_to_bf16, vectorized};
use rayon::prelude::*;

use super::{Matrix, Threads, product};

/// Rows of a tile of the result, and its columns: 24 registers of sums.
const ROWS: usize = 12;
const COLUMNS: usize = 32;

/// Panels of rows that a task works on: what they share of the other matrix stays in the cache.
const PANELS: usize = 4;

/// left · right, both rounded to bfloat16, row after row.
pub(in super::super) fn product_in_bf16(left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    assert_eq!(left.columns, right.rows, "inner dimensions of a product");
    match kernel() {
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

type Tile = [f32; ROWS * COLUMNS];

/// Multiplies a panel of rows and one of columns, both of pairs.
type Kernel = fn(rows: &[u32], columns: &[u32], tile: &mut Tile);

fn multiply(left: Matrix<'_>, right: Matrix<'_>, kernel: Kernel) -> Vec<f32> {
    let (rows, columns) = (left.rows, right.columns);
    let pairs = left.columns.div_ceil(2);
    let mut output = vec![0.0; rows * columns];
    if rows == 0 || columns == 0 || pairs == 0 {
        return output;
    }
    let of_rows = panels::<ROWS>(left);
    let of_columns = panels::<COLUMNS>(right.transposed());
    let tasks = output.par_chunks_mut(columns * ROWS * PANELS);
    tasks.zip(of_rows.par_chunks(pairs * ROWS * PANELS)).for_each(|(output, of_rows)| {
        let mut tile = [0.0; ROWS * COLUMNS];
        for (index, of_columns) in of_columns.chunks_exact(pairs * COLUMNS).enumerate() {
            let first = index * COLUMNS;
            let width = COLUMNS.min(columns - first);
            let outputs = output.chunks_mut(columns * ROWS);
            for (output, of_rows) in outputs.zip(of_rows.chunks_exact(pairs * ROWS)) {
                kernel(of_rows, of_columns, &mut tile);
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
/// `[rows, columns]` → `[⌈rows / WIDTH⌉, ⌈columns / 2⌉, WIDTH]`.
fn panels<const WIDTH: usize>(matrix: Matrix<'_>) -> Vec<u32> {
    let Matrix { values, rows, columns, row_stride, column_stride } = matrix;
    let pairs = columns.div_ceil(2);
    let mut output = vec![0; rows.div_ceil(WIDTH) * pairs * WIDTH];
    output.par_chunks_exact_mut(pairs * WIDTH).enumerate().for_each(|(index, panel)| {
        let first = index * WIDTH;
        let count = WIDTH.min(rows - first);
        let values = &values[first * row_stride..];
        vectorized(|| {
            if row_stride == 1 {
                for (pair, panel) in panel.chunks_exact_mut(WIDTH).enumerate() {
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
                let mut row_pairs = vec![0; pairs];
                for row in 0..count {
                    let values = &values[row * row_stride..][..columns];
                    let (whole, rest) = values.as_chunks::<2>();
                    for (to, &[even, odd]) in row_pairs.iter_mut().zip(whole) {
                        *to = bf16_bits(even) | bf16_bits(odd) << 16;
                    }
                    if let (Some(last), &[even]) = (row_pairs.last_mut(), rest) {
                        *last = bf16_bits(even);
                    }
                    let places = panel[row..].iter_mut().step_by(WIDTH);
                    places.zip(&row_pairs).for_each(|(to, &pair)| *to = pair);
                }
            }
        });
    });
    output
}

/// The kernel of this processor, if it has one.
fn kernel() -> Option<Kernel> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
        return Some(avx512::tile);
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    #![allow(unsafe_code)] // intrinsics; the entry checks its slices

    use std::arch::x86_64::*;

    use super::{COLUMNS, ROWS, Tile};

    const LANES: usize = 16;
    const VECTORS: usize = COLUMNS / LANES;

    pub(super) fn tile(rows: &[u32], columns: &[u32], tile: &mut Tile) {
        assert_eq!(rows.len() / ROWS, columns.len() / COLUMNS, "panels of different lengths");
        // SAFETY: both panels have `rows.len() / ROWS` groups; this function is handed out only
        // where the processor has the instructions.
        unsafe { multiply(rows.as_ptr(), columns.as_ptr(), rows.len() / ROWS, tile) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn multiply(rows: *const u32, columns: *const u32, pairs: usize, tile: &mut Tile) {
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for pair in 0..pairs {
            // SAFETY: the caller answers for all that is read. Both types are 512 plain bits.
            unsafe {
                let rows = rows.add(pair * ROWS);
                let columns = columns.add(pair * COLUMNS);
                let columns: [__m512bh; VECTORS] = std::array::from_fn(|vector| {
                    std::mem::transmute(_mm512_loadu_si512(columns.add(vector * LANES).cast()))
                });
                for (row, sums) in sums.iter_mut().enumerate() {
                    let row: __m512bh =
                        std::mem::transmute(_mm512_set1_epi32(*rows.add(row) as i32));
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = _mm512_dpbf16_ps(*sum, row, column);
                    }
                }
            }
        }
        for (sums, row) in sums.iter().zip(tile.chunks_exact_mut(COLUMNS)) {
            for (&sum, to) in sums.iter().zip(row.chunks_exact_mut(LANES)) {
                // SAFETY: the slice has 16 numbers.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) }
            }
        }
    }
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
            assert_eq!(product_in_bf16(left, right), expected, "{rows} {inner} {columns}");
            assert_eq!(of_rounded_copies(left, right), expected);
            // The same matrices, lying the other way.
            let turn = |values: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect()
            };
            let (a, b) = (turn(&a, rows, inner), turn(&b, inner, columns));
            let left = Matrix::new(&a, inner, rows, rows).transposed();
            let right = Matrix::new(&b, columns, inner, inner).transposed();
            assert_eq!(product_in_bf16(left, right), expected, "{rows} {inner} {columns}");
        }
    }

    #[test]
    fn should_give_what_rounded_copies_give_and_not_what_exact_numbers_would() {
        for (rows, inner, columns) in SHAPES {
            let (a, b) = (uneven(rows * inner, 1), uneven(inner * columns, 3));
            let left = Matrix::new(&a, rows, inner, inner);
            let right = Matrix::new(&b, inner, columns, columns);
            let got = product_in_bf16(left, right);
            let rounded = of_rounded_copies(left, right);
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

    #[test]
    fn should_give_a_row_the_same_bits_among_any_number_of_rows() {
        let (a, b) = (uneven(70 * 90, 1), uneven(90 * 40, 3));
        let right = Matrix::packed(&b, 40);
        let all = product_in_bf16(Matrix::packed(&a, 90), right);
        for rows in [1, 7, 12, 13, 69] {
            let some = product_in_bf16(Matrix::packed(&a[..rows * 90], 90), right);
            assert_eq!(some, all[..rows * 40], "{rows}");
        }
    }
}
