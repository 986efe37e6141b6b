//! Improved precision and recall.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::{FeatureMatrix, MetricsError};

/// Rows whose distances one task computes at once, and columns.
const ROWS: usize = 256;
const COLUMNS: usize = 2048;
/// Candidates for the nearest neighbours that are kept before the list is cleared out.
const CANDIDATES: usize = 64;

/// How much of one set lies near another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Fraction of the samples that lie in the reference's manifold: fidelity.
    pub precision: f64,
    /// Fraction of the reference that lies in the samples' manifold: diversity.
    pub recall: f64,
}

/// Improved precision and recall (Kynkäänniemi et al. 2019). The manifold of a set is the union of
/// balls around its rows that reach to the `neighbours`-th nearest other row; the field takes 3.
///
/// The result is that of comparing all pairs in f64. Products in f32, blocks at a time, decide
/// most pairs; those that rounding leaves open are computed again. guided-diffusion's evaluator
/// computes distances in half precision and is off by some thousandths.
///
/// # Errors
/// [`MetricsError::Width`] if the widths differ, [`MetricsError::TooFew`] if a set has no
/// `neighbours` other rows.
pub fn precision_recall(
    reference: &FeatureMatrix,
    samples: &FeatureMatrix,
    neighbours: usize,
) -> Result<PrecisionRecall, MetricsError> {
    reference.expect_width(samples.width())?;
    let got = reference.rows().min(samples.rows());
    if got <= neighbours {
        return Err(MetricsError::TooFew {
            what: "precision and recall",
            needed: neighbours + 1,
            got,
        });
    }
    let (reference, samples) = (Rows::new(reference), Rows::new(samples));
    Ok(PrecisionRecall {
        precision: samples.fraction_within(&reference, &reference.radii(neighbours)),
        recall: reference.fraction_within(&samples, &samples.radii(neighbours)),
    })
}

/// Rows with their lengths.
struct Rows<'a> {
    features: &'a FeatureMatrix,
    lengths: Vec<f64>,
}

/// What is known of a squared distance before it is computed exactly.
#[derive(Clone, Copy)]
struct Bounds {
    low: f64,
    high: f64,
}

impl<'a> Rows<'a> {
    fn new(features: &'a FeatureMatrix) -> Self {
        let length = |row: usize| {
            features.row(row).iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
        };
        Self { features, lengths: (0..features.rows()).into_par_iter().map(length).collect() }
    }

    /// The squared distance of two rows in f64.
    fn distance(&self, row: usize, other: &Rows<'_>, column: usize) -> f64 {
        let pairs = self.features.row(row).iter().zip(other.features.row(column));
        pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    }

    /// Calls `visit` with (row, column, bounds) for all pairs of a row in `first..first + count`
    /// and a row of `other`.
    fn compare(
        &self,
        first: usize,
        count: usize,
        other: &Rows<'_>,
        mut visit: impl FnMut(usize, usize, Bounds),
    ) {
        let width = self.features.width();
        // |fl(a·b) − a·b| ≤ n·u·|a|·|b| in any order of summation (Higham 2002, section 3.1),
        // doubled to cover the second order and the rounding of all else.
        let rounding = 2.0 * width as f64 * f64::from(f32::EPSILON);
        let part = |rows: &'a FeatureMatrix, first: usize, count: usize| {
            MatRef::from_row_major_slice(
                &rows.values()[first * width..][..count * width],
                count,
                width,
            )
        };
        let left = part(self.features, first, count);
        for start in (0..other.lengths.len()).step_by(COLUMNS) {
            let columns = COLUMNS.min(other.lengths.len() - start);
            let mut products = vec![0.0_f32; count * columns];
            let values = &other.features.values()[start * width..][..columns * width];
            matmul(
                MatMut::from_row_major_slice_mut(&mut products, count, columns),
                Accum::Replace,
                left,
                MatRef::from_row_major_slice(values, columns, width).transpose(),
                1.0,
                Par::Seq,
            );
            for (row, products) in products.chunks_exact(columns).enumerate() {
                let length = self.lengths[first + row];
                for (column, &product) in products.iter().enumerate() {
                    let other = other.lengths[start + column];
                    let distance = length * length + other * other - 2.0 * f64::from(product);
                    let error = rounding * length * other + f64::from(f32::MIN_POSITIVE);
                    let error = if product.is_finite() { error } else { f64::INFINITY };
                    let low = if error.is_finite() { distance - error } else { f64::NEG_INFINITY };
                    let high = if error.is_finite() { distance + error } else { f64::INFINITY };
                    visit(first + row, start + column, Bounds { low, high });
                }
            }
        }
    }

    fn blocks(&self) -> impl IndexedParallelIterator<Item = (usize, usize)> {
        let rows = self.lengths.len();
        (0..rows.div_ceil(ROWS)).into_par_iter().map(move |block| {
            let first = block * ROWS;
            (first, ROWS.min(rows - first))
        })
    }

    /// The squared distance of each row to its `neighbours`-th nearest other row.
    fn radii(&self, neighbours: usize) -> Vec<f64> {
        let of_block = |(first, count): (usize, usize)| {
            let mut candidates: Vec<Vec<(usize, Bounds)>> = vec![Vec::new(); count];
            let mut limits = vec![f64::INFINITY; count];
            self.compare(first, count, self, |row, column, bounds| {
                let (found, limit) = (&mut candidates[row - first], &mut limits[row - first]);
                if bounds.low <= *limit {
                    found.push((column, bounds));
                    if found.len() >= CANDIDATES.max(2 * neighbours)
                        && found.len().is_power_of_two()
                    {
                        *limit = clear_out(found, neighbours);
                    }
                }
            });
            let radius = |(row, found): (usize, &mut Vec<(usize, Bounds)>)| {
                clear_out(found, neighbours);
                let mut distances: Vec<f64> = found
                    .iter()
                    .map(|&(column, _)| self.distance(first + row, self, column))
                    .collect();
                // The row itself is among them, at zero.
                *distances.select_nth_unstable_by(neighbours, f64::total_cmp).1
            };
            candidates.iter_mut().enumerate().map(radius).collect::<Vec<_>>()
        };
        self.blocks().flat_map_iter(of_block).collect()
    }

    /// The fraction of rows that lie in a ball around a row of `other`.
    fn fraction_within(&self, other: &Rows<'_>, radii: &[f64]) -> f64 {
        let of_block = |(first, count): (usize, usize)| {
            let mut inside = vec![false; count];
            self.compare(first, count, other, |row, column, bounds| {
                let inside = &mut inside[row - first];
                if !*inside && bounds.low <= radii[column] {
                    *inside = bounds.high <= radii[column]
                        || self.distance(row, other, column) <= radii[column];
                }
            });
            inside.into_iter().filter(|&inside| inside).count()
        };
        self.blocks().map(of_block).sum::<usize>() as f64 / self.lengths.len() as f64
    }
}

