//! How much one prediction differs from another.

/// Natural logarithms of the softmax of logits, in f64.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let shifted: Vec<f64> = logits.iter().map(|&logit| f64::from(logit) - highest).collect();
    let total = shifted.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    shifted.into_iter().map(|logit| logit - total).collect()
}

/// The Kullback-Leibler divergence Σ p (ln p − ln q) in nats, of distributions that are given by
/// the logarithms of their probabilities.
///
/// # Panics
/// If they are over different numbers of outcomes.
pub fn divergence(p: &[f64], q: &[f64]) -> f64 {
    assert_eq!(p.len(), q.len(), "distributions over the same outcomes");
    let term =
        |(&p, &q): (&f64, &f64)| if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) };
    p.iter().zip(q).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_normalize_logits_of_any_height() {
        for height in [0.0, 900.0, -900.0] {
            let logarithms = log_softmax(&[height, height + 2.0, f32::NEG_INFINITY]);
            let total = 1.0 + 2f64.exp();
            assert!((logarithms[0] + total.ln()).abs() < 1e-12);
            assert!((logarithms[1] + total.ln() - 2.0).abs() < 1e-12);
            assert_eq!(logarithms[2], f64::NEG_INFINITY);
        }
    }

    #[test]
    fn should_follow_the_definition_of_divergence() {
        let (p, q) = ([0.5f64, 0.25, 0.25, 0.0], [0.25f64, 0.25, 0.25, 0.25]);
        let [p, q] = [p, q].map(|distribution| distribution.map(f64::ln));
        assert!((divergence(&p, &q) - 0.5 * 2f64.ln()).abs() < 1e-12);
        assert_eq!(divergence(&p, &p), 0.0);
        assert_eq!(divergence(&q, &p), f64::INFINITY);
    }
}
