//! Kernel Inception Distance.

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::{FeatureMatrix, MetricsError, inception_score::Score, numpy_random::LegacyRandom};

/// How often and on how many rows [`kernel_distance`] is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSubsets {
    /// Number of subsets.
    pub count: usize,
    /// Rows of each set in a subset.
    pub size: usize,
}

impl KernelSubsets {
    /// torch-fidelity's defaults.
    pub const TORCH_FIDELITY: Self = Self { count: 100, size: 1000 };
}

/// The squared maximum mean discrepancy of two sets under the kernel (x·y / width + 1)³, by the
/// unbiased estimator, averaged over subsets (Bińkowski et al. 2018). Of Inception's pooled features it
/// is the KID as torch-fidelity computes it, with the subsets of NumPy's `RandomState(2020)`. It
/// can be a little below zero.
///
/// # Errors
/// [`MetricsError::Width`] if the widths differ, [`MetricsError::TooFew`] if a set is smaller than
/// a subset.
pub fn kernel_distance(
    first: &FeatureMatrix,
    second: &FeatureMatrix,
    subsets: KernelSubsets,
) -> Result<Score, MetricsError> {
    first.expect_width(second.width())?;
    let needed = subsets.size.max(2);
    let got = first.rows().min(second.rows());
    if got < needed || subsets.count == 0 {
        return Err(MetricsError::TooFew { what: "the kernel distance", needed, got });
    }
    let mut random = LegacyRandom::new(LegacyRandom::TORCH_FIDELITY);
    let mut draw = |rows: usize| {
        let mut chosen = random.permutation(rows);
        chosen.truncate(subsets.size);
        chosen
    };
    let chosen: Vec<_> =
        (0..subsets.count).map(|_| (draw(first.rows()), draw(second.rows()))).collect();
    let distances: Vec<f64> =
        chosen.par_iter().map(|(x, y)| discrepancy(&rows(first, x), &rows(second, y))).collect();
    Ok(Score::of(&distances))
}

fn rows(features: &FeatureMatrix, chosen: &[usize]) -> Mat<f64> {
    Mat::from_fn(features.width(), chosen.len(), |column, row| {
        f64::from(features.row(chosen[row])[column])
    })
}

/// # Shapes
/// Both `[width, size]`.
fn discrepancy(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let size = x.ncols() as f64;
    let within = |x: &Mat<f64>| kernel_sum(x.as_ref(), x.as_ref(), true) / (size * (size - 1.0));
    within(x) + within(y) - 2.0 * kernel_sum(x.as_ref(), y.as_ref(), false) / (size * size)
}

/// The sum of the kernel over all pairs, or over those of different position.
fn kernel_sum(x: MatRef<'_, f64>, y: MatRef<'_, f64>, skip_diagonal: bool) -> f64 {
    let scale = 1.0 / x.nrows() as f64;
    let mut products = Mat::zeros(x.ncols(), y.ncols());
    matmul(products.as_mut(), Accum::Replace, x.transpose(), y, scale, Par::Seq);
    let column = |column: usize| -> f64 {
        let rows = (0..x.ncols()).filter(|&row| !(skip_diagonal && row == column));
        rows.map(|row| (products[(row, column)] + 1.0).powi(3)).sum()
    };
    (0..y.ncols()).map(column).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::by_rule;

    #[test]
    fn should_equal_torch_fidelity() {
        // torch_fidelity 0.4.0, kid_features_to_metric of the two rules in float64, 5 subsets of
        // 50 rows.
        let first = by_rule(120, 16, 1, |value| value);
        let second = by_rule(90, 16, 2, |value| 1.5 * value);
        let subsets = KernelSubsets { count: 5, size: 50 };
        let got = kernel_distance(&first, &second, subsets).unwrap();
        assert!((got.mean / 0.5249592673627561 - 1.0).abs() < 1e-9, "{}", got.mean);
        assert!((got.deviation / 0.03150016546767797 - 1.0).abs() < 1e-7, "{}", got.deviation);
    }

    #[test]
    fn should_refuse_sets_smaller_than_a_subset() {
        let set = by_rule(40, 4, 1, |value| value);
        let subsets = KernelSubsets { count: 2, size: 41 };
        let error = kernel_distance(&set, &set, subsets).unwrap_err();
        assert_eq!(
            error,
            MetricsError::TooFew { what: "the kernel distance", needed: 41, got: 40 }
        );
    }
}
