//! Mean and covariance of features that arrive in parts.

use std::collections::BTreeMap;

use faer::{Accum, Mat, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::{FeatureMatrix, MetricsError};

/// Rows that are summed at once. Sums are taken over blocks of this many rows, counted from row
/// 0 of the whole set, and block sums are added in a binary tree over their positions.
const BLOCK: usize = 1024;
/// Rows of the scatter matrix that one task computes.
const STRIP: usize = 128;

/// Mean and covariance of a set of feature rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Gaussian {
    /// Number of rows the moments are of; 0 if the file they come from does not say.
    pub count: u64,
    /// The mean, `[width]`.
    pub mean: Vec<f64>,
    /// The covariance, `[width, width]`, unbiased: divided by one less than the count, as NumPy's
    /// `cov` does.
    pub covariance: Vec<f64>,
}

/// Streaming mean and covariance in f64.
///
/// Rows are addressed by their position in the whole set. However they are cut into batches, and
/// whichever process takes which rows, [`gaussian`](Self::gaussian) has the same bits: the order
/// of summation is a function of the positions alone. Memory is bounded by a few scatter
/// matrices, one for each bit of the number of blocks, as long as each process takes rows that
/// follow each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    width: usize,
    /// Sums of aligned runs of 2^level blocks, by (level, position of the run).
    sums: BTreeMap<(u32, u64), Sum>,
    /// Rows of blocks that are not complete yet: by block, then by first row in it.
    pending: BTreeMap<u64, BTreeMap<usize, Vec<f32>>>,
}

/// Count, mean and centred scatter of some rows.
#[derive(Debug, Clone, PartialEq)]
struct Sum {
    count: u64,
    mean: Vec<f64>,
    /// The lower triangle of Σ (x − mean)(x − mean)ᵀ, row after row.
    scatter: Vec<f64>,
}

