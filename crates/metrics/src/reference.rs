//! What samples are compared with: the field's reference batches, and statistics files of our own.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use files::npz::ArchiveReader;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Gaussian, Images};

const FORMAT: &str = "alitok statistics 1";
/// Name of the array of pictures in the field's files.
const IMAGES: &str = "arr_0";
/// Most values of an array of statistics: the covariance of 8192 features.
const MAX_VALUES: usize = 8192 * 8192;

/// A file of pictures or statistics that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ReferenceError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

fn at<E: ToString>(path: &Path) -> impl Fn(E) -> ReferenceError + '_ {
    move |error| ReferenceError { path: path.to_owned(), reason: error.to_string() }
}

/// What statistics are of, and so what may be compared with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A set that generated pictures should look like: gFID. The field takes ImageNet's training
    /// side.
    Generation,
    /// The very pictures that were reconstructed: rFID. The field takes ImageNet's validation side.
    Reconstruction,
}

impl Purpose {
    /// `generation` or `reconstruction`, as files say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Reconstruction => "reconstruction",
        }
    }

    /// The purpose that files call so.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Generation, Self::Reconstruction].into_iter().find(|purpose| purpose.name() == name)
    }
}

/// Moments of a set's features, with what they were made by.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// What they are for; unknown for the field's files.
    pub purpose: Option<Purpose>,
    /// Name of the network; unknown for the field's files, which mean Inception.
    pub extractor: Option<String>,
    /// Digest of the network's weights.
    pub digest: Option<String>,
    /// Of the pooled features: `mu`, `sigma`.
    pub pool: Gaussian,
    /// Of the spatial features: `mu_s`, `sigma_s`.
    pub spatial: Option<Gaussian>,
}

impl Statistics {
    /// Writes a safetensors file: `mu [width]`, `sigma [width, width]`, and where there are spatial
    /// features `mu_s` and `sigma_s`, in f64; in the metadata `format`, `count`, `purpose`,
    /// `extractor` and `digest`.
    ///
    /// # Errors
    /// [`ReferenceError`] if it cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), ReferenceError> {
        let path = path.as_ref();
        let bytes = |values: &[f64]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let mut tensors: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        let of = [("mu", "sigma", Some(&self.pool)), ("mu_s", "sigma_s", self.spatial.as_ref())];
        for (mean, covariance, gaussian) in of {
            if let Some(gaussian) = gaussian {
                let width = gaussian.width();
                tensors.insert(mean, (vec![width], bytes(&gaussian.mean)));
                tensors.insert(covariance, (vec![width, width], bytes(&gaussian.covariance)));
            }
        }
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(&name, (shape, bytes))| {
                Ok((name, TensorView::new(Dtype::F64, shape.clone(), bytes)?))
            })
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(at(path))?;
        let pairs = [
            ("format", Some(FORMAT.to_owned())),
            ("count", Some(self.pool.count.to_string())),
            ("purpose", self.purpose.map(|purpose| purpose.name().to_owned())),
            ("extractor", self.extractor.clone()),
            ("digest", self.digest.clone()),
        ];
        // The map is written in its own order; one field keeps the bytes the same.
        let metadata: BTreeMap<&str, String> =
            pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let metadata = serde_json::to_string(&metadata).map_err(at(path))?;
        let metadata = HashMap::from([("statistics".to_owned(), metadata)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(at(path))?;
        files::write_file(path, |writer| writer.write_all(&file)).map_err(at(path))
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// [`ReferenceError`] if the file is no such file, or damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ReferenceError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(at(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(at(path))?;
        let metadata: BTreeMap<String, String> = header
            .metadata()
            .as_ref()
            .and_then(|metadata| serde_json::from_str(metadata.get("statistics")?).ok())
            .filter(|map: &BTreeMap<String, String>| map.get("format").is_some_and(|f| f == FORMAT))
            .ok_or("this is no file of statistics; `alitok evaluate statistics` makes one")
            .map_err(at(path))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(at(path))?;
        let count = metadata.get("count").and_then(|count| count.parse().ok()).unwrap_or(0);
        let values = |name: &str| -> Option<Vec<f64>> {
            let view = tensors.tensor(name).ok().filter(|view| view.dtype() == Dtype::F64)?;
            let chunks = view.data().as_chunks::<8>().0;
            Some(chunks.iter().copied().map(f64::from_le_bytes).collect())
        };
        let gaussian = |mean: &str, covariance: &str| {
            pair(path, count, values(mean), values(covariance), mean, covariance)
        };
        let pool = gaussian("mu", "sigma")?
            .ok_or("`mu` and `sigma` are missing; make the file anew")
            .map_err(at(path))?;
        let text = |key: &str| metadata.get(key).cloned();
        Ok(Self {
            purpose: text("purpose").as_deref().and_then(Purpose::parse),
            extractor: text("extractor"),
            digest: text("digest"),
            pool,
            spatial: gaussian("mu_s", "sigma_s")?,
        })
    }
}

