//! How well a tokenizer rebuilds pictures.

use std::{ops::Range, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use metrics::{
    FeatureExtractor, Features, Gaussian, Mean, frechet_distance,
    networks::ChainConfig,
    perceptual::{Lpips, PerceptualDistance},
};
use pixels::{DataSet, Picture, crop::Crop};
use serde_json::Value;
use weights::{Checkpoint, public};

use crate::{
    compute::{Decoding, Encoding},
    extractor::{self, BATCH, Extractor, Seen},
    parts::{Arrays, PART},
    progress::Progress,
};

/// LPIPS by one network.
pub(crate) struct PerceptualMeasure {
    /// `vgg` or `alex`.
    pub(crate) network: &'static str,
    /// What its weights are known by.
    pub(crate) digest: String,
    lpips: Lpips,
    device: Device,
}

impl PerceptualMeasure {
    /// The measure that `--lpips` names: `vgg` or `alex`, with the fetched weights, or
    /// `NAME=NETWORK,CHANNELS` with files of one's own.
    pub(crate) fn open(name: &str, device: &Device) -> Result<Self> {
        let (network, files) = name.split_once('=').map_or((name, None), |(a, b)| (a, Some(b)));
        let (network, config, public_network, heads) = match network {
            "vgg" => ("vgg", ChainConfig::vgg16(), "vgg16", "lpips-vgg"),
            "alex" => ("alex", ChainConfig::alexnet(), "alexnet", "lpips-alex"),
            _ => bail!("--lpips {name}: the networks are `vgg` and `alex`"),
        };
        let [network_file, heads_file] = match files {
            None => [extractor::fetched(public_network)?, extractor::fetched(heads)?],
            Some(files) => {
                let (one, other) = files.split_once(',').with_context(|| {
                    format!(
                        "--lpips {name}: write {network}=NETWORK,CHANNELS with the files of \
                         `{public_network}` and `{heads}` (`alitok weights list`)"
                    )
                })?;
                [PathBuf::from(one), PathBuf::from(other)]
            }
        };
        let digest =
            format!("{} {}", public::hash_of(&network_file)?, public::hash_of(&heads_file)?);
        let tensors = |path: &PathBuf| Ok::<_, anyhow::Error>(Checkpoint::read(path)?.tensors);
        let lpips = Lpips::load(&config, tensors(&network_file)?, tensors(&heads_file)?, device)
            .with_context(|| format!("--lpips {name}"))?;
        Ok(Self { network, digest, lpips, device: device.clone() })
    }

    /// The name of its values.
    pub(crate) fn key(&self) -> String {
        format!("lpips_{}", self.network)
    }

    /// The distance of each pair of pictures. Always [`BATCH`] go through the network together, so
    /// that a pair's distance does not hang on the others.
    fn distances(&self, originals: &[Picture], rebuilds: &[Picture]) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(originals.len());
        let batch = |pictures: &[Picture]| {
            let (width, height) = (pictures[0].width(), pictures[0].height());
            let mut values: Vec<f32> =
                pictures.iter().flat_map(|picture| picture.to_unit_planes()).collect();
            values.resize(BATCH * 3 * width * height, 0.0);
            let data = TensorData::new(values, [BATCH, 3, height, width]);
            Tensor::<4>::from_data(data, &self.device)
        };
        for (originals, rebuilds) in originals.chunks(BATCH).zip(rebuilds.chunks(BATCH)) {
            let distances = self.lpips.distance(batch(rebuilds), batch(originals)).into_data();
            let distances = distances
                .try_into_vec::<f32>()
                .map_err(|error| anyhow::anyhow!("LPIPS: {error:?}"))?;
            found.extend(distances[..originals.len()].iter().map(|&value| f64::from(value)));
        }
        Ok(found)
    }
}

/// Takes pictures of a data set through tokens and back, and measures what is lost.
pub(crate) struct Rebuilder<'a> {
    pub(crate) data: &'a dyn DataSet,
    pub(crate) encoding: &'a Encoding,
    pub(crate) decoding: &'a Decoding,
    pub(crate) extractor: &'a Extractor,
    pub(crate) perceptual: &'a [PerceptualMeasure],
}

