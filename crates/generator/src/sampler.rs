//! From logits to a token.

use serde::{Deserialize, Serialize};
use tokens::{CodebookIndex, noise::Noise};

/// How tokens are chosen. A config of its own, beside architecture and recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Strength of classifier-free guidance; 1, or its alias 0, is none.
    pub guidance: f64,
    /// Power of the guidance schedule (see [`guidance::scale`](crate::guidance::scale)).
    pub guidance_power: f64,
    /// Divides the logits; 0 takes the largest.
    pub temperature: f64,
    /// Keeps the k largest logits; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest largest probabilities that sum to at least this; 1 keeps all.
    pub top_p: f64,
}

impl Default for SamplingConfig {
    /// The model's own distribution: no guidance, temperature 1, nothing cut off.
    fn default() -> Self {
        Self { guidance: 1.0, guidance_power: 1.0, temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

/// A sampling option out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The guidance is negative, infinite or not a number.
    #[error("guidance {0} is out of range: it must be 0 or more (1 is none)")]
    Guidance(f64),
    /// The power of the schedule is negative, infinite or not a number.
    #[error("guidance power {0} is out of range: it must be 0 or more")]
    GuidancePower(f64),
    /// The temperature is negative, infinite or not a number.
    #[error("temperature {0} is out of range: it must be 0 or more (0 takes the likeliest token)")]
    Temperature(f64),
    /// The probability is not in (0, 1].
    #[error("top-p {0} is out of range: it must be above 0 and at most 1 (1 keeps all)")]
    TopP(f64),
}

impl SamplingConfig {
    /// Checks every option.
    ///
    /// # Errors
    /// The first one out of range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let usable = |value: f64| value.is_finite() && value >= 0.0;
        if !usable(self.guidance) {
            return Err(SamplingError::Guidance(self.guidance));
        }
        if !usable(self.guidance_power) {
            return Err(SamplingError::GuidancePower(self.guidance_power));
        }
        if !usable(self.temperature) {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::TopP(self.top_p));
        }
        Ok(())
    }
}

/// Chooses a token from its (guided) logits: divided by the temperature, cut to the `top_k`
/// largest, then to the `top_p` likeliest of those, then drawn by the Gumbel-max trick: the
/// largest logit after adding to each code its own number of the noise. Ties go to the lowest
/// index, everywhere. `None` if there are no logits, or one is not a number.
///
/// It runs on the host in f64, so that the same logits give the same token on every machine.
pub fn choose(
    logits: &[f32],
    sampling: &SamplingConfig,
    noise: &mut Noise,
) -> Option<CodebookIndex> {
    if logits.is_empty() || logits.iter().any(|logit| logit.is_nan()) {
        return None;
    }
    let index = if sampling.temperature == 0.0 {
        largest(logits.iter().map(|&logit| f64::from(logit)))
    } else {
        let mut scaled: Vec<f64> =
            logits.iter().map(|&logit| f64::from(logit) / sampling.temperature).collect();
        cut(&mut scaled, sampling.top_k, sampling.top_p);
        largest(scaled.into_iter().map(|logit| logit + noise.gumbel()))
    };
    CodebookIndex::try_from(index?).ok()
}

/// Index of the largest value, the lowest one of equals.
fn largest(values: impl Iterator<Item = f64>) -> Option<usize> {
    values
        .enumerate()
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(index, _)| index)
}

