//! How well a tokenizer rebuilds pictures.

use std::{collections::BTreeMap, ops::Range};

use metrics::{Features, Gaussian, Mean, frechet_distance};
use pipeline::{Decode, Encode};
use pixels::{DataSet, Picture, crop::Crop};
use serde::Serialize;
use tokenizer::TokenizerConfig;

use crate::{
    EvaluationError, Observer,
    comparison::{Measures, Reference, SeenReference, names_validation},
    extractor::{Description, Extractor, Quantity},
    observer,
    parts::{Arrays, PART},
    pictures::{self, Seen},
    protocol::Published,
};

/// Pictures that the literature's rFID is of: ImageNet's validation side.
const PICTURES: usize = 50_000;

/// A distance of a reconstruction from its original.
pub trait PerceptualMeasure: Send + Sync {
    /// The name of its values in JSON and in parts.
    fn key(&self) -> &str;

    /// The name of its values in a table.
    fn title(&self) -> &str;

    /// What its weights are known by.
    fn digest(&self) -> &str;

    /// The distance of each pair of pictures, which all have one size. A pair's distance does not depend
    /// on the others.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    fn distances(
        &self,
        originals: &[Picture],
        rebuilds: &[Picture],
    ) -> Result<Vec<f64>, EvaluationError>;
}

/// Perceptual measures of a reconstruction.
pub type Perceptual = [Box<dyn PerceptualMeasure>];

/// Takes pictures of a data set through tokens and back, and measures what is lost.
#[allow(missing_debug_implementations)] // what encodes and decodes has nothing to show
pub struct Rebuilder<'a> {
    /// The pictures.
    pub data: &'a dyn DataSet,
    /// Makes tokens.
    pub encoder: &'a dyn Encode,
    /// Makes pictures.
    pub decoder: &'a dyn Decode,
    /// The network whose features are compared.
    pub extractor: &'a Extractor,
    /// Distances of pairs.
    pub perceptual: &'a Perceptual,
}

impl Rebuilder<'_> {
    /// Measures these pictures of the data, cropped to the tokenizer's size. A row a picture:
    /// `tokens`, `psnr`, `ssim`, `row_errors` (sums of squared differences of 8-bit values), the
    /// perceptual distances, `original` and `rebuilt` (pooled features).
    ///
    /// # Errors
    /// If a picture cannot be read, encoded or decoded.
    pub fn part(
        &self,
        range: Range<usize>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Arrays, EvaluationError> {
        let config = self.encoder.config();
        let (width, height) = (config.image.width, config.image.height);
        let row = 3 * width * config.patch;
        let (mut originals, mut rebuilds) = (Vec::new(), Vec::new());
        let mut all_tokens = Vec::new();
        let (mut psnr, mut ssim, mut row_errors) = (Vec::new(), Vec::new(), Vec::new());
        for index in range {
            let picture = self.data.picture(index)?;
            let picture = Crop::Center.fit(picture, width, height, self.data.name(index))?;
            let tokens = self.encoder.encode(&picture)?;
            let rebuilt = self.decoder.decode(&tokens)?;
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
            arrays.add_numbers(measure.key(), 1, measure.distances(&originals, &rebuilds)?);
        }
        let see = |pictures: &[Picture]| self.extractor.features(&pictures::images(pictures));
        arrays.add_features("original", &see(&originals)?.pool);
        arrays.add_features("rebuilt", &see(&rebuilds)?.pool);
        Ok(arrays)
    }

    /// Rebuilds every picture of the data set.
    ///
    /// # Errors
    /// If a picture cannot be read, encoded or decoded.
    pub fn measure(
        &self,
        observer: &mut dyn Observer,
    ) -> Result<ReconstructionSums, EvaluationError> {
        let count = self.data.len();
        let codes = self.encoder.config().codes;
        let mut sums =
            ReconstructionSums::new(codes, self.extractor.description(), self.perceptual);
        let mut tell = |done: usize| observer.progress("reconstructing", done as u64, count as u64);
        tell(0);
        for first in (0..count).step_by(PART) {
            let range = first..count.min(first + PART);
            sums.add(&self.part(range, &mut |done| tell(first + done))?)?;
        }
        Ok(sums)
    }
}

