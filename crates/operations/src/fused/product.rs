//! Matrix products on the CPU, in single precision by the `gemm` crate.
//!
//! Burn's own write into a buffer that is set to zero and then copied once more for its alignment,
//! both on one thread; for matrices of a small transformer that costs a quarter of the product.

mod bf16;

use gemm::Parallelism;

/// What a linear layer multiplies in. Its tensors have single precision either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As they are.
    Single,
    /// Rounded to bfloat16, and the results, too; sums run in single precision.
    Bf16,
}

/// A matrix that lies in a slice, its rows and columns at fixed distances.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` numbers, the starts of two rows `stride` apart.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(values.len(), rows, columns, stride), "a matrix reaches beyond its slice");
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Rows one after another.
    pub(super) fn packed(values: &'a [f32], columns: usize) -> Self {
        Self::new(values, values.len() / columns.max(1), columns, columns)
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Whether rows at this distance lie within a slice of `length` numbers.
fn fits(length: usize, rows: usize, columns: usize, stride: usize) -> bool {
    rows == 0
        || columns == 0
        || (columns <= stride || rows == 1) && (rows - 1) * stride + columns <= length
}

/// Who works on a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// All of them where the product is large enough.
    All,
}

impl Threads {
    /// Multiplications from which on more threads pay; Burn's bound.
    const WORTHWHILE: usize = 192 * 192 * 192;

    fn parallelism(self, rows: usize, columns: usize, inner: usize) -> Parallelism {
        let work = rows.saturating_mul(columns).saturating_mul(inner);
        if self == Self::All && work >= Self::WORTHWHILE {
            Parallelism::Rayon(0)
        } else {
            Parallelism::None
        }
    }
}

/// left · right in some precision, row after row.
pub(super) fn product_in(precision: Precision, left: Matrix<'_>, right: Matrix<'_>) -> Vec<f32> {
    match precision {
        Precision::Single => product(left, right, Threads::All),
        Precision::Bf16 => bf16::product_in_bf16(left, right),
    }
}

/// left · right, row after row.
pub(super) fn product(left: Matrix<'_>, right: Matrix<'_>, threads: Threads) -> Vec<f32> {
    let count = left.rows * right.columns;
    let mut output = Vec::with_capacity(count);
    if left.columns == 0 {
        output.resize(count, 0.0);
        return output;
    }
    let start = output.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: the output has room for `rows · columns` numbers at this stride, nobody else sees
    // it, and a product that does not add writes every one of them.
    #[allow(unsafe_code)]
    unsafe {
        multiply(start, right.columns, left, right, false, threads);
        output.set_len(count);
    }
    output
}

/// Writes left · right over the rows of `output`, whose starts are `stride` numbers apart.
pub(super) fn write_product(
    output: &mut [f32],
    stride: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    threads: Threads,
) {
    assert!(fits(output.len(), left.rows, right.columns, stride), "a product beyond its slice");
    assert!(left.columns > 0, "a product of nothing");
    // SAFETY: all rows of the output lie within the slice, which is borrowed mutably.
    #[allow(unsafe_code)]
    unsafe {
        multiply(output.as_mut_ptr(), stride, left, right, false, threads);
    }
}

/// Adds left · right to the rows of `output`, whose starts are `stride` numbers apart.
pub(super) fn add_product(
    output: &mut [f32],
    stride: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    threads: Threads,
) {
    assert!(fits(output.len(), left.rows, right.columns, stride), "a product beyond its slice");
    if left.columns > 0 {
        // SAFETY: all rows of the output lie within the slice, which is borrowed mutably.
        #[allow(unsafe_code)]
        unsafe {
            multiply(output.as_mut_ptr(), stride, left, right, true, threads);
        }
    }
}

/// # Safety
///
/// `left.rows` rows of `right.columns` numbers, `stride` apart, may be written from `output` on,
/// and read if `add`.
#[allow(unsafe_code)]
unsafe fn multiply(
    output: *mut f32,
    stride: usize,
    left: Matrix<'_>,
    right: Matrix<'_>,
    add: bool,
    threads: Threads,
) {
    assert_eq!(left.columns, right.rows, "inner dimensions of a product");
    let (rows, columns, inner) = (left.rows, right.columns, left.columns);
    // SAFETY: both matrices lie within their slices, checked when they were made; the caller
    // answers for the output.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            output,
            1,
            stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            threads.parallelism(rows, columns, inner),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, start: u32) -> Vec<f32> {
        // Whole numbers: every sum is exact.
        (0..count as u32).map(|index| ((start + index * 7) % 11) as f32 - 5.0).collect()
    }

    fn expected(rows: usize, inner: usize, columns: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
        let cell = |cell: usize| {
            let (row, column) = (cell / columns, cell % columns);
            (0..inner).map(|i| a[row * inner + i] * b[i * columns + column]).sum()
        };
        (0..rows * columns).map(cell).collect()
    }

    #[test]
    fn should_multiply_any_shape() {
        for (rows, inner, columns) in
            [(1, 1, 1), (1, 64, 5), (3, 5, 7), (17, 33, 65), (200, 210, 220), (4, 0, 3), (0, 2, 2)]
        {
            let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 3));
            let (left, right) =
                (Matrix::new(&a, rows, inner, inner), Matrix::new(&b, inner, columns, columns));
            let all = product(left, right, Threads::All);
            assert_eq!(all, expected(rows, inner, columns, &a, &b), "{rows} {inner} {columns}");
            assert_eq!(all, product(left, right, Threads::One));
        }
    }

    #[test]
    fn should_read_transposed_and_strided_matrices_and_add_to_strided_rows() {
        let (rows, inner, columns) = (5, 3, 4);
        let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 3));
        let wanted = expected(rows, inner, columns, &a, &b);
        // `a` as the transpose of a matrix whose rows have two numbers too many.
        let mut wide = vec![99.0; inner * (rows + 2)];
        for (index, value) in a.iter().enumerate() {
            wide[index % inner * (rows + 2) + index / inner] = *value;
        }
        let left = Matrix::new(&wide, inner, rows, rows + 2).transposed();
        let mut output = vec![1.0; rows * 6];
        add_product(&mut output, 6, left, Matrix::packed(&b, columns), Threads::One);
        for (row, wanted) in output.chunks(6).zip(wanted.chunks(columns)) {
            let added: Vec<f32> = wanted.iter().map(|value| value + 1.0).collect();
            assert_eq!(row[..columns], added);
            assert_eq!(row[columns..], [1.0, 1.0]);
        }
    }

    #[test]
    #[should_panic(expected = "beyond its slice")]
    fn should_refuse_a_matrix_that_does_not_fit() {
        Matrix::new(&[0.0; 7], 2, 4, 4);
    }

    #[test]
    #[should_panic(expected = "beyond its slice")]
    fn should_refuse_an_output_that_does_not_fit() {
        let matrix = Matrix::packed(&[1.0; 4], 2);
        add_product(&mut [0.0; 4], 3, matrix, matrix, Threads::One);
    }
}
