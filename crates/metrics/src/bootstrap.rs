//! How much a measure of a set would change with other samples.

use tokens::noise::{Noise, Purpose};

use crate::MetricsError;

/// The standard deviation of a measure over samples drawn anew, by the bootstrap (Efron 1979): from
/// the set's `rows`, as many are drawn with replacement, `resamples` times, and measured each time.
///
/// What is common to all samples of a size is not in it: with few samples a Fréchet distance is
/// too large, whichever they are. Rows are chosen by `seed`, so that equal calls have equal results.
///
/// # Errors
/// [`MetricsError::TooFew`] with fewer than two rows or resamples, and what `measure` returns.
pub fn bootstrap_deviation<E: From<MetricsError>>(
    rows: usize,
    resamples: usize,
    seed: u64,
    mut measure: impl FnMut(&[usize]) -> Result<f64, E>,
) -> Result<f64, E> {
    let got = rows.min(resamples);
    if got < 2 {
        return Err(MetricsError::TooFew { what: "the bootstrap", needed: 2, got }.into());
    }
    let values = (0..resamples)
        .map(|resample| {
            let mut noise = Noise::new(seed, Purpose::Bootstrap, resample as u64, 0);
            let chosen: Vec<usize> = (0..rows).map(|_| noise.below(rows)).collect();
            measure(&chosen)
        })
        .collect::<Result<Vec<f64>, E>>()?;
    let count = resamples as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Ok((squares / (count - 1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeatureMatrix, Moments, frechet_distance};

    #[test]
    fn should_find_the_standard_error_of_a_mean() {
        let mut noise = Noise::new(4, Purpose::Order, 0, 0);
        let values: Vec<f64> = (0..400).map(|_| 3.0 * noise.normal()).collect();
        let mean = |chosen: &[usize]| -> Result<f64, MetricsError> {
            Ok(chosen.iter().map(|&row| values[row]).sum::<f64>() / chosen.len() as f64)
        };
        let got = bootstrap_deviation(400, 2000, 1, mean).unwrap();
        let every: Vec<usize> = (0..400).collect();
        let centre = mean(&every).unwrap();
        let variance = values.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / 400.0;
        // The exact value, which 2000 resamples estimate to a relative 1 / √4000.
        let exact = (variance / 400.0).sqrt();
        assert!((got / exact - 1.0).abs() < 4.0 / 4000_f64.sqrt(), "{got}, not {exact}");
        assert_eq!(bootstrap_deviation(400, 2000, 1, mean).unwrap(), got);
        assert_ne!(bootstrap_deviation(400, 2000, 2, mean).unwrap(), got);
        assert!(bootstrap_deviation(1, 10, 1, mean).is_err());
        assert!(bootstrap_deviation(10, 1, 1, mean).is_err());
    }

    #[test]
    fn should_tell_how_a_frechet_distance_scatters_over_fresh_samples() {
        let set = |sample: u64, shift: f64| {
            let mut noise = Noise::new(5, Purpose::Order, 1, sample);
            let values = (0..300 * 4).map(|_| (noise.normal() + shift) as f32).collect();
            FeatureMatrix::new(4, values).unwrap()
        };
        let moments = |rows: &FeatureMatrix| {
            let mut moments = Moments::new(4);
            moments.add(0, rows).unwrap();
            moments.gaussian().unwrap()
        };
        let reference = moments(&set(1000, 0.0));
        let distances: Vec<f64> = (0..200)
            .map(|sample| frechet_distance(&moments(&set(sample, 1.0)), &reference).unwrap())
            .collect();
        let mean = distances.iter().sum::<f64>() / 200.0;
        let squares: f64 = distances.iter().map(|value| (value - mean).powi(2)).sum();
        let scatter = (squares / 199.0).sqrt();
        let one = set(0, 1.0);
        let got = bootstrap_deviation(300, 200, 1, |chosen| {
            frechet_distance(&moments(&one.select(chosen)), &reference)
        });
        let got: f64 = got.unwrap();
        // Both are estimates from 200 values: a relative 5 % each.
        assert!((0.75..1.33).contains(&(got / scatter)), "{got}, over fresh samples {scatter}");
    }
}
