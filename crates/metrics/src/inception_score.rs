//! Inception Score.

use crate::{FeatureMatrix, MetricsError, numpy_random::LegacyRandom};

/// How a set is cut for the Inception Score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreSplits {
    /// Parts of this many rows in their order, the last one as long as rows are left: guided-diffusion's
    /// evaluator with 5000. Rows should come in class-cycling order, or each part misses classes.
    Consecutive(usize),
    /// This many parts of rows shuffled by NumPy's `RandomState(2020)`: torch-fidelity with 10.
    Shuffled(usize),
}

impl ScoreSplits {
    /// guided-diffusion's evaluator.
    pub const GUIDED_DIFFUSION: Self = Self::Consecutive(5000);
    /// torch-fidelity's defaults.
    pub const TORCH_FIDELITY: Self = Self::Shuffled(10);
}

/// The mean of a score over parts or subsets of a set, and their population deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Mean over the parts.
    pub mean: f64,
    /// Population standard deviation over the parts.
    pub deviation: f64,
}

impl Score {
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Self { mean, deviation: square.sqrt() }
    }
}

/// The Inception Score (Salimans et al. 2016): exp of the mean Kullback-Leibler divergence of each
/// picture's class probabilities from those of its part, averaged over the parts; from 1 to the
/// number of classes. `logits` are Inception's without bias.
///
/// # Errors
/// [`MetricsError::TooFew`] if a part would be empty.
pub fn inception_score(logits: &FeatureMatrix, splits: ScoreSplits) -> Result<Score, MetricsError> {
    let count = logits.rows();
    let parts: Vec<Vec<usize>> = match splits {
        ScoreSplits::Consecutive(size) if size > 0 => {
            (0..count).collect::<Vec<_>>().chunks(size).map(<[usize]>::to_vec).collect()
        }
        ScoreSplits::Shuffled(parts) if parts > 0 && count >= parts => {
            let order = LegacyRandom::new(LegacyRandom::TORCH_FIDELITY).permutation(count);
            (0..parts).map(|i| order[i * count / parts..(i + 1) * count / parts].to_vec()).collect()
        }
        _ => Vec::new(),
    };
    if parts.is_empty() {
        let needed = match splits {
            ScoreSplits::Consecutive(_) => 1,
            ScoreSplits::Shuffled(parts) => parts.max(1),
        };
        return Err(MetricsError::TooFew { what: "the Inception Score", needed, got: count });
    }
    let scores: Vec<f64> = parts.iter().map(|rows| score_of_part(logits, rows)).collect();
    Ok(Score::of(&scores))
}

/// Mean p·(log p − log q) with q the mean of p is mean p·log p − q·log q.
fn score_of_part(logits: &FeatureMatrix, rows: &[usize]) -> f64 {
    let mut mean = vec![0.0; logits.width()];
    let mut negative_entropy = 0.0;
    for &row in rows {
        let row = logits.row(row);
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = |value: f32| f64::from(value) - f64::from(largest);
        let total: f64 = row.iter().map(|&value| shifted(value).exp()).sum();
        let log_total = total.ln();
        for (mean, &value) in mean.iter_mut().zip(row) {
            let log = shifted(value) - log_total;
            let probability = log.exp();
            *mean += probability;
            negative_entropy += probability * log;
        }
    }
    let count = rows.len() as f64;
    let marginal: f64 = mean
        .iter()
        .map(|sum| sum / count)
        .filter(|&probability| probability > 0.0)
        .map(|probability| probability * probability.ln())
        .sum();
    (negative_entropy / count - marginal).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::by_rule;

    #[test]
    fn should_equal_torch_fidelity_and_the_guided_diffusion_evaluator() {
        // torch_fidelity 0.4.0, isc_features_to_metric(torch.tensor(x), 10), and the formula of
        // guided-diffusion's evaluator in float64 with a split size of 30, of x = 8 · rule − 4.
        let logits = by_rule(130, 20, 3, |value| 8.0 * value - 4.0);
        let close = |got: f64, expected: f64| {
            assert!((got / expected - 1.0).abs() < 1e-9, "{got}, not {expected}");
        };
        let score = inception_score(&logits, ScoreSplits::TORCH_FIDELITY).unwrap();
        close(score.mean, 2.531789226383477);
        close(score.deviation, 0.10796080820440597);
        let score = inception_score(&logits, ScoreSplits::Consecutive(30)).unwrap();
        close(score.mean, 2.592979575813753);
    }

    #[test]
    fn should_be_the_number_of_classes_for_certain_and_even_predictions() {
        let mut values = vec![0.0; 40 * 8];
        (0..40).for_each(|row| values[row * 8 + row % 8] = 1000.0);
        let logits = FeatureMatrix::new(8, values).unwrap();
        let score = inception_score(&logits, ScoreSplits::Consecutive(20)).unwrap();
        // Parts of 20 rows of 8 classes are not even; parts of 40 are.
        assert!(score.mean < 8.0 - 1e-3);
        let score = inception_score(&logits, ScoreSplits::Consecutive(40)).unwrap();
        assert!((score.mean - 8.0).abs() < 1e-12);
        let same = FeatureMatrix::new(3, vec![0.5; 30]).unwrap();
        let score = inception_score(&same, ScoreSplits::TORCH_FIDELITY).unwrap();
        assert!((score.mean - 1.0).abs() < 1e-12 && score.deviation < 1e-12);
        let few = inception_score(&FeatureMatrix::empty(3), ScoreSplits::GUIDED_DIFFUSION);
        assert!(matches!(few, Err(MetricsError::TooFew { .. })));
    }
}
