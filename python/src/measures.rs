//! Measures of pictures and of sets of pictures.

use std::sync::{Mutex, PoisonError};

use metrics::{FeatureMatrix, Gaussian, KernelSubsets, NumpyBatch, ScoreSplits, Statistics};
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyDict};

use crate::{array::Array, failure::Failure, process::on_threads};

/// Rows of numbers: 32-bit floats, then values of a row.
type Rows = (PyBackedBytes, usize);

/// Mean and covariance as 64-bit floats, then the width.
type Moment = (PyBackedBytes, PyBackedBytes, usize);

fn matrix((bytes, width): &Rows) -> Result<FeatureMatrix, Failure> {
    let (values, _) = bytes.as_chunks();
    Ok(FeatureMatrix::new(*width, values.iter().copied().map(f32::from_ne_bytes).collect())?)
}

fn gaussian((mean, covariance, width): &Moment) -> Result<Gaussian, Failure> {
    let numbers = |bytes: &[u8], count: Option<usize>| {
        let expected = count.and_then(|count| count.checked_mul(size_of::<f64>()));
        if Some(bytes.len()) != expected || bytes.is_empty() {
            let text = format!(
                "statistics of {width} features need `mu [{width}]` and `sigma [{width}, {width}]`"
            );
            return Err(Failure::input(text));
        }
        let (numbers, _) = bytes.as_chunks();
        let numbers: Vec<f64> = numbers.iter().copied().map(f64::from_ne_bytes).collect();
        match numbers.iter().all(|number| number.is_finite()) {
            true => Ok(numbers),
            false => Err(Failure::input("statistics hold a value that is not a finite number")),
        }
    };
    let mean = numbers(mean, Some(*width))?;
    let covariance = numbers(covariance, width.checked_mul(*width))?;
    Ok(Gaussian { count: 0, mean, covariance })
}

pub(crate) fn moments(gaussian: &Gaussian) -> (Array, Array) {
    let width = gaussian.width();
    let mean = Array::f64([width], gaussian.mean.clone());
    (mean, Array::f64([width, width], gaussian.covariance.clone()))
}

/// Pairs of pictures, `[count, height, width, 3]`: originals, others, then the shape.
type Pairs = (PyBackedBytes, PyBackedBytes, (usize, usize, usize));

/// A measure of each pair.
fn of_pairs(
    py: Python<'_>,
    (originals, others, (count, height, width)): Pairs,
    measure: impl Fn(&[u8], &[u8], usize, usize) -> Result<f64, metrics::MetricsError> + Send + Sync,
) -> Result<Array, Failure> {
    let size = height * width * 3;
    if size == 0 || originals.len() != count * size || others.len() != originals.len() {
        return Err(Failure::input(
            "pictures that are compared have one size, and at least a pixel",
        ));
    }
    py.detach(|| {
        let pairs = originals.chunks(size).zip(others.chunks(size));
        let found = pairs.map(|(original, other)| measure(original, other, height, width));
        let found: Vec<f64> = found.collect::<Result<_, _>>()?;
        Ok(Array::f64([found.len()], found))
    })
}

#[pyfunction]
fn psnr(py: Python<'_>, pairs: Pairs) -> Result<Array, Failure> {
    of_pairs(py, pairs, |original, other, _, _| metrics::psnr(original, other))
}

#[pyfunction]
fn ssim(py: Python<'_>, pairs: Pairs) -> Result<Array, Failure> {
    of_pairs(py, pairs, |original, other, height, width| {
        metrics::ssim(original, other, width, height, 3)
    })
}

#[pyfunction]
#[pyo3(signature = (first, second, threads=None))]
fn frechet_distance(
    py: Python<'_>,
    first: Moment,
    second: Moment,
    threads: Option<usize>,
) -> Result<f64, Failure> {
    py.detach(|| {
        let (first, second) = (gaussian(&first)?, gaussian(&second)?);
        Ok(on_threads(threads, || metrics::frechet_distance(&first, &second))??)
    })
}

#[pyfunction]
#[pyo3(signature = (first, second, subsets, size, threads=None))]
fn kernel_distance(
    py: Python<'_>,
    first: Rows,
    second: Rows,
    subsets: usize,
    size: usize,
    threads: Option<usize>,
) -> Result<(f64, f64), Failure> {
    py.detach(|| {
        let (first, second) = (matrix(&first)?, matrix(&second)?);
        let subsets = KernelSubsets { count: subsets, size };
        let score = on_threads(threads, || metrics::kernel_distance(&first, &second, subsets))??;
        Ok((score.mean, score.deviation))
    })
}

/// The Inception Score: of parts of `consecutive` rows, or of `shuffled` parts.
#[pyfunction]
#[pyo3(signature = (logits, consecutive=None, shuffled=None))]
fn inception_score(
    py: Python<'_>,
    logits: Rows,
    consecutive: Option<usize>,
    shuffled: Option<usize>,
) -> Result<(f64, f64), Failure> {
    let splits = match (consecutive, shuffled) {
        (Some(rows), None) => ScoreSplits::Consecutive(rows),
        (None, Some(parts)) => ScoreSplits::Shuffled(parts),
        _ => ScoreSplits::GUIDED_DIFFUSION,
    };
    py.detach(|| {
        let score = metrics::inception_score(&matrix(&logits)?, splits)?;
        Ok((score.mean, score.deviation))
    })
}