/// Sums over parts.
#[derive(Debug)]
pub struct ReconstructionSums {
    count: usize,
    psnr: Mean,
    ssim: Mean,
    /// Key, title and mean.
    perceptual: Vec<(String, String, Mean)>,
    used: Vec<u64>,
    row_errors: Vec<f64>,
    originals: Seen,
    rebuilds: Seen,
}

impl ReconstructionSums {
    /// Of no pictures, with a codebook of this many codes and these perceptual distances.
    pub fn new(codes: usize, description: &Description, perceptual: &Perceptual) -> Self {
        Self {
            count: 0,
            psnr: Mean::default(),
            ssim: Mean::default(),
            perceptual: perceptual
                .iter()
                .map(|one| (one.key().to_owned(), one.title().to_owned(), Mean::default()))
                .collect(),
            used: vec![0; codes],
            row_errors: Vec::new(),
            originals: Seen::moments_only(description),
            rebuilds: Seen::moments_only(description),
        }
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// If it lacks something, or holds tokens of another model.
    pub fn add(&mut self, arrays: &Arrays) -> Result<(), EvaluationError> {
        let psnr = arrays.numbers("psnr")?;
        self.psnr.extend(psnr.iter().copied());
        self.ssim.extend(arrays.numbers("ssim")?.iter().copied());
        for (key, _, mean) in &mut self.perceptual {
            mean.extend(arrays.numbers(key)?.iter().copied());
        }
        let row_errors = arrays.numbers("row_errors")?;
        let rows = row_errors.len() / psnr.len().max(1);
        self.row_errors.resize(rows, 0.0);
        for picture in row_errors.chunks_exact(rows.max(1)) {
            // Whole numbers below 2^53: their sum does not depend on the order.
            self.row_errors.iter_mut().zip(picture).for_each(|(sum, error)| *sum += error);
        }
        for &token in arrays.integers("tokens")? {
            let code = usize::try_from(token).ok().and_then(|token| self.used.get_mut(token));
            let problem = || format!("its token {token} is no code of the model");
            *code.ok_or_else(|| EvaluationError::Impossible(problem()))? += 1;
        }
        for (name, seen) in [("original", &mut self.originals), ("rebuilt", &mut self.rebuilds)] {
            let pool = arrays.required_features(name)?;
            seen.add(&Features { pool, spatial: None, logits: None })?;
        }
        self.count += psnr.len();
        Ok(())
    }

    /// Mean and covariance of the originals' features.
    ///
    /// # Errors
    /// If there are too few pictures.
    pub fn originals(&self) -> Result<Gaussian, EvaluationError> {
        self.originals.pool_gaussian()
    }

    /// Mean and covariance of the reconstructions' features.
    ///
    /// # Errors
    /// If there are too few pictures.
    pub fn rebuilds(&self) -> Result<Gaussian, EvaluationError> {
        self.rebuilds.pool_gaussian()
    }

    /// The measures over all parts, of pictures of this width, in patches of this side.
    ///
    /// # Errors
    /// If there are no pictures.
    pub fn finish(&self, width: usize, patch: usize) -> Result<Reconstruction, EvaluationError> {
        if self.count == 0 {
            return Err(EvaluationError::impossible("there are no pictures"));
        }
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
                .map(|(key, title, one)| (key.clone(), title.clone(), mean(one)))
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

    /// All measures with their names, against a reference of generation, too, where there is one.
    ///
    /// # Errors
    /// If there are no pictures, or statistics are damaged.
    pub fn result(
        &self,
        config: &TokenizerConfig,
        extractor: &Extractor,
        reference: Option<&SeenReference>,
        published: Published,
    ) -> Result<ReconstructionResult, EvaluationError> {
        let found = self.finish(config.image.width, config.patch)?;
        let naming = extractor.description().naming;
        let mut measures = Measures::new(published);
        measures.add_plain("psnr", "PSNR, dB", found.psnr);
        measures.add_plain("ssim", "SSIM", found.ssim);
        for (key, title, value) in found.perceptual {
            measures.add_plain(key, title, value);
        }
        if let Some(distance) = found.distance {
            // Beside a reference of generation, rFID is not the number that is asked for.
            let quantity = match reference {
                Some(_) => Quantity::OwnDistance,
                None => Quantity::ReconstructionDistance,
            };
            measures.add(naming, quantity, distance);
        }
        if let Some(reference) = reference {
            let theirs = &reference.statistics.pool;
            let rebuilds = frechet_distance(&self.rebuilds()?, theirs)?;
            measures.add(naming, Quantity::ReconstructionsFromReference, rebuilds);
            let originals = frechet_distance(&self.originals()?, theirs)?;
            measures.add(naming, Quantity::OriginalsFromReference, originals);
        }
        Ok(ReconstructionResult {
            measures,
            images: found.count,
            codebook_usage: found.usage,
            codebook_entropy_bits: found.entropy,
            row_errors: found.row_errors,
            extractor: extractor.network(),
            decoder: None,
            departures: Vec::new(),
        })
    }
}

/// What is lost on the way through tokens and back, over a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// Number of pictures.
    pub count: usize,
    /// Peak signal-to-noise ratio in dB, mean over pictures.
    pub psnr: f64,
    /// Structural similarity, mean over pictures.
    pub ssim: f64,
    /// Perceptual distances by key and title, means over pictures.
    pub perceptual: Vec<(String, String, f64)>,
    /// Fraction of the codes that occur.
    pub usage: f64,
    /// Entropy of the codes' frequencies, in bits.
    pub entropy: f64,
    /// Mean squared error of each row of patches, for values in [0, 1].
    pub row_errors: Vec<f64>,
    /// Fréchet distance between the network's features of the originals and of the
    /// reconstructions; `None` for a single picture.
    pub distance: Option<f64>,
}

/// How well a tokenizer rebuilds a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReconstructionResult {
    /// The numbers that may have a published value.
    #[serde(flatten)]
    pub measures: Measures,
    /// Number of pictures.
    pub images: usize,
    /// Fraction of the codes that occur.
    pub codebook_usage: f64,
    /// Entropy of the codes' frequencies, in bits.
    pub codebook_entropy_bits: f64,
    /// Mean squared error of each row of patches, for values in [0, 1].
    pub row_errors: Vec<f64>,
    /// The network that compared, as files of statistics name it.
    pub extractor: &'static str,
    /// The decoder, where no protocol says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<&'static str>,
    /// What departs from how the literature measures.
    pub departures: Vec<String>,
}

