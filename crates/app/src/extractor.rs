//! The networks that pictures are compared by, and where their pictures come from.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use burn::tensor::{Device, Tensor, TensorData};
use metrics::{
    FeatureExtractor, FeatureMatrix, Features, Gaussian, Images, MetricsError, Moments, NumpyBatch,
    extractor::{INCEPTION, LITE},
    networks::{EfficientNetLite, EfficientNetLiteConfig, Inception, InceptionConfig},
};
use pixels::{DataSet, Picture, crop::Crop, data::Balanced};
use weights::{
    Checkpoint,
    public::{self, PublicWeights},
};

use crate::progress::Progress;

/// Pictures that go through a network together, always this many: products on the CPU sum in an
/// order that hangs on the number of rows, and a picture's features must not hang on its batch.
pub(crate) const BATCH: usize = 8;

enum Network {
    Inception(Inception),
    Lite(EfficientNetLite),
}

/// A network with its weights' digest.
pub(crate) struct Extractor {
    network: Network,
    digest: String,
    device: Device,
}

/// The file of public weights, as `alitok weights fetch` left it.
pub(crate) fn fetched(name: &str) -> Result<PathBuf> {
    let folder =
        public::cache_folder().context("there is no home folder for weights; set ALITOK_HOME")?;
    Ok(PublicWeights::find(name)?.verified(&folder)?)
}

/// The network that `--extractor` names: `lite`, `inception` (fetched before), or
/// `inception=FILE`.
pub(crate) fn open(name: &str, device: &Device) -> Result<Extractor> {
    let (path, is_inception) = match name.split_once('=') {
        None if name == "lite" => {
            let path = "models/efficientnet-lite0/efficientnet-lite0.safetensors";
            (crate::models::home().path(path)?, false)
        }
        None if name == "inception" => (fetched("inception")?, true),
        Some(("inception", path)) => (Path::new(path).to_owned(), true),
        _ => bail!(
            "--extractor {name}: write `lite`, `inception` after `alitok weights fetch inception`, \
             or `inception=FILE` with the weights pt_inception-2015-12-05-6726825d.pth"
        ),
    };
    let digest = public::hash_of(&path)?;
    let tensors = Checkpoint::read(&path)?.tensors;
    let named = || format!("{}", path.display());
    let network = if is_inception {
        let config = InceptionConfig::published();
        Network::Inception(config.load(tensors, device).with_context(named)?)
    } else {
        let config = EfficientNetLiteConfig::lite0();
        Network::Lite(config.load(tensors, device).with_context(named)?)
    };
    Ok(Extractor { network, digest, device: device.clone() })
}

impl Extractor {
    /// Whether distances of its features carry the field's names.
    pub(crate) fn is_inception(&self) -> bool {
        matches!(self.network, Network::Inception(_))
    }

    /// The features of pictures.
    pub(crate) fn see(&self, images: &Images) -> Result<Features> {
        self.features(images).map_err(|error| anyhow::anyhow!(error))
    }
}

/// The first `count` rows.
fn matrix(rows: Tensor<2>, count: usize) -> Result<FeatureMatrix, Box<dyn Error + Send + Sync>> {
    let [_, width] = rows.dims();
    let mut values =
        rows.into_data().try_into_vec::<f32>().map_err(|error| format!("{error:?}"))?;
    values.truncate(count * width);
    Ok(FeatureMatrix::new(width, values)?)
}

