//! The networks that pictures are compared by, on Burn.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;
use evaluation::reconstruction::PerceptualMeasure;
use evaluation::{EvaluationError, extractor::Extractor, networks::LpipsMeasure};
use metrics::{FeatureMatrix, Images};
use pixels::Picture;
use pyo3::{prelude::*, pybacked::PyBackedBytes};

use crate::{array::Array, failure::Failure, model::home, process::on_threads};

impl From<EvaluationError> for Failure {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Option { .. } => Self::input(error),
            _ => Self::file(error),
        }
    }
}

/// A network that turns pictures into features.
#[pyclass(frozen, module = "alitok._alitok")]
struct Network {
    extractor: Arc<Extractor>,
    threads: Option<usize>,
}

fn array(rows: &FeatureMatrix) -> Array {
    Array::f32([rows.rows(), rows.width()], rows.values().to_vec())
}

#[pymethods]
impl Network {
    fn digest(&self) -> &str {
        self.extractor.digest()
    }

    /// Pooled and spatial features and logits of pictures `[count, height, width, 3]`.
    fn features(
        &self,
        py: Python<'_>,
        pictures: PyBackedBytes,
        shape: (usize, usize, usize),
    ) -> Result<(Array, Option<Array>, Option<Array>), Failure> {
        let (count, height, width) = shape;
        if pictures.is_empty() || pictures.len() != count * height * width * 3 {
            return Err(Failure::input("pictures have the shape [n, height, width, 3]"));
        }
        py.detach(|| {
            let images = Images { values: pictures.to_vec(), height, width };
            let found = on_threads(self.threads, || self.extractor.features(&images))??;
            let rest = |rows: Option<FeatureMatrix>| rows.as_ref().map(array);
            Ok((array(&found.pool), rest(found.spatial), rest(found.logits)))
        })
    }
}

/// Loads the network that `alitok evaluate --extractor` names.
#[pyfunction]
#[pyo3(signature = (name, package, threads=None))]
fn open_network(
    py: Python<'_>,
    name: &str,
    package: &str,
    threads: Option<usize>,
) -> Result<Network, Failure> {
    py.detach(|| {
        let open = || Extractor::open(name, &home(package), &Device::flex());
        let extractor = on_threads(threads, open)??;
        Ok(Network { extractor: Arc::new(extractor), threads })
    })
}

/// LPIPS by one network.
#[pyclass(frozen, module = "alitok._alitok")]
struct Lpips {
    measure: Mutex<LpipsMeasure>,
}

#[pymethods]
impl Lpips {
    /// The distance of each pair of pictures.
    fn distances(
        &self,
        py: Python<'_>,
        pairs: (PyBackedBytes, PyBackedBytes, (usize, usize, usize)),
    ) -> Result<Array, Failure> {
        let (originals, others, (count, height, width)) = pairs;
        let size = height * width * 3;
        if originals.is_empty() || originals.len() != count * size || others.len() != count * size {
            return Err(Failure::input("pictures that are compared have one size"));
        }
        py.detach(|| {
            let pictures = |bytes: &[u8]| {
                let each = bytes.chunks(size).map(|rgb| Picture::new(width, height, rgb.to_vec()));
                each.collect::<Result<Vec<_>, _>>()
            };
            let (originals, others) = (pictures(&originals)?, pictures(&others)?);
            let measure = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
            let measure = &*measure;
            let distances = on_threads(None, || measure.distances(&originals, &others))??;
            Ok(Array::f64([distances.len()], distances))
        })
    }
}

/// Loads the measure that `alitok evaluate --lpips` names.
#[pyfunction]
fn open_lpips(py: Python<'_>, name: &str) -> Result<Lpips, Failure> {
    py.detach(|| {
        let measure = on_threads(None, || LpipsMeasure::open(name, &Device::flex()))??;
        Ok(Lpips { measure: Mutex::new(measure) })
    })
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(open_network, module)?)?;
    module.add_function(wrap_pyfunction!(open_lpips, module)?)
}
