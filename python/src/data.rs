//! Pictures from files and data sets, and their crops.

use std::sync::Arc;

use pipeline::cache::Views;
use pixels::{
    Picture,
    crop::{center_crop, ten_crop},
};
use pyo3::{prelude::*, types::PyBytes};
use tokenizer::ImageSize;

use crate::{
    array::Array,
    failure::{Failure, Kind},
    model::home,
    pictures::{self, Source},
    watch::Watch,
};

/// Reads a picture file.
#[pyfunction]
fn read(py: Python<'_>, path: &str) -> Result<Array, Failure> {
    py.detach(|| Ok(pictures::array(Picture::read(path)?)))
}

/// Decodes the bytes of a picture file.
#[pyfunction]
fn decode_picture(py: Python<'_>, bytes: pyo3::pybacked::PyBackedBytes) -> Result<Array, Failure> {
    py.detach(|| Ok(pictures::array(Picture::decode(&bytes, "the picture")?)))
}

/// A picture as the bytes of a PNG file.
#[pyfunction]
fn encode_png<'py>(py: Python<'py>, source: Source) -> Result<Bound<'py, PyBytes>, Failure> {
    let bytes = py.detach(|| Ok::<_, Failure>(source.read()?.encode_png()))?;
    Ok(PyBytes::new(py, &bytes))
}

/// The centre crops of pictures, `[count, size, size, 3]`.
#[pyfunction]
fn center_crops(py: Python<'_>, sources: Vec<Source>, size: usize) -> Result<Array, Failure> {
    check_size(size)?;
    py.detach(|| {
        let mut watch = Watch::new(None, sources.len());
        let mut crops = Vec::with_capacity(sources.len());
        for (number, source) in sources.iter().enumerate() {
            watch.look(number)?;
            crops.push(center_crop(&source.read()?, size)?);
        }
        Ok(pictures::arrays(crops, ImageSize::square(size)))
    })
}

/// The ten crops of a picture, `[10, size, size, 3]`.
#[pyfunction]
fn ten_crops(py: Python<'_>, source: Source, size: usize) -> Result<Array, Failure> {
    check_size(size)?;
    py.detach(|| Ok(pictures::arrays(ten_crop(&source.read()?, size)?, ImageSize::square(size))))
}

/// Largest side of a crop: larger ones are no model's.
const MOST: usize = 1 << 14;

fn check_size(size: usize) -> Result<(), Failure> {
    if (1..=MOST).contains(&size) {
        return Ok(());
    }
    Err(Failure::input(format!("a crop has 1 to {MOST} pixels a side, not {size}")))
}

/// Labelled pictures in a fixed order.
#[pyclass(frozen, module = "alitok._alitok")]
pub(crate) struct DataSet {
    pub(crate) data: Arc<dyn pixels::DataSet>,
}

impl DataSet {
    fn check(&self, index: usize) -> Result<(), Failure> {
        match self.data.len() {
            count if index < count => Ok(()),
            count => {
                let text = format!("there is no sample {index}: the data set has {count}");
                Err(Failure::new(Kind::Index, text))
            }
        }
    }
}

/// A reason, whether samples were lost to it, how many there are, and names of some.
type LeftOut = (String, bool, usize, Vec<String>);

#[pymethods]
impl DataSet {
    #[new]
    fn new(py: Python<'_>, source: &str, package: &str) -> Result<Self, Failure> {
        py.detach(|| Ok(Self { data: Arc::from(pixels::data::open(source, &home(package))?) }))
    }

    fn __len__(&self) -> usize {
        self.data.len()
    }

    fn classes(&self) -> Vec<String> {
        self.data.classes().to_vec()
    }

    fn read_as(&self) -> String {
        self.data.read_as()
    }

    fn left_out(&self) -> Vec<LeftOut> {
        let groups = self.data.left_out().iter();
        groups
            .map(|group| {
                (group.reason.to_string(), group.is_sample, group.count, group.names.clone())
            })
            .collect()
    }

    fn labels(&self, py: Python<'_>) -> Array {
        py.detach(|| {
            let labels: Vec<i64> =
                (0..self.data.len()).map(|index| self.data.label(index) as i64).collect();
            Array::i64([labels.len()], labels)
        })
    }

    /// Label, name and caption of a sample.
    fn about(&self, index: usize) -> Result<(usize, String, Option<String>), Failure> {
        self.check(index)?;
        let caption = self.data.caption(index).map(str::to_owned);
        Ok((self.data.label(index), self.data.name(index).to_owned(), caption))
    }

    /// The picture of a sample as it is stored.
    fn picture(&self, py: Python<'_>, index: usize) -> Result<Array, Failure> {
        self.check(index)?;
        py.detach(|| Ok(pictures::array(self.data.picture(index)?)))
    }

    /// Views of a sample, `[count, size, size, 3]`.
    fn views(
        &self,
        py: Python<'_>,
        index: usize,
        size: usize,
        views: &str,
    ) -> Result<Array, Failure> {
        self.check(index)?;
        check_size(size)?;
        let views = views_named(views)?;
        py.detach(|| {
            let (picture, image) = (self.data.picture(index)?, ImageSize::square(size));
            Ok(pictures::arrays(views.of(picture, image, self.data.name(index))?, image))
        })
    }
}

/// The views of a picture by their name.
pub(crate) fn views_named(name: &str) -> Result<Views, Failure> {
    Ok(match name {
        "center" => Views::Center,
        "mirrored" => Views::Mirrored,
        "ten_crop" => Views::TenCrop,
        _ => {
            let text = format!("`{name}` names no views; they are center, mirrored and ten_crop");
            return Err(Failure::input(text));
        }
    })
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read, module)?)?;
    module.add_function(wrap_pyfunction!(decode_picture, module)?)?;
    module.add_function(wrap_pyfunction!(encode_png, module)?)?;
    module.add_function(wrap_pyfunction!(center_crops, module)?)?;
    module.add_function(wrap_pyfunction!(ten_crops, module)?)?;
    module.add_class::<DataSet>()
}
