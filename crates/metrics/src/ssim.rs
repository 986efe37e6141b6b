//! Structural similarity.

use crate::MetricsError;

/// Side of the Gaussian window in pixels.
const WINDOW: usize = 11;
/// Standard deviation of the window in pixels.
const SIGMA: f64 = 1.5;
/// The constants of the two quotients: (0.01 · 255)² and (0.03 · 255)².
const C1: f64 = 2.55 * 2.55;
const C2: f64 = 7.65 * 7.65;

/// The structural similarity of two 8-bit pictures (Wang et al. 2004), at most 1, which identical
/// pictures have.
///
/// The convention is the paper's: a Gaussian window of 11 × 11 pixels and σ = 1.5, K₁ = 0.01,
/// K₂ = 0.03, range 255, variances of the window's population (divided by the weights, not by one
/// less), only windows that lie wholly inside, each channel by itself and then their mean. It is
/// scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
/// use_sample_covariance=False, data_range=255, channel_axis=-1`.
///
/// # Shapes
/// Both slices are `[height, width, channels]`, row-major.
///
/// # Errors
/// [`MetricsError::Sizes`] if the lengths differ, [`MetricsError::Shape`] if they are not
/// height · width · channels, [`MetricsError::TooSmall`] if a side is shorter than 11 pixels.
pub fn ssim(
    reference: &[u8],
    picture: &[u8],
    width: usize,
    height: usize,
    channels: usize,
) -> Result<f64, MetricsError> {
    if reference.len() != picture.len() {
        let (reference, picture) = (reference.len(), picture.len());
        return Err(MetricsError::Sizes { reference, picture });
    }
    let expected = width.saturating_mul(height).saturating_mul(channels);
    if channels == 0 || reference.len() != expected {
        return Err(MetricsError::Shape { values: reference.len(), width, height, channels });
    }
    if width.min(height) < WINDOW {
        return Err(MetricsError::TooSmall { window: WINDOW, width, height });
    }
    let kernel = gaussian();
    let channel_mean = |channel: usize| {
        let plane = |values: &[u8]| -> Vec<f64> {
            values.iter().skip(channel).step_by(channels).map(|&value| value.into()).collect()
        };
        let (x, y) = (plane(reference), plane(picture));
        let blurred = |a: &[f64], b: Option<&[f64]>| match b {
            None => blur(a, width, &kernel),
            Some(b) => {
                blur(&a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>(), width, &kernel)
            }
        };
        let (mean_x, mean_y) = (blurred(&x, None), blurred(&y, None));
        let (xx, yy, xy) = (blurred(&x, Some(&x)), blurred(&y, Some(&y)), blurred(&x, Some(&y)));
        let similarity: f64 = (0..mean_x.len())
            .map(|i| {
                let (mx, my) = (mean_x[i], mean_y[i]);
                let (variance_x, variance_y) = (xx[i] - mx * mx, yy[i] - my * my);
                let covariance = xy[i] - mx * my;
                (2.0 * mx * my + C1) * (2.0 * covariance + C2)
                    / ((mx * mx + my * my + C1) * (variance_x + variance_y + C2))
            })
            .sum();
        similarity / mean_x.len() as f64
    };
    Ok((0..channels).map(channel_mean).sum::<f64>() / channels as f64)
}

/// One row of the window; the window is the product of two.
fn gaussian() -> [f64; WINDOW] {
    let center = (WINDOW / 2) as f64;
    let weights: [f64; WINDOW] =
        std::array::from_fn(|i| (-0.5 * ((i as f64 - center) / SIGMA).powi(2)).exp());
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
}