impl Rebuilder<'_> {
    /// Measures these pictures of the data, cropped to the tokenizer's size. A row a picture:
    /// `tokens`, `psnr`, `ssim`, `row_errors` (sums of squared differences of 8-bit values), the
    /// perceptual distances, `original` and `rebuilt` (pooled features).
    pub(crate) fn part(
        &self,
        range: Range<usize>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Arrays> {
        let config = self.encoding.config();
        let (width, height) = (config.image.width, config.image.height);
        let row = 3 * width * config.patch;
        let (mut originals, mut rebuilds) = (Vec::new(), Vec::new());
        let mut all_tokens = Vec::new();
        let (mut psnr, mut ssim, mut row_errors) = (Vec::new(), Vec::new(), Vec::new());
        for index in range.clone() {
            let picture = self.data.picture(index)?;
            let picture = Crop::Center.fit(picture, width, height, self.data.name(index))?;
            let tokens = self.encoding.tokens(&picture);
            let rebuilt = self.decoding.picture(&tokens)?;
            all_tokens.extend(tokens.into_iter().map(i64::from));
            psnr.push(metrics::psnr(picture.rgb(), rebuilt.rgb())?);
            ssim.push(metrics::ssim(picture.rgb(), rebuilt.rgb(), width, height, 3)?);
            let rows = picture.rgb().chunks(row).zip(rebuilt.rgb().chunks(row));
            row_errors.extend(rows.map(|(one, other)| {
                let squares = one.iter().zip(other).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2));
                squares.sum::<u64>() as f64
            }));
            originals.push(picture);
            rebuilds.push(rebuilt);
            progress(originals.len());
        }
        let mut arrays = Arrays::default();
        arrays.add_integers("tokens", config.layout().len(), all_tokens);
        arrays.add_numbers("psnr", 1, psnr);
        arrays.add_numbers("ssim", 1, ssim);
        arrays.add_numbers("row_errors", height / config.patch, row_errors);
        for measure in self.perceptual {
            arrays.add_numbers(&measure.key(), 1, measure.distances(&originals, &rebuilds)?);
        }
        let see = |pictures: &[Picture]| self.extractor.see(&extractor::images(pictures));
        arrays.add_features("original", &see(&originals)?.pool);
        arrays.add_features("rebuilt", &see(&rebuilds)?.pool);
        Ok(arrays)
    }
}

/// Sums over parts.
pub(crate) struct ReconstructionSums {
    count: usize,
    psnr: Mean,
    ssim: Mean,
    perceptual: Vec<(String, Mean)>,
    used: Vec<u64>,
    row_errors: Vec<f64>,
    originals: Seen,
    rebuilds: Seen,
}

impl ReconstructionSums {
    /// Nothing yet; of a codebook of this many codes, with these perceptual distances.
    pub(crate) fn new(codes: usize, perceptual: &[PerceptualMeasure]) -> Self {
        Self {
            count: 0,
            psnr: Mean::default(),
            ssim: Mean::default(),
            perceptual: perceptual.iter().map(|one| (one.key(), Mean::default())).collect(),
            used: vec![0; codes],
            row_errors: Vec::new(),
            originals: Seen::moments_only(),
            rebuilds: Seen::moments_only(),
        }
    }

    /// Adds the next part.
    pub(crate) fn add(&mut self, arrays: &Arrays) -> Result<()> {
        let numbers = |name: &str| {
            arrays.numbers(name).with_context(|| format!("it has no numbers `{name}`"))
        };
        let psnr = numbers("psnr")?;
        self.psnr.extend(psnr.iter().copied());
        self.ssim.extend(numbers("ssim")?.iter().copied());
        for (name, mean) in &mut self.perceptual {
            mean.extend(numbers(name)?.iter().copied());
        }
        let row_errors = numbers("row_errors")?;
        let rows = row_errors.len() / psnr.len().max(1);
        self.row_errors.resize(rows, 0.0);
        for picture in row_errors.chunks_exact(rows.max(1)) {
            // Whole numbers below 2^53: the order of the sum is of no account.
            self.row_errors.iter_mut().zip(picture).for_each(|(sum, error)| *sum += error);
        }
        for &token in arrays.integers("tokens")? {
            let code = usize::try_from(token).ok().and_then(|token| self.used.get_mut(token));
            *code.with_context(|| format!("its token {token} is no code of the model"))? += 1;
        }
        for (name, seen) in [("original", &mut self.originals), ("rebuilt", &mut self.rebuilds)] {
            let pool = arrays.features(name)?;
            let pool = pool.with_context(|| format!("it has no features `{name}`"))?;
            seen.add(&Features { pool, spatial: None, logits: None })?;
        }
        self.count += psnr.len();
        Ok(())
    }

    /// Mean and covariance of the originals' features.
    pub(crate) fn originals(&self) -> Result<Gaussian> {
        self.originals.pool_gaussian()
    }