/// What departs from how the literature measures rFID, or gFID of reconstructions where there is a
/// reference.
pub fn departures(
    source: &str,
    pictures: usize,
    reference: Option<&Reference>,
    extractor: &Extractor,
) -> Vec<String> {
    let mut departures = Vec::new();
    if let Some(reference) = reference {
        departures.extend(reference.unfit_for_generation());
    } else if extractor.description().naming.is_fid() {
        if pictures != PICTURES {
            departures.push(format!(
                "the literature's rFID is of ImageNet's {PICTURES} validation pictures; these are \
                 {pictures}, and fewer make it larger"
            ));
        }
        if !names_validation(source) {
            departures.push(format!(
                "{source} is no validation side by its name; rFID is measured on pictures that \
                 the tokenizer was not trained on"
            ));
        }
    }
    departures.extend(extractor.description().caveat.map(str::to_owned));
    departures
}

/// Rebuilds a data set, called `source`, and measures what is lost; compares with a reference of
/// generation, too, where one is given.
///
/// # Errors
/// If a picture cannot be read, encoded or decoded, or the reference is damaged.
pub fn evaluate(
    source: &str,
    rebuilder: &Rebuilder<'_>,
    reference: Option<Reference>,
    observer: &mut dyn Observer,
) -> Result<ReconstructionResult, EvaluationError> {
    let Rebuilder { data, encoder, decoder, extractor, .. } = rebuilder;
    let departures = departures(source, data.len(), reference.as_ref(), extractor);
    observer::tell(observer, &departures);
    let config = encoder.config();
    let size = (config.image.width, config.image.height);
    let reference = reference.map(|reference| reference.see(extractor, size, observer));
    let reference = reference.transpose()?;
    let sums = rebuilder.measure(observer)?;
    let mut result = sums.result(config, extractor, reference.as_ref(), Published::default())?;
    result.decoder = Some(decoder.kind().name());
    result.departures = departures;
    Ok(result)
}

/// The digests of the networks behind perceptual distances, by key.
pub(crate) fn digests(perceptual: &Perceptual) -> BTreeMap<&str, &str> {
    perceptual.iter().map(|one| (one.key(), one.digest())).collect()
}