/// Drops candidates that cannot be among the nearest; returns the limit of those that can.
fn clear_out(found: &mut Vec<(usize, Bounds)>, neighbours: usize) -> f64 {
    let mut highs: Vec<f64> = found.iter().map(|(_, bounds)| bounds.high).collect();
    let limit = *highs.select_nth_unstable_by(neighbours, f64::total_cmp).1;
    found.retain(|(_, bounds)| bounds.low <= limit);
    limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::by_rule;

    /// All pairs in f64.
    fn brute_force(
        reference: &FeatureMatrix,
        samples: &FeatureMatrix,
        neighbours: usize,
    ) -> PrecisionRecall {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
        };
        let radii = |set: &FeatureMatrix| -> Vec<f64> {
            (0..set.rows())
                .map(|row| {
                    let mut all: Vec<f64> = (0..set.rows())
                        .map(|other| distance(set.row(row), set.row(other)))
                        .collect();
                    all.sort_by(f64::total_cmp);
                    all[neighbours]
                })
                .collect()
        };
        let within = |set: &FeatureMatrix, of: &FeatureMatrix| {
            let radii = radii(of);
            let inside = |row: &usize| {
                (0..of.rows()).any(|other| distance(set.row(*row), of.row(other)) <= radii[other])
            };
            (0..set.rows()).filter(inside).count() as f64 / set.rows() as f64
        };
        PrecisionRecall {
            precision: within(samples, reference),
            recall: within(reference, samples),
        }
    }

    #[test]
    fn should_equal_a_brute_force_in_f64() {
        // Large offsets make the products in f32 lose the distances' digits.
        for (offset, count) in [(0.0, 700), (1000.0, 150)] {
            let reference = by_rule(count, 12, 1, |value| value + offset);
            let samples = by_rule(300, 12, 2, |value| 1.1 * value + offset);
            let expected = brute_force(&reference, &samples, 3);
            assert_eq!(precision_recall(&reference, &samples, 3).unwrap(), expected);
            assert!(expected.precision > 0.05 && expected.precision < 0.99, "{expected:?}");
            assert!(expected.recall > 0.05 && expected.recall < 0.99, "{expected:?}");
        }
    }

    #[test]
    fn should_equal_the_evaluators_formula() {
        // guided-diffusion's formula in numpy, float64, of the two rules.
        let reference = by_rule(200, 8, 1, |value| value);
        let samples = by_rule(160, 8, 2, |value| 1.2 * value);
        let got = precision_recall(&reference, &samples, 3).unwrap();
        assert_eq!((got.precision, got.recall), (0.625, 0.995));
    }

    #[test]
    fn should_take_ties_as_inside() {
        // Each row four times: all radii are zero, and only equal rows are inside.
        let values: Vec<f32> = (0..40).flat_map(|row| [(row / 4) as f32, 0.3]).collect();
        let set = FeatureMatrix::new(2, values).unwrap();
        let other = by_rule(30, 2, 1, |value| value + 0.1);
        let whole = PrecisionRecall { precision: 1.0, recall: 1.0 };
        assert_eq!(precision_recall(&set, &set, 3).unwrap(), whole);
        assert_eq!(precision_recall(&set, &other, 3).unwrap(), brute_force(&set, &other, 3));
        let few = precision_recall(&set, &by_rule(3, 2, 1, |value| value), 3);
        assert!(matches!(few, Err(MetricsError::TooFew { needed: 4, got: 3, .. })));
    }
}
