//! Loading the networks that pictures are compared by, on Burn.

use std::{error::Error, path::PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use files::{Home, TensorMap};
use metrics::{
    FeatureExtractor, FeatureMatrix, Features, Images, MetricsError,
    extractor::{INCEPTION, LITE},
    networks::{
        ChainConfig, EfficientNetLite, EfficientNetLiteConfig, Inception, InceptionConfig,
        NetworkError,
    },
    perceptual::{Lpips, PerceptualDistance},
};
use pixels::Picture;
use weights::{
    Checkpoint,
    public::{self, PublicWeights},
};

use crate::{
    EvaluationError,
    extractor::{BATCH, Description, Extractor, WeightsSource},
    reconstruction::PerceptualMeasure,
};

/// A network of known weights.
trait Network: Send + Sync {
    /// What the 8-bit values of pictures are divided by.
    fn divisor(&self) -> f32;

    /// # Shapes
    /// `images [batch, 3, height, width]`; each of the features `[batch, width]`.
    fn see(&self, images: Tensor<4>) -> Found;
}

/// What a network says of a batch; see [`Features`].
struct Found {
    pool: Tensor<2>,
    spatial: Option<Tensor<2>>,
    logits: Option<Tensor<2>>,
}

impl Network for Inception {
    fn divisor(&self) -> f32 {
        1.0
    }

    fn see(&self, images: Tensor<4>) -> Found {
        let found = self.features(images);
        Found {
            pool: found.pool,
            spatial: Some(found.spatial),
            logits: Some(found.logits_without_bias),
        }
    }
}

impl Network for EfficientNetLite {
    fn divisor(&self) -> f32 {
        255.0
    }

    fn see(&self, images: Tensor<4>) -> Found {
        Found { pool: self.pooled(images), spatial: None, logits: None }
    }
}

type Load = fn(TensorMap, &Device) -> Result<Box<dyn Network>, NetworkError>;

/// How each network is loaded, by the name that files of statistics have.
const NETWORKS: [(&str, Load); 2] = [
    (LITE, |tensors, device| Ok(Box::new(EfficientNetLiteConfig::lite0().load(tensors, device)?))),
    (INCEPTION, |tensors, device| {
        Ok(Box::new(InceptionConfig::published().load(tensors, device)?))
    }),
];

/// The file of public weights, as `alitok weights fetch` left it.
///
/// # Errors
/// If they were not fetched, or changed since.
pub fn fetched(name: &str) -> Result<PathBuf, EvaluationError> {
    let folder = public::cache_folder().ok_or_else(|| {
        EvaluationError::impossible("there is no home folder for weights; set ALITOK_HOME")
    })?;
    Ok(PublicWeights::find(name)?.verified(&folder)?)
}

impl Extractor {
    /// Loads the network that `--extractor` names: `lite` (bundled), `inception` (fetched before), or
    /// either with a file of its weights, `inception=FILE`.
    ///
    /// # Errors
    /// If there is no such network, or its weights are missing or damaged.
    pub fn open(name: &str, home: &Home, device: &Device) -> Result<Self, EvaluationError> {
        let (description, file) = Description::parse(name)?;
        let path = match (file, description.weights) {
            (Some(file), _) => PathBuf::from(file),
            (None, WeightsSource::Bundled(path)) => home.path(path)?,
            (None, WeightsSource::Public { name, .. }) => fetched(name)?,
        };
        let (_, load) = NETWORKS
            .iter()
            .find(|(network, _)| *network == description.network)
            .ok_or_else(|| EvaluationError::option("--extractor", "the network is not built in"))?;
        let digest = public::hash_of(&path)?;
        let tensors = Checkpoint::read(&path)?.tensors;
        let network = load(tensors, device).map_err(EvaluationError::at(path.display()))?;
        let loaded = Loaded { name: description.network, digest, network, device: device.clone() };
        Ok(Self::new(description, Box::new(loaded)))
    }
}

/// A network with its weights' digest.
struct Loaded {
    name: &'static str,
    digest: String,
    network: Box<dyn Network>,
    device: Device,
}

/// The first `count` rows.
fn matrix(rows: Tensor<2>, count: usize) -> Result<FeatureMatrix, Box<dyn Error + Send + Sync>> {
    let [_, width] = rows.dims();
    let mut values =
        rows.into_data().try_into_vec::<f32>().map_err(|error| format!("{error:?}"))?;
    values.truncate(count * width);
    Ok(FeatureMatrix::new(width, values)?)
}

impl FeatureExtractor for Loaded {
    fn name(&self) -> &str {
        self.name
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn features(&self, images: &Images) -> Result<Features, Box<dyn Error + Send + Sync>> {
        let Images { height, width, .. } = *images;
        let size = 3 * height * width;
        let divisor = self.network.divisor();
        let mut all: Option<Features> = None;
        for pictures in images.values.chunks(BATCH * size) {
            let count = pictures.len() / size;
            let mut values: Vec<f32> =
                pictures.iter().map(|&value| f32::from(value) / divisor).collect();
            values.resize(BATCH * size, 0.0);
            let data = TensorData::new(values, [BATCH, height, width, 3]);
            let input = Tensor::<4>::from_data(data, &self.device).permute([0, 3, 1, 2]);
            let Found { pool, spatial, logits } = self.network.see(input);
            let found = Features {
                pool: matrix(pool, count)?,
                spatial: spatial.map(|rows| matrix(rows, count)).transpose()?,
                logits: logits.map(|rows| matrix(rows, count)).transpose()?,
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

/// LPIPS 0.1 by one network.
#[derive(Debug)]
pub struct LpipsMeasure {
    key: String,
    title: String,
    digest: String,
    lpips: Lpips,
    device: Device,
}

/// A network of LPIPS.
struct LpipsNetwork {
    name: &'static str,
    title: &'static str,
    config: fn() -> ChainConfig,
    /// Names of the public weights of the network and of its channels.
    weights: [&'static str; 2],
}

const LPIPS: [LpipsNetwork; 2] = [
    LpipsNetwork {
        name: "vgg",
        title: "VGG",
        config: ChainConfig::vgg16,
        weights: ["vgg16", "lpips-vgg"],
    },
    LpipsNetwork {
        name: "alex",
        title: "Alex",
        config: ChainConfig::alexnet,
        weights: ["alexnet", "lpips-alex"],
    },
];

impl LpipsMeasure {
    /// Loads the measure that `--lpips` names: `vgg` or `alex`, with the fetched weights, or
    /// `NAME=NETWORK,CHANNELS` with files of one's own.
    ///
    /// # Errors
    /// If there is no such network, or its weights are missing or damaged.
    pub fn open(name: &str, device: &Device) -> Result<Self, EvaluationError> {
        let option = || format!("--lpips {name}");
        let (network, files) = name.split_once('=').map_or((name, None), |(a, b)| (a, Some(b)));
        let network = LPIPS.iter().find(|known| known.name == network).ok_or_else(|| {
            EvaluationError::option(option(), "the networks are `vgg` and `alex`")
        })?;
        let [public_network, heads] = network.weights;
        let [network_file, heads_file] = match files {
            None => [fetched(public_network)?, fetched(heads)?],
            Some(files) => {
                let (one, other) = files.split_once(',').ok_or_else(|| {
                    let problem = format!(
                        "write {}=NETWORK,CHANNELS with the files of `{public_network}` and \
                         `{heads}` (`alitok weights list`)",
                        network.name
                    );
                    EvaluationError::option(option(), problem)
                })?;
                [PathBuf::from(one), PathBuf::from(other)]
            }
        };
        let digest =
            format!("{} {}", public::hash_of(&network_file)?, public::hash_of(&heads_file)?);
        let tensors = |path: &PathBuf| Ok::<_, EvaluationError>(Checkpoint::read(path)?.tensors);
        let config = (network.config)();
        let lpips = Lpips::load(&config, tensors(&network_file)?, tensors(&heads_file)?, device)
            .map_err(EvaluationError::at(option()))?;
        let (key, title) =
            (format!("lpips_{}", network.name), format!("LPIPS ({})", network.title));
        Ok(Self { key, title, digest, lpips, device: device.clone() })
    }

    /// # Shapes
    /// `[BATCH, 3, height, width]` in [0, 1]; zeros behind the pictures.
    fn batch(&self, pictures: &[Picture]) -> Tensor<4> {
        let (width, height) = (pictures[0].width(), pictures[0].height());
        let mut values: Vec<f32> =
            pictures.iter().flat_map(|picture| picture.to_unit_planes()).collect();
        values.resize(BATCH * 3 * width * height, 0.0);
        let data = TensorData::new(values, [BATCH, 3, height, width]);
        Tensor::from_data(data, &self.device)
    }
}

impl PerceptualMeasure for LpipsMeasure {
    fn key(&self) -> &str {
        &self.key
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn distances(
        &self,
        originals: &[Picture],
        rebuilds: &[Picture],
    ) -> Result<Vec<f64>, EvaluationError> {
        let mut found = Vec::with_capacity(originals.len());
        // Always the same number of pairs together: see [`BATCH`].
        for (originals, rebuilds) in originals.chunks(BATCH).zip(rebuilds.chunks(BATCH)) {
            let distances = self.lpips.distance(self.batch(rebuilds), self.batch(originals));
            let distances = distances
                .into_data()
                .try_into_vec::<f32>()
                .map_err(|error| EvaluationError::Impossible(format!("LPIPS: {error:?}")))?;
            found.extend(distances[..originals.len()].iter().map(|&value| f64::from(value)));
        }
        Ok(found)
    }
}