/// Mean and covariance of one kind of features, if a file has them.
fn pair(
    path: &Path,
    count: u64,
    mean: Option<Vec<f64>>,
    covariance: Option<Vec<f64>>,
    mean_name: &str,
    covariance_name: &str,
) -> Result<Option<Gaussian>, ReferenceError> {
    let (mean, covariance) = match (mean, covariance) {
        (None, None) => return Ok(None),
        (Some(mean), Some(covariance)) => (mean, covariance),
        _ => {
            return Err(at(path)(format!(
                "it has only one of `{mean_name}` and `{covariance_name}`"
            )));
        }
    };
    if mean.is_empty() || covariance.len() != mean.len().saturating_mul(mean.len()) {
        return Err(at(path)(format!(
            "`{covariance_name}` has {} values, which a `{mean_name}` of {} does not go with",
            covariance.len(),
            mean.len()
        )));
    }
    if !mean.iter().chain(&covariance).all(|value| value.is_finite()) {
        return Err(at(path)(format!(
            "`{mean_name}` or `{covariance_name}` holds values that are not finite"
        )));
    }
    Ok(Some(Gaussian { count, mean, covariance }))
}

/// A reference or sample batch of the field: an `.npz` file with pictures (`arr_0`), statistics
/// (`mu`, `sigma`, `mu_s`, `sigma_s`), or both.
#[derive(Debug, Clone)]
pub struct NumpyBatch {
    path: PathBuf,
    /// Count, height and width of `arr_0`.
    images: Option<[usize; 3]>,
    statistics: Option<Statistics>,
}

impl NumpyBatch {
    /// Reads what is in the file, except for the pictures.
    ///
    /// # Errors
    /// [`ReferenceError`] if it is no `.npz` file, has neither pictures nor statistics, or an
    /// array of the wrong shape or type.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ReferenceError> {
        let path = path.into();
        let mut archive = ArchiveReader::open(&path).map_err(at(&path))?;
        let mut numbers = |name: &str| -> Result<Option<Vec<f64>>, ReferenceError> {
            if !archive.contains(name) {
                return Ok(None);
            }
            let (_, values) = archive.floats(name, MAX_VALUES).map_err(at(&path))?;
            Ok(Some(values))
        };
        let pool = pair(&path, 0, numbers("mu")?, numbers("sigma")?, "mu", "sigma")?;
        let spatial = pair(&path, 0, numbers("mu_s")?, numbers("sigma_s")?, "mu_s", "sigma_s")?;
        let statistics = pool.map(|pool| Statistics {
            purpose: None,
            extractor: None,
            digest: None,
            pool,
            spatial,
        });
        let images = if archive.contains(IMAGES) {
            let (shape, _) = archive.bytes(IMAGES).map_err(at(&path))?;
            Some(extents(&shape).map_err(at(&path))?)
        } else {
            None
        };
        if images.is_none() && statistics.is_none() {
            return Err(at(&path)(
                "it has neither pictures (`arr_0`) nor statistics (`mu`, `sigma`); \
                 `numpy.savez(path, array)` calls an array `arr_0`",
            ));
        }
        Ok(Self { path, images, statistics })
    }

    /// Number, height and width of the pictures.
    pub fn images(&self) -> Option<[usize; 3]> {
        self.images
    }

    /// The statistics, where the file has them; they go before those of its pictures, as in the
    /// guided-diffusion evaluator.
    pub fn statistics(&self) -> Option<&Statistics> {
        self.statistics.as_ref()
    }

    /// Calls `take` with the pictures, `batch` at a time; only one batch is in memory.
    ///
    /// # Errors
    /// What `take` returns, and [`ReferenceError`] if the file is cut or damaged.
    pub fn for_each_batch<E: From<ReferenceError>>(
        &self,
        batch: usize,
        mut take: impl FnMut(Images) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some([count, height, width]) = self.images else { return Ok(()) };
        let mut archive = ArchiveReader::open(&self.path).map_err(at(&self.path))?;
        let (_, mut pictures) = archive.bytes(IMAGES).map_err(at(&self.path))?;
        for first in (0..count).step_by(batch.max(1)) {
            let taken = batch.max(1).min(count - first);
            let size = taken as u64 * (height * width * 3) as u64;
            // A shape promises what it likes; memory is taken for what is there.
            let mut values = Vec::new();
            pictures.by_ref().take(size).read_to_end(&mut values).map_err(at(&self.path))?;
            if values.len() as u64 != size {
                return Err(at(&self.path)("it ends before its last picture; get it again").into());
            }
            take(Images { values, height, width })?;
        }
        // At its end the archive's checksum is compared.
        match pictures.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(at(&self.path)("it goes on behind its last picture; get it again").into()),
            Err(error) => Err(at(&self.path)(error).into()),
        }
    }
}