/// The weighted means of all windows inside a plane of rows of `width` values.
fn blur(plane: &[f64], width: usize, kernel: &[f64; WINDOW]) -> Vec<f64> {
    let weighted = |values: &mut dyn Iterator<Item = &f64>| -> f64 {
        values.zip(kernel).map(|(value, weight)| value * weight).sum()
    };
    let inner = width - WINDOW + 1;
    let narrow: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| row.windows(WINDOW))
        .map(|window| weighted(&mut window.iter()))
        .collect();
    let starts = 0..narrow.len() - (WINDOW - 1) * inner;
    starts.map(|start| weighted(&mut narrow[start..].iter().step_by(inner))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two RGB pictures by rule, the second one the first with an error of −5 to 5 levels times
    /// `strength`.
    fn pictures(width: usize, height: usize, strength: i64) -> (Vec<u8>, Vec<u8>) {
        let value = |x: usize, y: usize, c: usize| (x * 7 + y * 13 + c * 31 + x * y % 17 * 5) % 256;
        let noise = |x: usize, y: usize, c: usize| ((x * 3 + y * 5 + c) % 11) as i64 - 5;
        let pixels = || {
            (0..height)
                .flat_map(move |y| (0..width).flat_map(move |x| (0..3).map(move |c| (x, y, c))))
        };
        let reference = pixels().map(|(x, y, c)| value(x, y, c) as u8).collect();
        let picture = pixels()
            .map(|(x, y, c)| {
                (value(x, y, c) as i64 + strength * noise(x, y, c)).clamp(0, 255) as u8
            })
            .collect();
        (reference, picture)
    }

    #[test]
    fn should_equal_scikit_image() {
        // Made with scikit-image 0.26.0 from the same rule:
        // structural_similarity(a, b, gaussian_weights=True, sigma=1.5,
        //     use_sample_covariance=False, data_range=255, channel_axis=-1)
        const EXPECTED: [(usize, usize, i64, f64); 4] = [
            (64, 64, 1, 0.997_315_187_190_051_1),
            (64, 64, 8, 0.862_696_332_786_661_4),
            (37, 23, 3, 0.974_141_610_546_834_7),
            (11, 11, 5, 0.909_990_487_063_667_3),
        ];
        for (width, height, strength, expected) in EXPECTED {
            let (reference, picture) = pictures(width, height, strength);
            let got = ssim(&reference, &picture, width, height, 3).unwrap();
            assert!((got - expected).abs() < 1e-11, "{width} x {height}: {got}, not {expected}");
        }
    }

    #[test]
    fn should_be_one_for_identical_pictures_and_symmetric() {
        let (reference, picture) = pictures(20, 30, 4);
        assert!((ssim(&picture, &picture, 20, 30, 3).unwrap() - 1.0).abs() < 1e-12);
        let there = ssim(&reference, &picture, 20, 30, 3).unwrap();
        assert!((there - ssim(&picture, &reference, 20, 30, 3).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn should_be_the_mean_of_its_channels() {
        let (reference, picture) = pictures(16, 16, 6);
        let channel = |values: &[u8], c: usize| -> Vec<u8> {
            values.iter().skip(c).step_by(3).copied().collect()
        };
        let each: f64 = (0..3)
            .map(|c| ssim(&channel(&reference, c), &channel(&picture, c), 16, 16, 1).unwrap())
            .sum();
        assert!((ssim(&reference, &picture, 16, 16, 3).unwrap() - each / 3.0).abs() < 1e-12);
    }

    #[test]
    fn should_refuse_what_it_cannot_compare() {
        let (a, b) = (vec![0; 300], vec![0; 297]);
        assert!(matches!(ssim(&a, &b, 10, 10, 3), Err(MetricsError::Sizes { .. })));
        assert!(matches!(ssim(&a, &a, 10, 10, 3), Err(MetricsError::TooSmall { .. })));
        assert!(matches!(ssim(&[], &[], 0, 11, 3), Err(MetricsError::TooSmall { .. })));
        assert!(matches!(ssim(&[], &[], 11, 11, 0), Err(MetricsError::Shape { .. })));
        assert!(matches!(ssim(&a, &a, 11, 11, 3), Err(MetricsError::Shape { .. })));
    }
}