impl Moments {
    /// No rows yet.
    ///
    /// # Panics
    /// If `width` is zero.
    pub fn new(width: usize) -> Self {
        assert!(width > 0, "features have at least one value");
        Self { width, sums: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows taken in.
    pub fn count(&self) -> u64 {
        let summed: u64 = self.sums.values().map(|sum| sum.count).sum();
        summed + self.pending.values().map(|pieces| self.rows_of(pieces) as u64).sum::<u64>()
    }

    fn rows_of(&self, pieces: &BTreeMap<usize, Vec<f32>>) -> usize {
        pieces.values().map(|values| values.len() / self.width).sum()
    }

    /// Takes in rows; the first of them is row `first` of the whole set.
    ///
    /// # Errors
    /// [`MetricsError::Width`] for rows of another width, [`MetricsError::Overlap`] if one of
    /// these rows was taken in before; then some of the others may have been taken in.
    pub fn add(&mut self, first: u64, rows: &FeatureMatrix) -> Result<(), MetricsError> {
        if rows.width() != self.width {
            return Err(MetricsError::Width { expected: self.width, got: rows.width() });
        }
        let (mut position, mut rest) = (first, rows.values());
        while !rest.is_empty() {
            let (block, start) = (position / BLOCK as u64, (position % BLOCK as u64) as usize);
            let taken = (BLOCK - start).min(rest.len() / self.width);
            let (piece, after) = rest.split_at(taken * self.width);
            self.add_piece(block, start, piece)?;
            position += taken as u64;
            rest = after;
        }
        Ok(())
    }

    fn add_piece(&mut self, block: u64, start: usize, values: &[f32]) -> Result<(), MetricsError> {
        let width = self.width;
        let end = start + values.len() / width;
        let overlap = MetricsError::Overlap { row: block * BLOCK as u64 + start as u64 };
        if self.sums.keys().any(|&(level, position)| block >> level == position) {
            return Err(overlap);
        }
        let pieces = self.pending.entry(block).or_default();
        let before = pieces.range(..end).next_back();
        if before.is_some_and(|(&other, values)| other + values.len() / width > start) {
            return Err(overlap);
        }
        // Rows that follow a piece lengthen it, so that small batches stay one piece.
        match before.map(|(&other, values)| (other, other + values.len() / width)) {
            Some((other, stop)) if stop == start => {
                pieces.entry(other).or_default().extend_from_slice(values);
            }
            _ => {
                pieces.insert(start, values.to_vec());
            }
        }
        if pieces.values().map(Vec::len).sum::<usize>() == BLOCK * width {
            let pieces = self.pending.remove(&block).unwrap_or_default();
            let sum = Sum::of_rows(&pieces.into_values().collect::<Vec<_>>().concat(), width);
            self.insert(0, block, sum)?;
        }
        Ok(())
    }

    /// Puts a run in its place in the tree, and joins it with its neighbour where that is there.
    fn insert(&mut self, level: u32, position: u64, sum: Sum) -> Result<(), MetricsError> {
        let taken = |&(other, place): &(u32, u64)| {
            let shared = level.max(other);
            position >> (shared - level) == place >> (shared - other)
        };
        let row = (position << level) * BLOCK as u64;
        let in_pending = self.pending.keys().any(|&block| block >> level == position);
        if in_pending || self.sums.keys().any(taken) {
            return Err(MetricsError::Overlap { row });
        }
        let (mut level, mut position, mut sum) = (level, position, sum);
        while let Some(other) = self.sums.remove(&(level, position ^ 1)) {
            let (mut left, right) = if position & 1 == 0 { (sum, other) } else { (other, sum) };
            left.join(&right);
            (level, position, sum) = (level + 1, position >> 1, left);
        }
        self.sums.insert((level, position), sum);
        Ok(())
    }

    /// Takes in what another process has summed of the same set.
    ///
    /// # Errors
    /// [`MetricsError::Width`] for features of another width, [`MetricsError::Overlap`] if both
    /// have taken in the same row.
    pub fn merge(&mut self, other: Self) -> Result<(), MetricsError> {
        if other.width != self.width {
            return Err(MetricsError::Width { expected: self.width, got: other.width });
        }
        for ((level, position), sum) in other.sums {
            self.insert(level, position, sum)?;
        }
        for (block, pieces) in other.pending {
            for (start, values) in pieces {
                self.add_piece(block, start, &values)?;
            }
        }
        Ok(())
    }

    /// Mean and covariance of all rows so far.
    ///
    /// # Errors
    /// [`MetricsError::TooFew`] with fewer than two rows, which have no covariance.
    pub fn gaussian(&self) -> Result<Gaussian, MetricsError> {
        let mut parts: Vec<(u64, Sum)> = self
            .sums
            .iter()
            .map(|(&(level, position), sum)| (position << level, sum.clone()))
            .collect();
        for (&block, pieces) in &self.pending {
            let rows = pieces.values().flatten().copied().collect::<Vec<_>>();
            parts.push((block, Sum::of_rows(&rows, self.width)));
        }
        parts.sort_by_key(|&(block, _)| block);
        let mut parts = parts.into_iter().map(|(_, sum)| sum);
        let mut total = parts.next().unwrap_or_else(|| Sum::empty(self.width));
        parts.for_each(|part| total.join(&part));
        if total.count < 2 {
            let got = total.count as usize;
            return Err(MetricsError::TooFew { what: "a covariance", needed: 2, got });
        }
        let (width, divisor) = (self.width, (total.count - 1) as f64);
        let mut covariance = vec![0.0; width * width];
        let mut packed = total.scatter.iter();
        for row in 0..width {
            for (column, value) in packed.by_ref().take(row + 1).enumerate() {
                let value = value / divisor;
                covariance[row * width + column] = value;
                covariance[column * width + row] = value;
            }
        }
        Ok(Gaussian { count: total.count, mean: total.mean, covariance })
    }
}

fn triangle(width: usize) -> usize {
    width * (width + 1) / 2
}

impl Sum {
    fn empty(width: usize) -> Self {
        Self { count: 0, mean: vec![0.0; width], scatter: vec![0.0; triangle(width)] }
    }

    /// The sum of at most [`BLOCK`] rows.
    fn of_rows(values: &[f32], width: usize) -> Self {
        let count = values.len() / width;
        let mut mean = vec![0.0; width];
        for row in values.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let centred: Vec<f64> = values
            .par_chunks_exact(width)
            .flat_map_iter(|row| {
                row.iter().zip(&mean).map(|(&value, mean)| f64::from(value) - mean)
            })
            .collect();
        let centred = MatRef::from_row_major_slice(&centred, count, width);

        let mut scatter = vec![0.0; triangle(width)];
        let mut strips = Vec::new();
        let mut rest = scatter.as_mut_slice();
        for first in (0..width).step_by(STRIP) {
            let end = (first + STRIP).min(width);
            let (strip, after) = rest.split_at_mut(triangle(end) - triangle(first));
            strips.push((first, end, strip));
            rest = after;
        }
        // Each strip is computed by one thread in one shape, so that neither the number of
        // threads nor their timing is in the result. The longest strips go first.
        strips.into_par_iter().rev().for_each(|(first, end, strip)| {
            let mut product = vec![0.0; (end - first) * end];
            matmul(
                MatMut::from_row_major_slice_mut(&mut product, end - first, end),
                Accum::Replace,
                centred.subcols(first, end - first).transpose(),
                centred.subcols(0, end),
                1.0,
                Par::Seq,
            );
            let mut strip = strip.iter_mut();
            for (row, products) in product.chunks_exact(end).enumerate() {
                strip.by_ref().zip(&products[..=first + row]).for_each(|(to, &from)| *to = from);
            }
        });
        Self { count: count as u64, mean, scatter }
    }

    /// Adds the rows of another sum (Chan, Golub and LeVeque 1979), which loses no digits where
    /// the mean is large beside the deviation.
    fn join(&mut self, other: &Self) {
        let (a, b) = (self.count as f64, other.count as f64);
        let total = a + b;
        let difference: Vec<f64> =
            self.mean.iter().zip(&other.mean).map(|(mean, other)| other - mean).collect();
        let weight = a * b / total;
        let mut scatter = self.scatter.iter_mut().zip(&other.scatter);
        for (row, &left) in difference.iter().enumerate() {
            let left = weight * left;
            for ((sum, other), right) in scatter.by_ref().take(row + 1).zip(&difference) {
                *sum += other + left * right;
            }
        }
        for (mean, difference) in self.mean.iter_mut().zip(&difference) {
            *mean += difference * (b / total);
        }
        self.count += other.count;
    }
}

impl Gaussian {
    /// Values of a row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    pub(crate) fn covariance_matrix(&self) -> Mat<f64> {
        let width = self.width();
        Mat::from_fn(width, width, |row, column| self.covariance[row * width + column])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::by_rule;

    fn whole(rows: &FeatureMatrix) -> Moments {
        let mut moments = Moments::new(rows.width());
        moments.add(0, rows).unwrap();
        moments
    }

    fn part(rows: &FeatureMatrix, range: std::ops::Range<usize>) -> FeatureMatrix {
        let width = rows.width();
        let values = &rows.values()[range.start * width..range.end * width];
        FeatureMatrix::new(width, values.to_vec()).unwrap()
    }

    #[test]
    fn should_follow_the_definition() {
        let rows = by_rule(3 * BLOCK + 37, 5, 4, |value| 100.0 + value);
        let got = whole(&rows).gaussian().unwrap();
        let count = rows.rows() as f64;
        let mean = |j: usize| -> f64 {
            (0..rows.rows()).map(|i| f64::from(rows.row(i)[j])).sum::<f64>() / count
        };
        for j in 0..5 {
            assert!((got.mean[j] - mean(j)).abs() < 1e-11);
            for k in 0..5 {
                let sum: f64 = (0..rows.rows())
                    .map(|i| {
                        let row = rows.row(i);
                        (f64::from(row[j]) - mean(j)) * (f64::from(row[k]) - mean(k))
                    })
                    .sum();
                let covariance = sum / (count - 1.0);
                assert!((got.covariance[j * 5 + k] - covariance).abs() < 1e-11);
            }
        }
    }

    #[test]
    fn should_have_the_same_bits_for_any_batches_and_shards() {
        let rows = by_rule(5 * BLOCK + 300, 3, 4, |value| value);
        let expected = whole(&rows).gaussian().unwrap();
        for batch in [1, 7, 64, 1024, 1500] {
            let mut moments = Moments::new(3);
            for start in (0..rows.rows()).step_by(batch) {
                let end = (start + batch).min(rows.rows());
                moments.add(start as u64, &part(&rows, start..end)).unwrap();
            }
            assert_eq!(moments.gaussian().unwrap(), expected, "batches of {batch}");
        }
        for cuts in [vec![1], vec![1024, 3000], vec![100, 2000, 2001, 5200]] {
            let ends = cuts.iter().copied().chain([rows.rows()]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let mut shards: Vec<Moments> = starts
                .zip(ends)
                .map(|(start, end)| {
                    let mut moments = Moments::new(3);
                    moments.add(start as u64, &part(&rows, start..end)).unwrap();
                    moments
                })
                .collect();
            shards.rotate_left(1);
            let mut merged = Moments::new(3);
            shards.into_iter().for_each(|shard| merged.merge(shard).unwrap());
            assert_eq!(merged.count(), rows.rows() as u64);
            assert_eq!(merged.gaussian().unwrap(), expected, "cut at {cuts:?}");
        }
    }

    #[test]
    fn should_refuse_rows_that_come_twice_and_sets_without_a_covariance() {
        let rows = by_rule(BLOCK + 10, 2, 1, |value| value);
        let mut moments = whole(&rows);
        for row in [0, 500, BLOCK as u64 + 9] {
            let twice = moments.add(row, &part(&rows, 0..1));
            assert!(matches!(twice, Err(MetricsError::Overlap { .. })), "{row}");
        }
        assert!(moments.clone().merge(moments).is_err());
        let mut one = Moments::new(2);
        one.add(7, &part(&rows, 0..1)).unwrap();
        assert!(matches!(one.gaussian(), Err(MetricsError::TooFew { needed: 2, got: 1, .. })));
        assert!(one.add(8, &FeatureMatrix::empty(3)).is_err());
    }
}