/// Sets all logits but the kept ones to negative infinity.
fn cut(logits: &mut [f64], top_k: usize, top_p: f64) {
    let by_k = top_k != 0 && top_k < logits.len();
    if !by_k && top_p == 1.0 {
        return;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_unstable_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut kept = if by_k { top_k } else { logits.len() };
    if top_p < 1.0 {
        let peak = logits[order[0]];
        let weights: Vec<f64> = order[..kept].iter().map(|&i| (logits[i] - peak).exp()).collect();
        let enough = top_p * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        kept = weights
            .iter()
            .position(|weight| {
                sum += weight;
                sum >= enough
            })
            .map_or(kept, |last| last + 1);
    }
    for &index in &order[kept..] {
        logits[index] = f64::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use tokens::noise::Purpose;

    use super::*;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, 2.0, -1.0];

    fn sampling(temperature: f64, top_k: usize, top_p: f64) -> SamplingConfig {
        SamplingConfig { temperature, top_k, top_p, ..SamplingConfig::default() }
    }

    /// How often each token is chosen in 20,000 draws.
    fn frequencies(sampling: &SamplingConfig) -> [f64; 5] {
        let mut counts = [0.0; 5];
        for draw in 0..20_000 {
            let mut noise = Noise::new(1, Purpose::Sampling, 0, draw);
            counts[usize::from(choose(&LOGITS, sampling, &mut noise).unwrap())] += 1.0 / 20_000.0;
        }
        counts
    }

    fn assert_close(got: [f64; 5], weights: [f64; 5]) {
        let sum: f64 = weights.iter().sum();
        for (got, weight) in got.into_iter().zip(weights) {
            assert_eq!(got == 0.0, weight == 0.0);
            assert!((got - weight / sum).abs() < 0.015, "{got} {}", weight / sum);
        }
    }

    #[test]
    fn should_draw_from_the_softmax_at_its_temperature() {
        assert_close(frequencies(&sampling(1.0, 0, 1.0)), LOGITS.map(|l| f64::from(l).exp()));
        assert_close(frequencies(&sampling(2.0, 5, 1.0)), LOGITS.map(|l| f64::from(l / 2.0).exp()));
    }

    #[test]
    fn should_take_the_lowest_index_of_the_largest_at_temperature_zero() {
        assert_eq!(frequencies(&sampling(0.0, 0, 1.0))[1], frequencies(&sampling(0.0, 3, 0.1))[1]);
        assert!(frequencies(&sampling(0.0, 0, 1.0))[1] > 0.999);
    }

    #[test]
    fn should_keep_the_k_largest_and_the_lower_index_of_equals() {
        let e = std::f64::consts::E;
        assert_close(frequencies(&sampling(1.0, 1, 1.0)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_close(frequencies(&sampling(1.0, 3, 1.0)), [0.0, e, 1.0, e, 0.0]);
    }

    #[test]
    fn should_keep_the_fewest_tokens_that_reach_p() {
        // Probabilities 0.05, 0.37, 0.14, 0.37, 0.02 (and a rest): two reach 0.7, three 0.8.
        let e = std::f64::consts::E;
        assert_close(frequencies(&sampling(1.0, 0, 0.7)), [0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_close(frequencies(&sampling(1.0, 0, 0.8)), [0.0, e, 1.0, e, 0.0]);
        assert_close(frequencies(&sampling(1.0, 0, 1e-9)), [0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn should_cut_by_p_what_temperature_and_k_have_left() {
        // Of the two largest alone each has probability one half.
        assert_close(frequencies(&sampling(1.0, 2, 0.5)), [0.0, 1.0, 0.0, 0.0, 0.0]);
        // A low temperature leaves the third so little that 0.9 no longer needs it.
        assert_close(frequencies(&sampling(0.25, 0, 0.9)), [0.0, 1.0, 0.0, 1.0, 0.0]);
        assert!(frequencies(&sampling(1.0, 0, 0.9))[2] > 0.0);
    }

    #[test]
    fn should_refuse_options_out_of_range() {
        let default = SamplingConfig::default();
        assert_eq!(default.validate(), Ok(()));
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            for refused in [
                SamplingConfig { guidance: value, ..default },
                SamplingConfig { guidance_power: value, ..default },
                SamplingConfig { temperature: value, ..default },
                SamplingConfig { top_p: value, ..default },
            ] {
                assert!(refused.validate().is_err(), "{refused:?}");
            }
        }
        assert_eq!(sampling(1.0, 0, 0.0).validate(), Err(SamplingError::TopP(0.0)));
        assert_eq!(sampling(1.0, 0, 1.5).validate(), Err(SamplingError::TopP(1.5)));
    }

    #[test]
    fn should_choose_nothing_from_logits_that_are_no_numbers() {
        let mut noise = Noise::new(1, Purpose::Sampling, 0, 0);
        assert_eq!(choose(&[0.0, f32::NAN], &sampling(1.0, 0, 1.0), &mut noise), None);
        assert_eq!(choose(&[], &sampling(0.0, 0, 1.0), &mut noise), None);
    }
}
