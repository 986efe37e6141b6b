//! Token caches: reading them, mapped, and making them.

use std::{ops::ControlFlow, path::Path};

use pipeline::cache::{BuildOptions, build};
use pyo3::{prelude::*, types::PyDict};
use token_cache::{CacheError, Record, Shard};
use tokens::noise::{Noise, Purpose};

use crate::{
    array::Array,
    data::{DataSet, views_named},
    failure::Failure,
    model::Model,
    watch::Watch,
};

/// A finished cache, mapped into memory.
#[pyclass(frozen, module = "alitok._alitok")]
pub(crate) struct TokenCache {
    cache: token_cache::TokenCache,
}

impl TokenCache {
    fn length(&self) -> usize {
        self.cache.header().layout.len()
    }

    /// A record; that of the next picture that has tokens where this one was left out and `replace`
    /// allows it.
    fn record(&self, picture: usize, view: usize, replace: bool) -> Result<Record<'_>, CacheError> {
        let first = self.cache.record(picture, view);
        if !replace || !matches!(first, Err(CacheError::LeftOut { .. })) {
            return first;
        }
        let count = self.cache.len();
        for other in (picture + 1..count).chain(0..picture) {
            match self.cache.record(other, view) {
                Err(CacheError::LeftOut { .. }) => {}
                found => return found,
            }
        }
        first
    }
}

#[pymethods]
impl TokenCache {
    #[new]
    fn new(py: Python<'_>, path: &str) -> Result<Self, Failure> {
        py.detach(|| Ok(Self { cache: token_cache::TokenCache::open(path)? }))
    }

    fn __len__(&self) -> usize {
        self.cache.len()
    }

    /// What all records have in common.
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let header = self.cache.header();
        let fields = PyDict::new(py);
        let layout = header.layout;
        fields.set_item("layout", (layout.prefix(), layout.rows(), layout.columns()))?;
        fields.set_item("codes", header.codes)?;
        fields.set_item("views", header.views)?;
        fields.set_item("augmentation", &header.augmentation)?;
        fields.set_item("tokenizer", &header.tokenizer)?;
        fields.set_item("pictures", header.pictures)?;
        fields.set_item("classes", &header.classes)?;
        fields.set_item("has_captions", header.captions.is_some())?;
        Ok(fields)
    }

    /// Records by picture and view: tokens `[count, length]` and labels `[count]`.
    fn records(
        &self,
        py: Python<'_>,
        pictures: Vec<usize>,
        views: Vec<usize>,
        replace: bool,
    ) -> Result<(Array, Array), Failure> {
        py.detach(|| {
            let mut tokens = Vec::with_capacity(pictures.len() * self.length());
            let mut labels = Vec::with_capacity(pictures.len());
            for (&picture, &view) in pictures.iter().zip(&views) {
                let record = self.record(picture, view, replace)?;
                labels.push(record.label as i64);
                tokens.extend(record.tokens().map(i64::from));
            }
            let count = labels.len();
            Ok((Array::i64([count, self.length()], tokens), Array::i64([count], labels)))
        })
    }

    /// The views that an epoch takes of pictures: those of `seed`, epoch and picture.
    fn random_views(&self, pictures: Vec<usize>, seed: u64, epoch: u64) -> Vec<usize> {
        let views = self.cache.header().views;
        let view = |&picture: &usize| {
            Noise::new(seed, Purpose::Augmentation, epoch, picture as u64).below(views)
        };
        pictures.iter().map(view).collect()
    }

    /// All views of pictures, `[count, views, length]`, in the cache's own type of 16 bits.
    fn tokens(&self, py: Python<'_>, pictures: Vec<usize>) -> Result<Array, Failure> {
        py.detach(|| {
            let (views, length) = (self.cache.header().views, self.length());
            let mut watch = Watch::new(None, pictures.len());
            let mut tokens = Vec::with_capacity(pictures.len() * views * length);
            for (number, &picture) in pictures.iter().enumerate() {
                watch.look(number)?;
                for view in 0..views {
                    tokens.extend(self.cache.record(picture, view)?.tokens());
                }
            }
            Ok(Array::u16([pictures.len(), views, length], tokens))
        })
    }

    fn labels(&self, py: Python<'_>) -> Result<Array, Failure> {
        py.detach(|| {
            let labels = (0..self.cache.len()).map(|picture| Ok(self.cache.label(picture)? as i64));
            let labels: Vec<i64> = labels.collect::<Result<_, CacheError>>()?;
            Ok(Array::i64([labels.len()], labels))
        })
    }

    fn names(&self, py: Python<'_>) -> Result<Vec<String>, Failure> {
        py.detach(|| Ok(self.cache.names()?))
    }

    fn captions(&self, picture: usize) -> Result<Vec<String>, Failure> {
        Ok(self.cache.captions(picture)?.into_iter().map(str::to_owned).collect())
    }

    /// Pictures without tokens, and why.
    fn left_out(&self, py: Python<'_>) -> Result<Vec<(usize, String)>, Failure> {
        py.detach(|| {
            let left_out = self.cache.left_out()?;
            Ok(left_out.into_iter().map(|left_out| (left_out.picture, left_out.reason)).collect())
        })
    }

    /// Reads everything once and gives the damages that were found.
    fn verify(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.cache.verify().iter().map(ToString::to_string).collect())
    }
}

/// Encodes one shard of a data set into a cache, going on where an earlier call was interrupted. The bytes
/// are those of `alitok cache build`.
#[pyfunction]
#[pyo3(signature = (data, model, folder, views, shard, progress=None))]
fn build_cache(
    py: Python<'_>,
    data: &DataSet,
    model: &Model,
    folder: &str,
    views: &str,
    shard: (usize, usize),
    progress: Option<Py<PyAny>>,
) -> Result<(), Failure> {
    let views = views_named(views)?;
    let shard = Shard::new(shard.0, shard.1)?;
    let encoder = model.encoder(py)?;
    let data = &data.data;
    let options = BuildOptions { views, shard, strict: false };
    py.detach(|| {
        let total = shard.range(data.len()).len();
        let mut watch = Watch::new(progress, total);
        let mut asked = Ok(());
        let built = build(
            data,
            &model.model,
            |picture| encoder.encode(picture),
            Path::new(folder),
            options,
            |done, _| {
                asked = watch.look(done);
                if asked.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        // Whoever stopped the work says why.
        asked?;
        built?;
        watch.look(total)
    })
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(build_cache, module)?)?;
    module.add_class::<TokenCache>()
}
