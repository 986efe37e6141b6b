//! Classifier-free guidance (Ho and Salimans 2022) on the power-cosine schedule of RAR (paper,
//! appendix A.4, "Hyperparameters for sampling").

use std::f64::consts::PI;

/// How strongly token `index` of `length` is guided:
/// 1 + (guidance − 1) · (1 − cos(π · (index / length)^power)) / 2.
///
/// It starts at 1, so the first token is never guided, and approaches `guidance` at the end. A
/// guidance of 0 is an alias of 1.
pub fn scale(guidance: f64, power: f64, index: usize, length: usize) -> f64 {
    if !is_guided(guidance) {
        return 1.0;
    }
    let progress = (index as f64 / length as f64).powf(power);
    1.0 + (guidance - 1.0) * (1.0 - (PI * progress).cos()) / 2.0
}

/// Whether unconditional logits have a part in the result. Guidance 1 (and its alias 0) means
/// the conditional logits themselves.
pub fn is_guided(guidance: f64) -> bool {
    guidance != 1.0 && guidance != 0.0
}

/// Moves conditional logits away from unconditional ones, in place: u + (c − u) · scale.
pub fn guide(conditional: &mut [f32], unconditional: &[f32], scale: f64) {
    let scale = scale as f32;
    for (logit, &base) in conditional.iter_mut().zip(unconditional) {
        *logit = base + (*logit - base) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_start_at_one_and_rise_to_the_guidance() {
        let scales: Vec<f64> = (0..=10).map(|index| scale(5.0, 1.3, index, 10)).collect();
        assert_eq!(scales[0], 1.0);
        assert!(scales.windows(2).all(|pair| pair[0] < pair[1]));
        assert!((scales[10] - 5.0).abs() < 1e-12);
        assert!((scale(5.0, 1.0, 5, 10) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn should_treat_zero_as_one() {
        for index in 0..10 {
            assert_eq!(scale(0.0, 1.3, index, 10), 1.0);
            assert_eq!(scale(1.0, 1.3, index, 10), 1.0);
        }
        assert!(!is_guided(0.0) && !is_guided(1.0) && is_guided(0.5) && is_guided(2.0));
    }

    #[test]
    fn should_extrapolate_from_the_unconditional_logits() {
        let mut logits = [1.0, -2.0];
        guide(&mut logits, &[0.5, -1.0], 3.0);
        assert_eq!(logits, [2.0, -4.0]);
    }
}
