//! What is measured of a row whose trainings are done.

use std::{io::Write, path::Path};

use burn::tensor::Device;
use evaluation::{
    Extractor,
    analysis::{attention::local_pattern, picture, predictability::predict},
    generation::{draw, request},
    pictures::moments,
    reconstruction::{Rebuilder, Reconstruction},
};
use generator::{Request, SamplingConfig, reference::Generator};
use metrics::{Gaussian, frechet_distance};
use model::Model;
use serde::{Deserialize, Serialize};
use token_cache::TokenCache;
use tokenizer::{DecoderKind, ImageSize, reference::LocalPattern};

use crate::{Ablation, Equipment, Evaluation, Observer, RunError, UnitFolder};

/// Raised when more is measured: what an older version measured is then measured again.
const FORMAT: u32 = 2;

/// Everything that is known of a unit, as in its `measures.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    format: u32,
    /// What was asked for.
    pub evaluation: Evaluation,
    /// Parameters of encoder, codebook and the decoder that was measured.
    pub tokenizer_parameters: usize,
    /// Parameters of the generator.
    pub generator_parameters: usize,
    /// The generator on the first view of the pictures it was trained on, without dropout.
    pub training: Predicted,
    /// The generator on held-out pictures.
    pub heldout: Predicted,
    /// Fraction of the codes that the training pictures' tokens use.
    pub codebook_usage: f64,
    /// Entropy of the codes' frequencies among the training pictures' grid tokens, in nats: the
    /// loss of a generator that knows these frequencies and nothing else.
    pub code_entropy: f64,
    /// Of the held-out pictures.
    pub reconstruction: Rebuilt,
    /// Distance of samples from the training pictures.
    pub sample_distance: f64,
    /// What patches take of those around them in a bidirectional decoder, in the mean over
    /// held-out pictures, heads and layers (paper, Fig. 8b).
    attention: Option<[[f64; 3]; 3]>,
}

/// How well tokens are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Mean cross-entropy of a token, in nats.
    pub loss: f64,
    /// Fraction of tokens that are the likeliest.
    pub accuracy: f64,
    /// Mean cross-entropy of a token of the grid, in nats.
    pub grid_loss: f64,
    /// Fraction of the grid's tokens that are the likeliest.
    pub grid_accuracy: f64,
    /// Cross-entropy of all tokens of a picture together, in nats.
    pub picture_loss: f64,
}

/// What is lost in a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Peak signal-to-noise ratio in dB, mean over pictures.
    #[serde(with = "metrics::json")]
    pub psnr: f64,
    /// Structural similarity, mean over pictures.
    pub ssim: f64,
    /// Mean squared error of the first row of patches.
    pub first_row_error: f64,
    /// Mean squared error of the other rows.
    pub other_rows_error: f64,
    /// Distance of the reconstructions from their originals.
    pub distance: f64,
}

impl Measures {
    /// What patches take of those around them, where the decoder is bidirectional.
    pub fn pattern(&self) -> Option<LocalPattern> {
        self.attention.map(|weights| LocalPattern { weights })
    }

    /// What was measured, if it is complete.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, RunError> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(RunError::file("read", path))?,
        };
        let damaged = |error: serde_json::Error| {
            RunError::content(path, format!("is damaged ({error}); delete it"))
        };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if value["format"] != FORMAT {
            return Ok(None);
        }
        Ok(Some(serde_json::from_value(value).map_err(damaged)?))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| RunError::content(path, format!("cannot be written: {error}")))?;
        files::write_file(path, |file| writeln!(file, "{text}"))
            .map_err(RunError::file("write", path))
    }
}

impl Predicted {
    /// Predicts the tokens of a cache's pictures, in their first view, without dropout.
    fn measure(
        generator: &Generator,
        cache: &TokenCache,
        device: &Device,
        observer: &mut dyn evaluation::Observer,
    ) -> Result<Self, RunError> {
        let layout = cache.header().layout;
        let vocabulary = generator.config().vocabulary();
        let found = predict(generator, cache.len(), device, observer, |index| {
            let record = cache.record(index, 0)?;
            Ok((vocabulary.class(record.label)?, record.tokens().collect()))
        })?;
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
#[derive(Debug)]
pub(crate) struct Measurer<'a> {
    plan: &'a Ablation,
    equipment: &'a Equipment,
    /// The network, and what it makes of the training pictures of a size.
    reference: Option<(Extractor, ImageSize, Gaussian)>,
}

impl<'a> Measurer<'a> {
    pub(crate) fn new(plan: &'a Ablation, equipment: &'a Equipment) -> Self {
        Self { plan, equipment, reference: None }
    }