    /// Mean and covariance of the reconstructions' features.
    pub(crate) fn rebuilds(&self) -> Result<Gaussian> {
        self.rebuilds.pool_gaussian()
    }

    /// The measures over all parts; of pictures of this width, in patches of this side.
    pub(crate) fn finish(&self, width: usize, patch: usize) -> Result<Reconstruction> {
        ensure!(self.count > 0, "there are no pictures");
        let tokens: u64 = self.used.iter().sum();
        let probabilities =
            self.used.iter().filter(|&&count| count > 0).map(|&count| count as f64 / tokens as f64);
        let values_in_row = (self.count * 3 * width * patch) as f64;
        let mean = |mean: &Mean| mean.value().unwrap_or_default();
        Ok(Reconstruction {
            count: self.count,
            psnr: mean(&self.psnr),
            ssim: mean(&self.ssim),
            perceptual: self
                .perceptual
                .iter()
                .map(|(name, one)| (name.clone(), mean(one)))
                .collect(),
            usage: self.used.iter().filter(|&&count| count > 0).count() as f64
                / self.used.len() as f64,
            entropy: probabilities.map(|probability| -probability * probability.log2()).sum(),
            row_errors: self
                .row_errors
                .iter()
                .map(|error| error / values_in_row / (255.0 * 255.0))
                .collect(),
            distance: match self.count {
                1 => None,
                _ => Some(frechet_distance(&self.rebuilds()?, &self.originals()?)?),
            },
        })
    }
}

/// What is lost on the way through tokens and back, over a data set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reconstruction {
    /// Number of pictures.
    pub(crate) count: usize,
    /// Peak signal-to-noise ratio in dB, mean over pictures.
    pub(crate) psnr: f64,
    /// Structural similarity, mean over pictures.
    pub(crate) ssim: f64,
    /// Perceptual distances by name, means over pictures.
    pub(crate) perceptual: Vec<(String, f64)>,
    /// Fraction of the codes that occur.
    pub(crate) usage: f64,
    /// Entropy of the codes' frequencies, in bits.
    pub(crate) entropy: f64,
    /// Mean squared error of each row of patches, for values in [0, 1].
    pub(crate) row_errors: Vec<f64>,
    /// Fréchet distance between the network's features of the originals and of the
    /// reconstructions; of a single picture there is none.
    pub(crate) distance: Option<f64>,
}

impl Reconstruction {
    /// What stands beside the measures that have a published value.
    pub(crate) fn details(&self) -> [(&'static str, Value); 3] {
        [
            ("codebook_usage", self.usage.into()),
            ("codebook_entropy_bits", self.entropy.into()),
            ("row_errors", self.row_errors.clone().into()),
        ]
    }

    /// The same in words.
    pub(crate) fn details_text(&self, codes: usize) -> String {
        let first = self.row_errors.first().copied().unwrap_or_default();
        let others =
            self.row_errors.iter().skip(1).sum::<f64>() / (self.row_errors.len().max(2) - 1) as f64;
        format!(
            "\n{:<34}{:>12.1} %\n{:<34}{:>12.2} of {:.2} bits\n{:<34}{first:>12.5} (mean of the \
             others {others:.5})",
            "codebook usage",
            100.0 * self.usage,
            "codebook entropy",
            self.entropy,
            (codes as f64).log2(),
            "error of the first row",
        )
    }
}

/// Rebuilds every picture of a data set.
pub(crate) fn measure(rebuilder: &Rebuilder<'_>) -> Result<ReconstructionSums> {
    let count = rebuilder.data.len();
    let codes = rebuilder.encoding.config().codes;
    let mut sums = ReconstructionSums::new(codes, rebuilder.perceptual);
    let mut progress = Progress::new("reconstructing", count as u64);
    for first in (0..count).step_by(PART) {
        let range = first..count.min(first + PART);
        let arrays = rebuilder.part(range, &mut |done| progress.set((first + done) as u64))?;
        sums.add(&arrays)?;
    }
    progress.finish();
    Ok(sums)
}

/// The digests of the networks behind perceptual distances, by name.
pub(crate) fn digests(perceptual: &[PerceptualMeasure]) -> Value {
    perceptual.iter().map(|one| (one.key(), Value::from(one.digest.clone()))).collect()
}

/// What the reconstruction's measures hang on.
pub(crate) fn extractor_digest(extractor: &Extractor) -> Value {
    format!("{} {}", extractor.name(), extractor.digest()).into()
}
