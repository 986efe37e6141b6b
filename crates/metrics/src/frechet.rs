//! Fréchet distance of two Gaussians.

use faer::{
    Accum, Mat, MatRef, Par,
    diag::Diag,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{
        cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch},
        evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch},
        matmul::matmul,
        svd::{ComputeSvdVectors, svd, svd_scratch},
    },
};

use crate::{Gaussian, MetricsError};

/// The Fréchet distance (squared 2-Wasserstein distance) of two normal distributions (Heusel et
/// al. 2017): |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁^½ Σ₂ Σ₁^½)^½. Of Inception's pooled features it
/// is the FID, of its spatial features the sFID, of any other network's features it is neither.
///
/// The last trace is computed as the sum of the singular values of F₁ᵀ F₂, where F₁ F₁ᵀ = Σ₁ and
/// F₂ F₂ᵀ = Σ₂ come from Cholesky's factorization or, for sets with fewer samples than features and others
/// of a covariance without full rank, from symmetric eigen-decompositions: the square of F₁ᵀ F₂ is never
/// formed, so those keep their digits, too, and nothing is added to a diagonal.
///
/// # Errors
/// [`MetricsError::Width`] if the two are of different width, [`MetricsError::NoConvergence`] if
/// a covariance is not finite.
pub fn frechet_distance(first: &Gaussian, second: &Gaussian) -> Result<f64, MetricsError> {
    let width = first.width();
    if width != second.width() {
        return Err(MetricsError::Width { expected: width, got: second.width() });
    }
    let means: f64 = first.mean.iter().zip(&second.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let trace =
        |gaussian: &Gaussian| -> f64 { gaussian.covariance.iter().step_by(width + 1).sum() };
    // Each runs on one thread: two at a time, and no thread count in the result.
    let (left, right) = rayon::join(|| factor(first), || factor(second));
    let (left, right) = (left?, right?);
    if left.ncols() == 0 || right.ncols() == 0 {
        return Ok(means + trace(first) + trace(second));
    }
    let mut product = Mat::zeros(left.ncols(), right.ncols());
    matmul(product.as_mut(), Accum::Replace, left.transpose(), right.as_ref(), 1.0, Par::Seq);
    let root_trace: f64 = singular_values(product.as_ref())?.iter().sum();
    Ok(means + trace(first) + trace(second) - 2.0 * root_trace)
}

/// F with F Fᵀ = Σ, with as many columns as Σ has rank.
fn factor(gaussian: &Gaussian) -> Result<Mat<f64>, MetricsError> {
    let matrix = gaussian.covariance_matrix();
    match triangular_factor(&matrix) {
        Some(factor) => Ok(factor),
        None => spectral_factor(&matrix),
    }
}

/// The lower triangular factor of a matrix whose rank is full beyond doubt: each pivot, which is the variance
/// of a feature beyond what the features before it tell, is far above rounding. It takes a small part of
/// the time of an eigen-decomposition.
fn triangular_factor(matrix: &Mat<f64>) -> Option<Mat<f64>> {
    let width = matrix.nrows();
    let largest = (0..width).map(|i| matrix[(i, i)]).fold(0.0, f64::max);
    let mut factor = matrix.clone();
    let request = cholesky_in_place_scratch::<f64>(width, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(request);
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(factor.as_mut(), Default::default(), Par::Seq, stack, Default::default())
        .ok()?;
    // Rounding moves a pivot by no more than this; those of full rank are many times larger.
    let doubtful = 1e3 * largest * width as f64 * f64::EPSILON;
    (0..width).all(|i| factor[(i, i)].powi(2) > doubtful).then(|| {
        Mat::from_fn(
            width,
            width,
            |row, column| {
                if column <= row { factor[(row, column)] } else { 0.0 }
            },
        )
    })
}

/// The factor of any covariance: one column for each eigenvalue that is more than rounding.
fn spectral_factor(matrix: &Mat<f64>) -> Result<Mat<f64>, MetricsError> {
    let width = matrix.nrows();
    let mut values = Diag::<f64>::zeros(width);
    let mut vectors = Mat::zeros(width, width);
    let request = self_adjoint_evd_scratch::<f64>(
        width,
        ComputeEigenvectors::Yes,
        Par::Seq,
        Default::default(),
    );
    let mut memory = MemBuffer::new(request);
    self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|_| MetricsError::NoConvergence)?;
    let values: Vec<f64> = values.column_vector().iter().copied().collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(MetricsError::NoConvergence);
    }
    let largest = values.iter().copied().fold(0.0, f64::max);
    let rounding = largest * width as f64 * f64::EPSILON;
    let kept: Vec<usize> = (0..width).filter(|&i| values[i] > rounding).collect();
    Ok(Mat::from_fn(width, kept.len(), |row, column| {
        vectors[(row, kept[column])] * values[kept[column]].sqrt()
    }))
}

