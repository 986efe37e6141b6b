//! What is measured of a row whose trainings are done.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use experiment::{Ablation, Evaluation, UnitFolder};
use generator::{
    Condition, Request, SamplingConfig,
    reference::{Generator, Predictability},
};
use metrics::{Gaussian, frechet_distance};
use model::Model;
use pixels::{DataSet, Picture, crop::Crop};
use serde::{Deserialize, Serialize};
use token_cache::TokenCache;
use tokenizer::{
    DecoderKind, ImageSize,
    reference::{DecoderAttention, LocalPattern, Tokenizer},
};

use crate::{
    args::{ComputeArgs, DecoderArgs},
    compute::Compute,
    extractor::{self, Extractor, Seen},
    progress::Progress,
    reconstruction::{self, Rebuilder, Reconstruction},
};

/// Raised when more is measured: what an older version measured is then measured again.
const FORMAT: u32 = 2;

/// Everything that is known of a unit, as in its `measures.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measures {
    format: u32,
    /// What was asked for.
    pub(super) evaluation: Evaluation,
    /// Parameters of encoder, codebook and the decoder that was measured.
    pub(super) tokenizer_parameters: usize,
    pub(super) generator_parameters: usize,
    /// The generator on the first view of the pictures it was trained on, without dropout.
    pub(super) training: Predicted,
    /// The generator on held-out pictures.
    pub(super) heldout: Predicted,
    /// Fraction of the codes that the training pictures' tokens use.
    pub(super) codebook_usage: f64,
    /// Entropy of the codes' frequencies among the training pictures' grid tokens, in nats: the
    /// loss of a generator that knows these frequencies and nothing else.
    pub(super) code_entropy: f64,
    /// Of the held-out pictures.
    pub(super) reconstruction: Rebuilt,
    /// Distance of samples from the training pictures.
    pub(super) sample_distance: f64,
    /// What patches take of those around them in a bidirectional decoder, in the mean over
    /// held-out pictures, heads and layers (paper, Fig. 8b).
    attention: Option<[[f64; 3]; 3]>,
}

/// How well tokens are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Predicted {
    /// Mean cross-entropy of a token, in nats.
    pub(super) loss: f64,
    pub(super) accuracy: f64,
    /// The same of the grid's tokens alone.
    pub(super) grid_loss: f64,
    pub(super) grid_accuracy: f64,
    /// Cross-entropy of all tokens of a picture together, in nats.
    pub(super) picture_loss: f64,
}

/// What is lost in a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Rebuilt {
    /// In dB, mean over pictures.
    #[serde(with = "metrics::json")]
    pub(super) psnr: f64,
    pub(super) ssim: f64,
    /// Mean squared error of the first row of patches, and of the others.
    pub(super) first_row_error: f64,
    pub(super) other_rows_error: f64,
    /// Distance of the reconstructions from their originals.
    pub(super) distance: f64,
}

impl Measures {
    /// What patches take of those around them, where the decoder is bidirectional.
    pub(super) fn pattern(&self) -> Option<LocalPattern> {
        self.attention.map(|weights| LocalPattern { weights })
    }

