//! The perceptual losses that a recipe may name, and where their weights are.

use std::path::Path;

use burn::tensor::Device;
use files::{Home, TensorMap};
use metrics::{
    networks::{ChainConfig, ConvNextConfig, EfficientNetLiteConfig, NetworkError},
    perceptual::{LiteDistance, LogitDistance, Lpips, PerceptualDistance},
};
use serde::{Deserialize, Serialize};
use weights::{
    Checkpoint,
    public::{self, PublicWeights},
};

use crate::TrainingError;

/// The truncated EfficientNet-Lite0, below the root of bundled things.
const LITE: &str = "models/efficientnet-lite0/efficientnet-lite0.safetensors";

/// A network that compares pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PerceptualNetwork {
    /// A truncated EfficientNet-Lite0, which comes with the program.
    EfficientnetLite0,
    /// ConvNeXt-S: the squared difference of its logits (the paper's, after TiTok).
    ConvnextSmall,
    /// LPIPS by VGG16 (Zhang et al. 2018), for the first phase.
    LpipsVgg,
}

/// A distance, and a checksum of the weights behind it.
pub(crate) struct Loaded {
    pub(crate) distance: Box<dyn PerceptualDistance>,
    pub(crate) checksum: u32,
}

impl PerceptualNetwork {
    /// Its name in a recipe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EfficientnetLite0 => "efficientnet_lite0",
            Self::ConvnextSmall => "convnext_small",
            Self::LpipsVgg => "lpips_vgg",
        }
    }

    /// Reads the network, from `weights` if that is given, else from where it belongs: what is
    /// bundled, below `home`, or the folder of fetched weights. The weights of LPIPS's channels are
    /// always the fetched ones. `device` is without automatic differentiation.
    pub(crate) fn load(
        self,
        weights: Option<&Path>,
        home: &Home,
        device: &Device,
    ) -> Result<Loaded, TrainingError> {
        let unfit = |error: NetworkError| self.problem(error);
        let (distance, checksum): (Box<dyn PerceptualDistance>, u32) = match self {
            Self::EfficientnetLite0 => {
                let path = match weights {
                    Some(path) => path.to_owned(),
                    None => home.path(LITE).map_err(|error| self.problem(error))?,
                };
                let tensors = Checkpoint::read(path)?.tensors;
                let checksum = checksum(&tensors);
                let network = EfficientNetLiteConfig::lite0().load(tensors, device);
                (Box::new(LiteDistance::new(network.map_err(unfit)?)), checksum)
            }
            Self::ConvnextSmall => {
                let tensors = self.read("convnext-small", weights)?;
                let checksum = checksum(&tensors);
                let network = ConvNextConfig::small().load(tensors, device).map_err(unfit)?;
                (Box::new(LogitDistance::new(network)), checksum)
            }
            Self::LpipsVgg => {
                let network = self.read("vgg16", weights)?;
                let heads = self.read("lpips-vgg", None)?;
                let checksum = checksum(&network) ^ checksum(&heads);
                let lpips = Lpips::load(&ChainConfig::vgg16(), network, heads, device);
                (Box::new(lpips.map_err(unfit)?), checksum)
            }
        };
        Ok(Loaded { distance, checksum })
    }

    /// The tensors of public weights, from a file of one's own or as they were fetched.
    fn read(self, name: &str, weights: Option<&Path>) -> Result<TensorMap, TrainingError> {
        let path = match weights {
            Some(path) => path.to_owned(),
            None => {
                let folder = public::cache_folder().ok_or_else(|| {
                    self.problem("there is no home folder for weights; set ALITOK_HOME")
                })?;
                let public = PublicWeights::find(name).map_err(|error| self.problem(error))?;
                public.verified(&folder).map_err(|error| self.problem(error))?
            }
        };
        Ok(Checkpoint::read(path)?.tensors)
    }

    fn problem(self, problem: impl ToString) -> TrainingError {
        TrainingError::Perceptual { network: self.name(), problem: problem.to_string() }
    }
}

/// A checksum over names and values.
fn checksum(tensors: &TensorMap) -> u32 {
    tensors.iter().fold(0, |checksum, (name, tensor)| {
        let checksum = crc32c::crc32c_append(checksum, name.as_bytes());
        let bytes: Vec<u8> = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        crc32c::crc32c_append(checksum, &bytes)
    })
}