/// Count, height and width of pictures in an array of this shape.
fn extents(shape: &[u64]) -> Result<[usize; 3], String> {
    let fix = match *shape {
        [_, height, width, 3] if height.checked_mul(width).is_some_and(|pixels| pixels > 0) => {
            return Ok([shape[0], height, width].map(|extent| extent as usize));
        }
        [_, 1 | 3, _, _] => "; save `array.transpose(0, 2, 3, 1)`",
        [_, _, _, 4] => "; save `array[..., :3]`",
        [_, _, _] => "; of grey pictures, save `numpy.stack([array] * 3, axis=-1)`",
        _ => "",
    };
    Err(format!("`{IMAGES}` has shape {shape:?}; [count, height, width, 3] is read{fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Moments, features::by_rule};
    use files::npz;
    use tokens::noise::{self, Noise};

    fn gaussian() -> Gaussian {
        let mut moments = Moments::new(3);
        moments.add(0, &by_rule(20, 3, 1, |value| value)).unwrap();
        moments.gaussian().unwrap()
    }

    #[test]
    fn should_read_back_statistics_and_write_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        let statistics = Statistics {
            purpose: Some(Purpose::Reconstruction),
            extractor: Some("network".into()),
            digest: Some("0123".into()),
            pool: gaussian(),
            spatial: Some(gaussian()),
        };
        statistics.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(Statistics::read(&path).unwrap(), statistics);
        statistics.write(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        for length in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let told = Statistics::read(&path).unwrap_err().to_string();
            assert!(told.contains("set.safetensors"), "{told}");
        }
    }

    /// All values of a batch.
    fn values(batch: &NumpyBatch) -> Vec<u8> {
        let mut values = Vec::new();
        let taken = batch.for_each_batch(1, |images| -> Result<(), ReferenceError> {
            values.extend(images.values);
            Ok(())
        });
        taken.unwrap();
        values
    }

    #[test]
    fn should_read_pictures_that_numpy_stored_in_either_order() {
        // `tests/fixtures/data_sets.py` wrote the numbers 0 to 35 in the shape [2, 3, 2, 3].
        let expected: Vec<u8> = (0..36).collect();
        for name in ["columns.npz", "columns_deflated.npz", "rows.npz"] {
            let batch = NumpyBatch::open(fixtures::fixture(&format!("data_sets/{name}"))).unwrap();
            assert_eq!(batch.images(), Some([2, 3, 2]), "{name}");
            assert_eq!(values(&batch), expected, "{name}");
        }
        let batch = NumpyBatch::open(fixtures::fixture("data_sets/moments.npz")).unwrap();
        let covariance: Vec<f64> = (0..9).map(f64::from).collect();
        assert_eq!(batch.statistics().unwrap().pool.covariance, covariance);
    }

    #[test]
    fn should_say_how_to_convert_arrays_that_are_no_pictures() {
        for (name, part) in [
            ("int64.npz", "make bytes from 0 to 255 of it"),
            ("float32.npz", "(255 * x).round()"),
            ("planes.npz", "save `array.transpose(0, 2, 3, 1)`"),
            ("named.npz", "calls an array `arr_0`"),
        ] {
            let told = NumpyBatch::open(fixtures::fixture(&format!("data_sets/{name}")));
            let told = told.unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(part), "{told}");
        }
    }

    #[test]
    fn should_refuse_an_array_that_claims_more_than_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["rows.npz", "columns.npz"] {
            let whole = std::fs::read(fixtures::fixture(&format!("data_sets/{name}"))).unwrap();
            let path = folder.path().join(name);
            for (shape, other) in [("(2, 3, 2, 3)", "(9, 9, 9, 3)"), ("(2, 3,", "(1, 3,")] {
                let at =
                    whole.windows(shape.len()).position(|part| part == shape.as_bytes()).unwrap();
                let mut bytes = whole.clone();
                bytes[at..][..shape.len()].copy_from_slice(other.as_bytes());
                std::fs::write(&path, bytes).unwrap();
                let told = NumpyBatch::open(&path).unwrap_err().to_string();
                assert!(told.contains("has 36 values, and its shape says"), "{told}");
            }
            // Ten thousand million pictures, with the header's padding for the longer text.
            let mut bytes = whole.clone();
            let at = whole.windows(5).position(|part| part == b"(2, 3").unwrap();
            let claim = b"(10000000000, 3, 2, 3), }";
            bytes[at..][..claim.len()].copy_from_slice(claim);
            std::fs::write(&path, bytes).unwrap();
            let told = NumpyBatch::open(&path).unwrap_err().to_string();
            assert!(told.contains("its shape says [10000000000, 3, 2, 3]"), "{told}");
        }
    }

    fn archive_of(path: &Path, arrays: &[(&str, &[u64], &[f64])], images: Option<(&[u64], &[u8])>) {
        npz::write(path, |file| {
            for (name, shape, values) in arrays {
                file.add(name, shape, values.iter().copied())?;
            }
            images.map_or(Ok(()), |(shape, values)| file.add(IMAGES, shape, values.iter().copied()))
        })
        .unwrap();
    }

    #[test]
    fn should_read_the_reference_batches_of_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.npz");
        let set = gaussian();
        let pixels: Vec<u8> = (0..5 * 2 * 4 * 3).map(|value| value as u8).collect();
        let arrays: [(&str, &[u64], &[f64]); 2] =
            [("mu", &[3], &set.mean), ("sigma", &[3, 3], &set.covariance)];
        archive_of(&path, &arrays, Some((&[5, 2, 4, 3], &pixels)));
        let batch = NumpyBatch::open(&path).unwrap();
        assert_eq!(batch.images(), Some([5, 2, 4]));
        let statistics = batch.statistics().unwrap();
        assert_eq!(statistics.pool, Gaussian { count: 0, ..set.clone() });
        assert_eq!((statistics.spatial.clone(), statistics.purpose), (None, None));
        let mut read = Vec::new();
        let mut counts = Vec::new();
        batch
            .for_each_batch(2, |images| {
                counts.push(images.count());
                read.extend(images.values);
                Ok::<_, ReferenceError>(())
            })
            .unwrap();
        assert_eq!((read, counts), (pixels.clone(), vec![2, 2, 1]));

        archive_of(&path, &arrays[..1], None);
        assert!(NumpyBatch::open(&path).unwrap_err().to_string().contains("`sigma`"));
        archive_of(&path, &[("mu", &[2], &[0.0; 2]), arrays[1]], None);
        assert!(NumpyBatch::open(&path).unwrap_err().to_string().contains("9 values"));
        archive_of(&path, &[], Some((&[5, 4, 6], &pixels)));
        assert!(NumpyBatch::open(&path).unwrap_err().to_string().contains("[5, 4, 6]"));
        archive_of(&path, &[("other", &[3], &[0.0; 3])], None);
        assert!(NumpyBatch::open(&path).unwrap_err().to_string().contains("neither"));
        std::fs::write(&path, "no archive").unwrap();
        assert!(NumpyBatch::open(&path).unwrap_err().to_string().contains("batch.npz"));
    }

    #[test]
    fn should_read_the_same_or_refuse_whatever_is_damaged() {
        let trials = std::env::var("MUTATIONS").map_or(500, |trials| trials.parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.npz");
        let set = gaussian();
        let pixels: Vec<u8> = (0..3 * 2 * 2 * 3).map(|value| 7 * value as u8).collect();
        let arrays: [(&str, &[u64], &[f64]); 2] =
            [("mu", &[3], &set.mean), ("sigma", &[3, 3], &set.covariance)];
        archive_of(&path, &arrays, Some((&[3, 2, 2, 3], &pixels)));
        let whole = std::fs::read(&path).unwrap();
        let (mut opened, mut read) = (0, 0);
        for trial in 0..trials {
            let mut noise = Noise::new(12, noise::Purpose::Order, 0, trial);
            let mut bytes = whole.clone();
            for _ in 0..=noise.below(4) {
                let at = noise.below(bytes.len());
                match noise.below(5) {
                    0 => bytes[at] ^= 1 << noise.below(8),
                    1 => bytes[at] = noise.bits() as u8,
                    2 => bytes[at] = b"(){}[],:'09"[noise.below(11)],
                    3 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            std::fs::write(&path, bytes).unwrap();
            let Ok(batch) = NumpyBatch::open(&path) else { continue };
            opened += 1;
            if let Some(statistics) = batch.statistics() {
                assert_eq!(statistics.pool, Gaussian { count: 0, ..set.clone() }, "trial {trial}");
            }
            let mut found = Vec::new();
            let whole = batch.for_each_batch(2, |images| {
                found.extend(images.values);
                Ok::<_, ReferenceError>(())
            });
            // The archive's checksum stands behind its last byte.
            if whole.is_ok() && batch.images() == Some([3, 2, 2]) {
                assert_eq!(found, pixels, "trial {trial}");
                read += 1;
            }
        }
        assert!(opened > 20 && read > 10, "{opened} opened, {read} read: too few to tell");
    }
}