#[pyfunction]
#[pyo3(signature = (reference, samples, neighbours, threads=None))]
fn precision_recall(
    py: Python<'_>,
    reference: Rows,
    samples: Rows,
    neighbours: usize,
    threads: Option<usize>,
) -> Result<(f64, f64), Failure> {
    py.detach(|| {
        let (reference, samples) = (matrix(&reference)?, matrix(&samples)?);
        let found =
            on_threads(threads, || metrics::precision_recall(&reference, &samples, neighbours))??;
        Ok((found.precision, found.recall))
    })
}

/// Streaming mean and covariance of rows.
#[pyclass(frozen, module = "alitok._alitok")]
struct Moments {
    moments: Mutex<metrics::Moments>,
}

#[pymethods]
impl Moments {
    #[new]
    fn new(width: usize) -> Result<Self, Failure> {
        if width == 0 {
            return Err(Failure::input("features have at least one value"));
        }
        Ok(Self { moments: Mutex::new(metrics::Moments::new(width)) })
    }

    /// Takes in rows; the first of them is row `first` of the whole set.
    fn add(&self, py: Python<'_>, first: u64, rows: Rows) -> Result<(), Failure> {
        py.detach(|| {
            let rows = matrix(&rows)?;
            let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
            let moments = &mut *moments;
            on_threads(None, || moments.add(first, &rows))??;
            Ok(())
        })
    }

    fn count(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.moments.lock().unwrap_or_else(PoisonError::into_inner).count())
    }

    /// Mean and covariance.
    fn gaussian(&self, py: Python<'_>) -> Result<(Array, Array), Failure> {
        py.detach(|| {
            let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
            let moments = &*moments;
            let gaussian = on_threads(None, || moments.gaussian())??;
            Ok(self::moments(&gaussian))
        })
    }
}

fn add_statistics<'py>(into: &Bound<'py, PyDict>, statistics: &Statistics) -> PyResult<()> {
    let (mean, covariance) = moments(&statistics.pool);
    into.set_item("mu", mean)?;
    into.set_item("sigma", covariance)?;
    if let Some(spatial) = &statistics.spatial {
        let (mean, covariance) = moments(spatial);
        into.set_item("mu_s", mean)?;
        into.set_item("sigma_s", covariance)?;
    }
    into.set_item("count", statistics.pool.count)?;
    into.set_item("network", statistics.extractor.as_deref())?;
    into.set_item("digest", statistics.digest.as_deref())
}

/// What a reference file holds: statistics, and the shape of its pictures, where there are any.
#[pyfunction]
fn read_reference<'py>(py: Python<'py>, path: &str) -> Result<Bound<'py, PyDict>, Failure> {
    let fields = PyDict::new(py);
    if path.to_lowercase().ends_with(".safetensors") {
        let statistics = py.detach(|| Statistics::read(path)).map_err(Failure::file)?;
        add_statistics(&fields, &statistics)?;
        return Ok(fields);
    }
    let batch = py.detach(|| NumpyBatch::open(path)).map_err(Failure::file)?;
    if let Some(statistics) = batch.statistics() {
        add_statistics(&fields, statistics)?;
    }
    if let Some([count, height, width]) = batch.images() {
        fields.set_item("pictures", (count, height, width))?;
    }
    Ok(fields)
}

/// Calls `take` with the pictures of an `.npz`, `[count, height, width, 3]`, `batch` at a time.
#[pyfunction]
fn read_pictures(py: Python<'_>, path: &str, batch: usize, take: Py<PyAny>) -> Result<(), Failure> {
    py.detach(|| {
        let file = NumpyBatch::open(path).map_err(Failure::file)?;
        if file.images().is_none() {
            return Err(Failure::file(format!("{path}: there are no pictures (`arr_0`) in it")));
        }
        file.for_each_batch(batch, |images| {
            let shape = [images.count(), images.height, images.width, 3];
            Python::attach(|py| {
                py.check_signals()?;
                take.call1(py, (Array::u8(shape, images.values),)).map(drop).map_err(Failure::from)
            })
        })
    })
}

/// What a build without networks says to whoever asks for one.
#[cfg(not(feature = "networks"))]
fn no_networks() -> Failure {
    Failure::new(
        crate::failure::Kind::Unavailable,
        "this build of alitok has no networks to see pictures with; give features, or build it with the \
         feature `networks`",
    )
}

#[cfg(not(feature = "networks"))]
#[pyfunction]
#[pyo3(signature = (name, package, threads=None))]
fn open_network(name: &str, package: &str, threads: Option<usize>) -> Result<(), Failure> {
    let _ = (name, package, threads);
    Err(no_networks())
}

#[cfg(not(feature = "networks"))]
#[pyfunction]
fn open_lpips(name: &str) -> Result<(), Failure> {
    let _ = name;
    Err(no_networks())
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(psnr, module)?)?;
    module.add_function(wrap_pyfunction!(ssim, module)?)?;
    module.add_function(wrap_pyfunction!(frechet_distance, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_distance, module)?)?;
    module.add_function(wrap_pyfunction!(inception_score, module)?)?;
    module.add_function(wrap_pyfunction!(precision_recall, module)?)?;
    module.add_function(wrap_pyfunction!(read_reference, module)?)?;
    module.add_function(wrap_pyfunction!(read_pictures, module)?)?;
    #[cfg(not(feature = "networks"))]
    {
        module.add_function(wrap_pyfunction!(open_network, module)?)?;
        module.add_function(wrap_pyfunction!(open_lpips, module)?)?;
    }
    module.add_class::<Moments>()
}
