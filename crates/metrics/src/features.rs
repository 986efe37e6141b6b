//! What a network sees in pictures: rows of numbers, and the interface to what computes them.

use crate::MetricsError;

/// A name for each network whose features are compared, and what is measured with them.
pub mod extractor {
    /// Inception v3 of 5 December 2015, as the field's FID uses it.
    pub const INCEPTION: &str = "inception-v3-2015-12-05";
    /// The truncated EfficientNet-Lite0, which needs no download. Its distances are not FID.
    pub const LITE: &str = "efficientnet-lite0";
}

/// Features of several pictures, one row each.
///
/// # Shapes
/// `[rows, width]`, row-major.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FeatureMatrix {
    width: usize,
    values: Vec<f32>,
}

impl FeatureMatrix {
    /// Rows of `width` values.
    ///
    /// # Errors
    /// [`MetricsError::Width`] if `values` does not fill whole rows or `width` is zero,
    /// [`MetricsError::NotFinite`] if a value is infinite or no number.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self, MetricsError> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(MetricsError::Width { expected: width, got: values.len() });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(MetricsError::NotFinite { row: at / width });
        }
        Ok(Self { width, values })
    }

    /// No rows yet.
    pub fn empty(width: usize) -> Self {
        Self { width, values: Vec::new() }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows of these numbers, in this order; a number may come more than once.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Self {
        let values = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        Self { width: self.width, values }
    }

    /// Adds the rows of another matrix.
    ///
    /// # Errors
    /// [`MetricsError::Width`] if they are of another width.
    pub fn append(&mut self, other: &Self) -> Result<(), MetricsError> {
        self.expect_width(other.width)?;
        self.values.extend_from_slice(&other.values);
        Ok(())
    }

    pub(crate) fn expect_width(&self, got: usize) -> Result<(), MetricsError> {
        if got == self.width {
            Ok(())
        } else {
            Err(MetricsError::Width { expected: self.width, got })
        }
    }
}

/// Pictures of one size as the reference batches of the field hold them.
///
/// # Shapes
/// `values` is `[count, height, width, 3]`, row-major, 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The bytes of all pictures.
    pub values: Vec<u8>,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Images {
    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.values.len().checked_div(3 * self.height * self.width).unwrap_or(0)
    }
}

/// What a network says of a batch of pictures, a row each.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Pooled features: Inception's `pool_3`, 2048 values.
    pub pool: FeatureMatrix,
    /// Spatial features: the first 7 channels of Inception's `mixed_6/conv`, 17 · 17 · 7 = 2023
    /// values in the order row, column, channel, which published `mu_s` and `sigma_s` have.
    pub spatial: Option<FeatureMatrix>,
    /// Logits without bias, 1008 values, for the Inception Score.
    pub logits: Option<FeatureMatrix>,
}

/// A network that turns pictures into features.
pub trait FeatureExtractor {
    /// The network's name, which statistics files carry; see [`extractor`].
    fn name(&self) -> &str;

    /// A digest of the network's weights, which statistics files carry too.
    fn digest(&self) -> &str;

    /// The features of pictures. A picture's features do not depend on the batch.
    ///
    /// # Errors
    /// What the network cannot take.
    fn features(
        &self,
        images: &Images,
    ) -> Result<Features, Box<dyn std::error::Error + Send + Sync>>;
}

/// Rows by a rule that other programs can follow: with `value` = ((31 i² + 17 j² + 13 i j + 7 i + 3 j +
/// 101 seed + (i · j)² mod 997) mod 1009) / 1009 in f64, `change(value)` as f32.
#[cfg(test)]
pub(crate) fn by_rule(
    rows: usize,
    width: usize,
    seed: usize,
    change: impl Fn(f64) -> f64,
) -> FeatureMatrix {
    let value = |i: usize, j: usize| {
        let square = (i * j).pow(2) % 997;
        let sum = 31 * i * i + 17 * j * j + 13 * i * j + 7 * i + 3 * j + 101 * seed + square;
        change((sum % 1009) as f64 / 1009.0) as f32
    };
    let values = (0..rows).flat_map(|i| (0..width).map(move |j| (i, j)));
    FeatureMatrix::new(width, values.map(|(i, j)| value(i, j)).collect()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_hold_whole_rows_of_finite_numbers() {
        let mut matrix = FeatureMatrix::new(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        matrix.append(&FeatureMatrix::new(2, vec![5.0, 6.0]).unwrap()).unwrap();
        assert_eq!((matrix.rows(), matrix.row(2)), (3, &[5.0, 6.0][..]));
        assert!(matrix.append(&FeatureMatrix::empty(3)).is_err());
        assert!(FeatureMatrix::new(2, vec![0.0; 3]).is_err());
        assert!(FeatureMatrix::new(0, Vec::new()).is_err());
        let error = FeatureMatrix::new(2, vec![0.0, 0.0, 0.0, f32::NAN]).unwrap_err();
        assert_eq!(error, MetricsError::NotFinite { row: 1 });
    }
}