impl FeatureExtractor for Extractor {
    fn name(&self) -> &str {
        if self.is_inception() { INCEPTION } else { LITE }
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn features(&self, images: &Images) -> Result<Features, Box<dyn Error + Send + Sync>> {
        let Images { height, width, .. } = *images;
        let size = 3 * height * width;
        let mut all: Option<Features> = None;
        for pictures in images.values.chunks(BATCH * size) {
            let count = pictures.len() / size;
            let scale = if self.is_inception() { 1.0 } else { 255.0 };
            let mut values: Vec<f32> =
                pictures.iter().map(|&value| f32::from(value) / scale).collect();
            values.resize(BATCH * size, 0.0);
            let data = TensorData::new(values, [BATCH, height, width, 3]);
            let input = Tensor::<4>::from_data(data, &self.device).permute([0, 3, 1, 2]);
            let found = match &self.network {
                Network::Inception(network) => {
                    let features = network.features(input);
                    Features {
                        pool: matrix(features.pool, count)?,
                        spatial: Some(matrix(features.spatial, count)?),
                        logits: Some(matrix(features.logits_without_bias, count)?),
                    }
                }
                Network::Lite(network) => Features {
                    pool: matrix(network.pooled(input), count)?,
                    spatial: None,
                    logits: None,
                },
            };
            match &mut all {
                None => all = Some(found),
                Some(all) => append(all, &found)?,
            }
        }
        Ok(all.ok_or("there are no pictures")?)
    }
}

fn append(all: &mut Features, found: &Features) -> Result<(), MetricsError> {
    all.pool.append(&found.pool)?;
    for (all, found) in [(&mut all.spatial, &found.spatial), (&mut all.logits, &found.logits)] {
        if let (Some(all), Some(found)) = (all, found) {
            all.append(found)?;
        }
    }
    Ok(())
}

/// Where pictures come from.
pub(crate) enum Pictures {
    /// `arr_0` of an `.npz` file.
    Batch(Box<NumpyBatch>),
    /// A data set.
    Data(Box<dyn DataSet>),
}

impl Pictures {
    pub(crate) fn open(source: &str) -> Result<Self> {
        if !source.to_lowercase().ends_with(".npz") {
            return Ok(Self::Data(pixels::data::open(source, crate::models::home())?));
        }
        let batch = NumpyBatch::open(source)?;
        if batch.images().is_none_or(|[count, ..]| count == 0) {
            bail!("{source} holds no pictures (`arr_0`)");
        }
        Ok(Self::Batch(Box::new(batch)))
    }

    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.images().map_or(0, |[count, ..]| count),
            Self::Data(data) => data.len(),
        }
    }

    /// As many pictures of each class, where a number is given.
    pub(crate) fn balanced(
        self,
        source: &str,
        per_class: Option<usize>,
        seed: u64,
    ) -> Result<Self> {
        match (per_class, self) {
            (None, pictures) => Ok(pictures),
            (Some(per_class), Self::Data(data)) => {
                Ok(Self::Data(Box::new(Balanced::choose(source, data, per_class, seed)?)))
            }
            (Some(_), Self::Batch(_)) => bail!("{source} does not say the classes of its pictures"),
        }
    }

    /// Width and height of the pictures; of a data set, of its first one.
    pub(crate) fn size(&self) -> Result<(usize, usize)> {
        match self {
            Self::Batch(batch) => {
                let [_, height, width] = batch.images().context("there are no pictures")?;
                Ok((width, height))
            }
            Self::Data(data) => {
                let first = data.picture(0)?;
                Ok((first.width(), first.height()))
            }
        }
    }

    fn for_each_batch(
        &self,
        (width, height): (usize, usize),
        crop: Crop,
        mut take: impl FnMut(Images) -> Result<()>,
    ) -> Result<()> {
        let data = match self {
            Self::Batch(batch) => return batch.for_each_batch(BATCH, take),
            Self::Data(data) => data,
        };
        for first in (0..data.len()).step_by(BATCH) {
            let pictures = (first..data.len().min(first + BATCH))
                .map(|index| Ok(crop.fit(data.picture(index)?, width, height, data.name(index))?))
                .collect::<Result<Vec<Picture>>>()?;
            take(images(&pictures))?;
        }
        Ok(())
    }
}

/// Pictures of one size as a network takes them.
pub(crate) fn images(pictures: &[Picture]) -> Images {
    let (width, height) = pictures.first().map_or((0, 0), |first| (first.width(), first.height()));
    let values = pictures.iter().flat_map(|picture| picture.rgb()).copied().collect();
    Images { values, height, width }
}

/// What is known of a set of pictures after a network saw them. Memory is that of the rows, where
/// they are kept, and of moments, however many there are.
#[derive(Default)]
pub(crate) struct Seen {
    forgets_rows: bool,
    count: usize,
    pool: Option<FeatureMatrix>,
    logits: Option<FeatureMatrix>,
    pool_moments: Option<Moments>,
    spatial_moments: Option<Moments>,
}

impl Seen {
    /// Nothing seen yet; only moments are kept.
    pub(crate) fn moments_only() -> Self {
        Self { forgets_rows: true, ..Self::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// All rows of pooled features, for precision, recall and the kernel distance.
    pub(crate) fn pool(&self) -> Option<&FeatureMatrix> {
        self.pool.as_ref()
    }

    /// All logits, for the Inception Score.
    pub(crate) fn logits(&self) -> Option<&FeatureMatrix> {
        self.logits.as_ref()
    }

    /// Mean and covariance of the pooled features.
    pub(crate) fn pool_gaussian(&self) -> Result<Gaussian> {
        Ok(self.pool_moments.as_ref().context("there are no pictures")?.gaussian()?)
    }

    /// Mean and covariance of the spatial features, where the network has them.
    pub(crate) fn spatial_gaussian(&self) -> Result<Option<Gaussian>> {
        Ok(self.spatial_moments.as_ref().map(Moments::gaussian).transpose()?)
    }

    /// Adds what a network says of the next pictures.
    pub(crate) fn add(&mut self, found: &Features) -> Result<()> {
        let first = self.count as u64;
        let kinds = [
            (&mut self.pool_moments, Some(&found.pool)),
            (&mut self.spatial_moments, found.spatial.as_ref()),
        ];
        for (moments, rows) in kinds {
            if let Some(rows) = rows {
                moments.get_or_insert_with(|| Moments::new(rows.width())).add(first, rows)?;
            }
        }
        if !self.forgets_rows {
            for (kept, rows) in
                [(&mut self.pool, Some(&found.pool)), (&mut self.logits, found.logits.as_ref())]
            {
                if let Some(rows) = rows {
                    kept.get_or_insert_with(|| FeatureMatrix::empty(rows.width())).append(rows)?;
                }
            }
        }
        self.count += found.pool.rows();
        Ok(())
    }
}

/// Shows all pictures to a network, and keeps all rows.
pub(crate) fn look(
    extractor: &Extractor,
    pictures: &Pictures,
    size: (usize, usize),
    crop: Crop,
    what: &'static str,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut progress = Progress::new(what, pictures.count() as u64);
    pictures.for_each_batch(size, crop, |images| {
        seen.add(&extractor.see(&images)?)?;
        progress.set(seen.count() as u64);
        Ok(())
    })?;
    progress.finish();
    Ok(seen)
}