    pub(crate) fn equipment(&self) -> &'a Equipment {
        self.equipment
    }

    /// Measures a run of a tokenizer, and the generator on its tokens.
    pub(crate) fn measure(
        &mut self,
        tokenizer: &Path,
        tokens: &UnitFolder,
        observer: &mut dyn Observer,
    ) -> Result<Measures, RunError> {
        let Self { plan, equipment: Equipment { device, compute, home }, .. } = *self;
        let evaluation = plan.evaluation;
        let model = Model::read(tokenizer.join("model"))?;
        let with_generator = Model::read(tokens.generator().join("model"))?;

        let generator = with_generator.generator(device)?;
        let cache = TokenCache::open(tokens.cache())?;
        let training = Predicted::measure(&generator, &cache, device, observer)?;
        let heldout = TokenCache::open(tokens.heldout_cache())?;
        let heldout = Predicted::measure(&generator, &heldout, device, observer)?;
        let (codebook_usage, code_entropy) = frequencies(&cache)?;

        let encoder = compute.encoder(&model)?;
        let decoder = compute.decoder(&model, None)?;
        let config = encoder.config();
        let (extractor, reference) = self.reference(config.image, observer)?;
        let heldout_data = pixels::data::open(&plan.heldout, home)?;
        let rebuilder = Rebuilder {
            data: heldout_data.as_ref(),
            encoder: &*encoder,
            decoder: &*decoder,
            extractor,
            perceptual: &[],
        };
        let Reconstruction { psnr, ssim, row_errors, distance, .. } =
            rebuilder.measure(observer)?.finish(config.image.width, config.patch)?;
        let (first_row, other_rows) =
            row_errors.split_first().ok_or(RunError::TooLittle("a picture has rows"))?;

        let drawer = compute.drawer(&with_generator)?;
        let requests = requests(&cache, &evaluation)?;
        let mut pictures = Vec::with_capacity(requests.len());
        let total = (requests.len() * drawer.layout().len()) as u64;
        observer.progress("samples", 0, total);
        draw(&*drawer, &requests, &SamplingConfig::default(), TOGETHER, |done, drawn| {
            observer.progress("samples", done as u64, total);
            if let Some(tokens) = drawn {
                pictures.push(decoder.decode(&tokens)?);
            }
            Ok(())
        })?;
        let samples =
            moments(extractor, pictures.len(), |index| Ok(pictures[index].clone()), observer)?;

        let attention = match decoder.kind() {
            DecoderKind::Causal => None,
            kind => {
                let tokenizer = model.tokenizer(device)?;
                let data = heldout_data.as_ref();
                Some(local_pattern(&tokenizer, kind, data, device, observer)?.weights)
            }
        };

        let decoder_parameters = config.decoder_parameters(config.decoder(decoder.kind())?);
        Ok(Measures {
            format: FORMAT,
            evaluation,
            tokenizer_parameters: config.encoder_parameters()
                + config.codebook_parameters()
                + decoder_parameters,
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
                distance: distance
                    .ok_or(RunError::TooLittle("one held-out picture is too few for a distance"))?,
            },
            sample_distance: frechet_distance(&samples, reference)?,
            attention,
        })
    }

    /// The network, and the moments of its features of the training pictures.
    fn reference(
        &mut self,
        size: ImageSize,
        observer: &mut dyn Observer,
    ) -> Result<(&Extractor, &Gaussian), RunError> {
        let found = match self.reference.take() {
            Some(found) if found.1 == size => found,
            _ => {
                let Equipment { home, device, .. } = self.equipment;
                let extractor = Extractor::open("lite", home, device)?;
                let data = pixels::data::open(&self.plan.data, home)?;
                let crop = |index| picture(data.as_ref(), index, size);
                let found = moments(&extractor, data.len(), crop, observer)?;
                (extractor, size, found)
            }
        };
        let (extractor, _, moments) = self.reference.insert(found);
        Ok((extractor, moments))
    }
}

/// Sequences that are drawn together.
const TOGETHER: usize = 16;

/// Samples of the classes of training pictures, evenly taken from all of them.
fn requests(cache: &TokenCache, evaluation: &Evaluation) -> Result<Vec<Request>, RunError> {
    (0..evaluation.samples)
        .map(|index| {
            let of = index * cache.len() / evaluation.samples;
            Ok(request(cache.record(of, 0)?.label, evaluation.seed, index as u64))
        })
        .collect()
}

/// The fraction of the codes that occur in the first view of a cache's pictures, and the entropy of
/// the grid's, in nats.
fn frequencies(cache: &TokenCache) -> Result<(f64, f64), RunError> {
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