fn singular_values(matrix: MatRef<'_, f64>) -> Result<Vec<f64>, MetricsError> {
    let (rows, columns) = matrix.shape();
    let mut values = Diag::<f64>::zeros(rows.min(columns));
    let no = ComputeSvdVectors::No;
    let request = svd_scratch::<f64>(rows, columns, no, no, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(request);
    let stack = MemStack::new(&mut memory);
    svd(matrix, values.as_mut(), None, None, Par::Seq, stack, Default::default())
        .map_err(|_| MetricsError::NoConvergence)?;
    Ok(values.column_vector().iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeatureMatrix, Moments, features::by_rule};

    fn gaussian(rows: &FeatureMatrix) -> Gaussian {
        let mut moments = Moments::new(rows.width());
        moments.add(0, rows).unwrap();
        moments.gaussian().unwrap()
    }

    fn close(got: f64, expected: f64, tolerance: f64) {
        assert!((got - expected).abs() <= tolerance, "{got}, not {expected}");
    }

    #[test]
    fn should_equal_torch_fidelity_and_scipy() {
        // torch_fidelity 0.4.0, fid_statistics_to_metric of fid_features_to_statistics in float64,
        // and guided-diffusion's frechet_distance with scipy 1.17.1; both give these digits.
        let first = gaussian(&by_rule(200, 12, 1, |value| value));
        let second = gaussian(&by_rule(150, 12, 2, |value| 1.3 * value));
        let got = frechet_distance(&first, &second).unwrap();
        close(got / 0.3973884109763959, 1.0, 1e-9);
        close(frechet_distance(&second, &first).unwrap(), got, 1e-12);
    }

    #[test]
    fn should_be_exact_for_sets_with_fewer_samples_than_features() {
        // The distance of the same sets by the singular values of the centred rows, which needs
        // no square root of a singular matrix (NumPy, float64).
        let first = gaussian(&by_rule(10, 24, 1, |value| value));
        let second = gaussian(&by_rule(7, 24, 2, |value| value));
        close(frechet_distance(&first, &second).unwrap() / 2.3506504434820314, 1.0, 1e-9);
        // Rounding at the root of a zero eigenvalue would show here.
        close(frechet_distance(&first, &first).unwrap(), 0.0, 1e-12);
    }

    #[test]
    fn should_not_depend_on_the_factorization() {
        let rows = |count, seed| by_rule(count, 24, seed, |value| value * value + value);
        let (first, second) = (gaussian(&rows(200, 1)), gaussian(&rows(150, 2)));
        let factors = |of: &Gaussian| {
            let matrix = of.covariance_matrix();
            [triangular_factor(&matrix).unwrap(), spectral_factor(&matrix).unwrap()]
        };
        let trace = |left: &Mat<f64>, right: &Mat<f64>| -> f64 {
            singular_values((left.transpose() * right).as_ref()).unwrap().iter().sum()
        };
        let (left, right) = (factors(&first), factors(&second));
        let traces: Vec<f64> =
            left.iter().flat_map(|left| right.iter().map(|right| trace(left, right))).collect();
        for other in &traces {
            close(other / traces[0], 1.0, 1e-12);
        }
        // Without full rank, by too few rows or by a feature that repeats another, there is no such factor.
        let few = gaussian(&rows(20, 1)).covariance_matrix();
        assert!(triangular_factor(&few).is_none());
        let twice = by_rule(200, 12, 1, |value| value);
        let twice: Vec<f32> =
            twice.values().chunks(12).flat_map(|row| [row, row].concat()).collect();
        let twice = gaussian(&FeatureMatrix::new(24, twice).unwrap()).covariance_matrix();
        assert!(triangular_factor(&twice).is_none());
    }

    #[test]
    fn should_have_the_closed_forms() {
        let diagonal = |mean: f64, variances: [f64; 4]| {
            let mut covariance = vec![0.0; 16];
            (0..4).for_each(|i| covariance[5 * i] = variances[i]);
            Gaussian { count: 0, mean: vec![mean; 4], covariance }
        };
        // Commuting covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)².
        let first = diagonal(1.0, [1.0, 4.0, 9.0, 0.0]);
        let second = diagonal(3.0, [4.0, 4.0, 0.0, 1e-12]);
        let expected = 4.0 * 4.0 + 1.0 + 0.0 + 9.0 + 1e-12;
        close(frechet_distance(&first, &second).unwrap(), expected, 1e-12);
        // A single point: its distance and the other's variance.
        let point = diagonal(0.0, [0.0; 4]);
        close(frechet_distance(&point, &first).unwrap(), 4.0 + 14.0, 1e-12);
        close(frechet_distance(&point, &point).unwrap(), 0.0, 0.0);
        // Not commuting: tr (Σ₁ Σ₂)^½ of 2 × 2 is (tr Σ₁Σ₂ + 2 (det Σ₁Σ₂)^½)^½.
        let two = |covariance: [f64; 4]| Gaussian {
            count: 0,
            mean: vec![0.0; 2],
            covariance: covariance.to_vec(),
        };
        let (first, second) = (two([2.0, 1.0, 1.0, 3.0]), two([5.0, -2.0, -2.0, 1.0]));
        let product_trace: f64 = 2.0 * 5.0 + 1.0 * -2.0 + 1.0 * -2.0 + 3.0 * 1.0;
        let root = (product_trace + 2.0 * (5.0_f64 * 1.0).sqrt()).sqrt();
        close(frechet_distance(&first, &second).unwrap(), 5.0 + 6.0 - 2.0 * root, 1e-12);
    }

    #[test]
    fn should_refuse_what_has_no_distance() {
        let set = gaussian(&by_rule(9, 3, 1, |value| value));
        let wide = gaussian(&by_rule(9, 4, 1, |value| value));
        assert_eq!(frechet_distance(&set, &wide), Err(MetricsError::Width { expected: 3, got: 4 }));
        let mut damaged = set.clone();
        damaged.covariance[4] = f64::NAN;
        assert_eq!(frechet_distance(&set, &damaged), Err(MetricsError::NoConvergence));
    }
}