    /// What was measured, if it is complete.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let value: serde_json::Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; delete it", path.display()))?;
        if value["format"] != FORMAT {
            return Ok(None);
        }
        let measures = serde_json::from_value(value)
            .with_context(|| format!("{} is damaged; delete it", path.display()))?;
        Ok(Some(measures))
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        files::write_file(path, |file| writeln!(file, "{text}"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Predicted {
    /// Predicts the tokens of a cache's pictures, in their first view, without dropout.
    fn measure(generator: &Generator, cache: &TokenCache, device: &Device) -> Result<Self> {
        let layout = cache.header().layout;
        let vocabulary = generator.config().vocabulary();
        let mut found = Predictability::new(layout);
        let mut progress = Progress::new("predicting", cache.len() as u64);
        for first in (0..cache.len()).step_by(TOGETHER) {
            let (mut classes, mut tokens) = (Vec::new(), Vec::new());
            for index in first..cache.len().min(first + TOGETHER) {
                let record = cache.record(index, 0)?;
                classes.push(vocabulary.class(record.label)? as i64);
                tokens.extend(record.tokens().map(i64::from));
            }
            let shape = [classes.len(), layout.len()];
            found.add(
                generator,
                Tensor::from_data(TensorData::new(classes, [shape[0]]), device),
                Tensor::from_data(TensorData::new(tokens, shape), device),
            );
            progress.set(found.sequences());
        }
        progress.finish();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (losses, accuracies) = (found.losses(), found.accuracies());
        Ok(Self {
            loss: mean(&losses),
            accuracy: mean(&accuracies),
            grid_loss: mean(&losses[layout.grid_range()]),
            grid_accuracy: mean(&accuracies[layout.grid_range()]),
            picture_loss: losses.iter().sum(),
        })
    }
}

/// Measures units; keeps what all of them are compared with.
pub(super) struct Measurer<'a> {
    plan: &'a Ablation,
    name: Option<pipeline::Device>,
    device: Device,
    /// The network, and what it makes of the training pictures of a size.
    reference: Option<(Extractor, ImageSize, Gaussian)>,
}

impl<'a> Measurer<'a> {
    pub(super) fn new(plan: &'a Ablation, name: Option<pipeline::Device>, device: Device) -> Self {
        Self { plan, name, device, reference: None }
    }

    /// Measures a run of a tokenizer, and the generator on its tokens.
    pub(super) fn measure(&mut self, tokenizer: &Path, tokens: &UnitFolder) -> Result<Measures> {
        let (plan, device) = (self.plan, self.device.clone());
        let evaluation = plan.evaluation;
        let compute = ComputeArgs::default();
        let compute = Compute::new(&compute, self.name)?;
        let model = Model::read(tokenizer.join("model"))?;
        let with_generator = Model::read(tokens.generator().join("model"))?;

        let generator = with_generator.generator(&self.device)?;
        let cache = TokenCache::open(tokens.cache())?;
        let layout = cache.header().layout;
        let training = Predicted::measure(&generator, &cache, &self.device)?;
        let heldout = TokenCache::open(tokens.heldout_cache())?;
        let heldout = Predicted::measure(&generator, &heldout, &self.device)?;
        let (codebook_usage, code_entropy) = frequencies(&cache)?;

        let encoding = compute.encoding(&model)?;
        let decoding = compute.decoding(&model, &DecoderArgs { decoder: None })?;
        let config = encoding.config();
        let (extractor, reference) = self.reference(config.image)?;
        let heldout_data = pixels::data::open(&plan.heldout, crate::models::home())?;
        let rebuilder = Rebuilder {
            data: heldout_data.as_ref(),
            encoding: &encoding,
            decoding: &decoding,
            extractor,
            perceptual: &[],
        };
        let Reconstruction { psnr, ssim, row_errors, distance, .. } =
            reconstruction::measure(&rebuilder)?.finish(config.image.width, config.patch)?;
        let (first_row, other_rows) = row_errors.split_first().context("a picture has rows")?;

        let drawing = compute.drawing(&with_generator)?;
        let requests = requests(&cache, &evaluation)?;
        let mut pictures = Vec::with_capacity(requests.len());
        let mut progress = Progress::new("samples", (requests.len() * layout.len()) as u64);
        drawing.draw(
            &requests,
            &SamplingConfig::default(),
            TOGETHER,
            |done| progress.set(done as u64),
            |_, tokens| {
                pictures.push(decoding.picture(&tokens)?);
                Ok(())
            },
        )?;
        progress.finish();
        let samples = seen(extractor, pictures.len(), |index| Ok(pictures[index].clone()))?;

        let attention = match decoding.kind {
            DecoderKind::Causal => None,
            kind => {
                let tokenizer = model.tokenizer(&device)?;
                Some(pattern(&tokenizer, kind, heldout_data.as_ref(), &device)?.weights)
            }
        };

        let decoder = config.decoder_parameters(config.decoder(decoding.kind)?);
        Ok(Measures {
            format: FORMAT,
            evaluation,
            tokenizer_parameters: config.encoder_parameters()
                + config.codebook_parameters()
                + decoder,
            generator_parameters: generator.config().parameter_count(),
            training,
            heldout,
            codebook_usage,
            code_entropy,
            reconstruction: Rebuilt {
                psnr,
                ssim,
                first_row_error: *first_row,
                other_rows_error: other_rows.iter().sum::<f64>() / other_rows.len().max(1) as f64,
                distance: distance.context("one held-out picture is too few for a distance")?,
            },
            sample_distance: frechet_distance(&samples, reference)?,
            attention,
        })
    }

    /// The network, and the moments of its features of the training pictures.
    fn reference(&mut self, size: ImageSize) -> Result<(&Extractor, &Gaussian)> {
        if self.reference.as_ref().is_none_or(|(_, known, _)| *known != size) {
            let extractor = extractor::open("lite", &self.device)?;
            let data = pixels::data::open(&self.plan.data, crate::models::home())?;
            let moments =
                seen(&extractor, data.len(), |index| picture(data.as_ref(), index, size))?;
            self.reference = Some((extractor, size, moments));
        }
        let (extractor, _, moments) = self.reference.as_ref().context("it was just made")?;
        Ok((extractor, moments))
    }
}

/// Sequences that are drawn, or predicted, together.
const TOGETHER: usize = 16;

fn picture(data: &dyn DataSet, index: usize, size: ImageSize) -> Result<Picture> {
    Ok(Crop::Center.fit(data.picture(index)?, size.width, size.height, data.name(index))?)
}

/// What patches of pictures take of those around them in a decoder, in the mean over all layers.
fn pattern(
    tokenizer: &Tokenizer,
    kind: DecoderKind,
    data: &dyn DataSet,
    device: &Device,
) -> Result<LocalPattern> {
    let size = tokenizer.config().image;
    let mut all: Option<DecoderAttention> = None;
    for index in 0..data.len() {
        let planes = picture(data, index, size)?.to_unit_planes();
        let planes = TensorData::new(planes, [1, 3, size.height, size.width]);
        let found = tokenizer.attention(Tensor::from_data(planes, device), kind)?;
        match &mut all {
            None => all = Some(found),
            Some(all) => all.merge(&found),
        }
    }
    let all = all.context("there are no held-out pictures")?;
    Ok(all.local_pattern(0..all.layers()))
}

/// The moments of a network's features of pictures.
fn seen(
    extractor: &Extractor,
    count: usize,
    picture: impl Fn(usize) -> Result<Picture>,
) -> Result<Gaussian> {
    let mut all = Seen::moments_only();
    let mut progress = Progress::new("looking", count as u64);
    for first in (0..count).step_by(extractor::BATCH) {
        let batch = first..count.min(first + extractor::BATCH);
        let pictures = batch.map(&picture).collect::<Result<Vec<_>>>()?;
        all.add(&extractor.see(&extractor::images(&pictures))?)?;
        progress.set((first + pictures.len()) as u64);
    }
    progress.finish();
    all.pool_gaussian()
}

/// Samples of the classes of training pictures, evenly taken from all of them.
fn requests(cache: &TokenCache, evaluation: &Evaluation) -> Result<Vec<Request>> {
    (0..evaluation.samples)
        .map(|index| {
            let of = index * cache.len() / evaluation.samples;
            Ok(Request {
                condition: Condition::Class(cache.record(of, 0)?.label),
                seed: evaluation.seed,
                index: index as u64,
                forced: Vec::new(),
            })
        })
        .collect()
}

/// The fraction of the codes that occur in the first view of a cache's pictures, and the entropy of
/// the grid's, in nats.
fn frequencies(cache: &TokenCache) -> Result<(f64, f64)> {
    let header = cache.header();
    let (mut all, mut grid) = (vec![0_u64; header.codes], vec![0_u64; header.codes]);
    for picture in 0..cache.len() {
        for (position, token) in cache.record(picture, 0)?.tokens().enumerate() {
            all[usize::from(token)] += 1;
            if header.layout.grid_range().contains(&position) {
                grid[usize::from(token)] += 1;
            }
        }
    }
    let used = all.iter().filter(|&&count| count > 0).count();
    let total: u64 = grid.iter().sum();
    let entropy = grid
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| count as f64 / total as f64)
        .map(|probability| -probability * probability.ln())
        .sum();
    Ok((used as f64 / header.codes as f64, entropy))
}
