//! Peak signal-to-noise ratio.

use crate::MetricsError;

/// The peak signal-to-noise ratio of two 8-bit pictures in decibels, 10 · log₁₀(255² / MSE), with
/// the mean over all pixels and channels; higher is closer. Identical pictures have no error, and
/// an infinite ratio.
///
/// # Shapes
/// Both slices hold the same values in the same order.
///
/// # Errors
/// [`MetricsError::Sizes`] if the lengths differ or are zero.
pub fn psnr(reference: &[u8], picture: &[u8]) -> Result<f64, MetricsError> {
    if reference.is_empty() || reference.len() != picture.len() {
        let (reference, picture) = (reference.len(), picture.len());
        return Err(MetricsError::Sizes { reference, picture });
    }
    let squared_error: u64 =
        reference.iter().zip(picture).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum();
    let mean = squared_error as f64 / reference.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_follow_the_definition() {
        // An error of one level everywhere: 20 · log₁₀ 255.
        assert!((psnr(&[0, 9, 254], &[1, 8, 255]).unwrap() - 48.130_803_608_679_1).abs() < 1e-12);
        // The largest error there is.
        assert_eq!(psnr(&[0, 255], &[255, 0]).unwrap(), 0.0);
        assert_eq!(psnr(&[7; 5], &[7; 5]).unwrap(), f64::INFINITY);
    }

    #[test]
    fn should_refuse_pictures_of_different_sizes() {
        assert_eq!(psnr(&[1], &[]), Err(MetricsError::Sizes { reference: 1, picture: 0 }));
        assert!(psnr(&[], &[]).is_err());
    }
}
