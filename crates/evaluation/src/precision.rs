//! What the engine's number formats change, against f32 and against the reference.

use std::{collections::BTreeMap, sync::Arc};

use engine::{Pool, Precision, measure};
use metrics::{Mean, divergence, json::number, log_softmax};
use model::Model;
#[cfg(feature = "reference")]
use pipeline::Drawing;
use pixels::{DataSet, crop::Crop};
use serde::{Serialize, Serializer};
use tokenizer::DecoderKind;
use tokens::CodebookIndex;

use crate::{EvaluationError, Observer, classes::labels_of};

const PRECISIONS: [Precision; 4] = Precision::ALL;
const DECODERS: [DecoderKind; 2] = [DecoderKind::Causal, DecoderKind::Bidirectional];

/// How the number formats differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrecisionResult {
    /// Number of pictures.
    pub pictures: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// f32, the exact format.
    pub f32: ExactFormat,
    /// bf16.
    pub bf16: ChangedFormat,
    /// int8.
    pub int8: ChangedFormat,
    /// int4, with int8 for the tokenizer.
    pub int4: ChangedFormat,
}

/// What f32 predicts, and how far it is from the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExactFormat {
    /// Mean cross-entropy of a token in nats.
    pub loss: f64,
    /// How far the engine is from the reference, where it was compared.
    #[serde(flatten)]
    pub reference: Option<ReferenceDifference>,
}

/// What another format changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangedFormat {
    /// Mean cross-entropy of a token in nats.
    pub loss: f64,
    /// How much more that is than f32's.
    pub loss_change_percent: f64,
    /// Mean over tokens of the Kullback-Leibler divergence from f32, in nats.
    pub divergence: Option<f64>,
    /// The largest divergence of a token.
    pub largest_divergence: f64,
    /// For each decoder that the model has, the PSNR of decoded pictures against f32's from the same
    /// tokens in dB, `causal_psnr`, and that of the worst picture, `causal_lowest_psnr`.
    #[serde(flatten, serialize_with = "psnrs")]
    pub decoders: BTreeMap<String, Option<f64>>,
}

/// Writes PSNRs, of which those of equal pictures are infinite.
fn psnrs<S: Serializer>(
    decoders: &BTreeMap<String, Option<f64>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(decoders.iter().map(|(name, psnr)| (name, psnr.map(number))))
}

/// How far the engine in f32 is from the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReferenceDifference {
    /// Pictures whose logits were compared.
    pub reference_pictures: usize,
    /// The largest difference of a logit.
    pub largest_logit_difference: f32,
    /// Tokens that both drew.
    pub tokens_drawn: usize,
    /// How many of them are equal.
    pub tokens_equal: usize,
}

/// Differences of a format from f32.
#[derive(Default)]
struct Found {
    loss: Mean,
    divergence: Mean,
    largest_divergence: f64,
    /// For each decoder, the squared errors of its values and the largest of a picture.
    errors: [Errors; DECODERS.len()],
}

#[derive(Default)]
struct Errors {
    mean: Mean,
    largest: f64,
}

impl Errors {
    fn add(&mut self, values: &[f32], exact: &[f32]) {
        let squares = values.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2));
        let error = squares.sum::<f64>() / values.len() as f64;
        self.mean.add(error);
        self.largest = self.largest.max(error);
    }
}

/// Peak signal-to-noise ratio of values in [0, 1] in decibels; infinite without an error.
fn decibels(squared_error: f64) -> f64 {
    -10.0 * squared_error.log10()
}

/// A picture as the models see it.
struct Sample {
    class: usize,
    tokens: Vec<CodebookIndex>,
}

/// Compares the number formats over pictures of a data set: all, or so many from all over it. With the
/// feature `reference`, `reference` of the pictures are also compared with the models on Burn, which is
/// slow, and as many are drawn with both, with and without guidance. The engine computes on `pool`.
///
/// # Errors
/// If the data have other classes than the generator, or the model cannot be read.
pub fn evaluate(
    model: &Model,
    data: &dyn DataSet,
    pictures: Option<usize>,
    reference: usize,
    pool: &Arc<Pool>,
    observer: &mut dyn Observer,
) -> Result<PrecisionResult, EvaluationError> {
    let config = model.generator_config()?;
    let labels = labels_of(&model.classes, data.classes(), observer)?;
    let tokenizer = &model.config.tokenizer;
    let file = model.tokenizer_file()?;
    let encoder = engine::Encoder::load(file, tokenizer, Precision::F32, Arc::clone(pool))?;
    let count = pictures.map_or(data.len(), |count| data.len().min(count));
    let mut progress = |done: usize| observer.progress("pictures", done as u64, 2 * count as u64);
    progress(0);
    let (mut samples, mut work) = (Vec::with_capacity(count), encoder.workspace());
    for index in 0..count {
        let place = index * data.len() / count;
        let image = tokenizer.image;
        let picture = data.picture(place)?;
        let picture = Crop::Center.fit(picture, image.width, image.height, data.name(place))?;
        let tokens = encoder.encode(&picture.to_unit_planes(), &mut work);
        samples.push(Sample { class: labels[data.label(place)], tokens });
        progress(index + 1);
    }

    let mut generators = Vec::new();
    for precision in PRECISIONS {
        let file = model.generator_file()?;
        generators.push(engine::Generator::load(file, config, precision, Arc::clone(pool))?);
    }
    let mut decoders = Vec::new();
    for (place, kind) in DECODERS.into_iter().enumerate() {
        if tokenizer.decoder(kind).is_ok() {
            let open = |precision| -> Result<_, EvaluationError> {
                let (file, pool) = (model.tokenizer_file()?, Arc::clone(pool));
                Ok(engine::Decoder::load(file, tokenizer, kind, precision, pool)?)
            };
            let opened: Result<Vec<_>, _> = PRECISIONS.into_iter().map(open).collect();
            decoders.push((place, opened?));
        }
    }
    let mut found: [Found; PRECISIONS.len()] = Default::default();
    for (index, sample) in samples.iter().enumerate() {
        let mut exact: Vec<Vec<f64>> = Vec::new();
        for (generator, found) in generators.iter().zip(&mut found) {
            let logits = measure::teacher_forced(generator, sample.class, &sample.tokens)?;
            let predicted: Vec<_> = logits.chunks_exact(config.codes).map(log_softmax).collect();
            for (place, (predicted, &token)) in predicted.iter().zip(&sample.tokens).enumerate() {
                found.loss.add(-predicted[usize::from(token)]);
                if let Some(exact) = exact.get(place) {
                    let divergence = divergence(exact, predicted);
                    found.divergence.add(divergence);
                    found.largest_divergence = found.largest_divergence.max(divergence);
                }
            }
            if exact.is_empty() {
                exact = predicted;
            }
        }
        for (place, decoders) in &decoders {
            let exact = decoders[0].decode(&sample.tokens, &mut work);
            for (decoder, found) in decoders.iter().zip(&mut found).skip(1) {
                found.errors[*place].add(&decoder.decode(&sample.tokens, &mut work), &exact);
            }
        }
        progress(count + index + 1);
    }

    let loss = found[0].loss.value().unwrap_or_default();
    let compared = &samples[..count.min(reference)];
    let reference = against_reference(model, compared, &generators[0], observer)?;
    let changed = |found: &Found| {
        let changed = found.loss.value().unwrap_or_default();
        let mut of_decoders = BTreeMap::new();
        for &(place, _) in &decoders {
            let (kind, errors) = (DECODERS[place], &found.errors[place]);
            of_decoders.insert(format!("{kind}_psnr"), errors.mean.value().map(decibels));
            of_decoders.insert(format!("{kind}_lowest_psnr"), Some(decibels(errors.largest)));
        }
        ChangedFormat {
            loss: changed,
            loss_change_percent: 100.0 * (changed / loss - 1.0),
            divergence: found.divergence.value(),
            largest_divergence: found.largest_divergence,
            decoders: of_decoders,
        }
    };
    let [exact, bf16, int8, int4] = &found;
    Ok(PrecisionResult {
        pictures: count,
        tokens: exact.loss.count(),
        f32: ExactFormat { loss, reference },
        bf16: changed(bf16),
        int8: changed(int8),
        int4: changed(int4),
    })
}

#[cfg(not(feature = "reference"))]
fn against_reference(
    _: &Model,
    _: &[Sample],
    _: &engine::Generator,
    _: &mut dyn Observer,
) -> Result<Option<ReferenceDifference>, EvaluationError> {
    Ok(None)
}

/// How far the engine in f32 is from the reference: its logits for some pictures, and the tokens
/// of as many pictures that both draw.
#[cfg(feature = "reference")]
fn against_reference(
    model: &Model,
    samples: &[Sample],
    engine: &engine::Generator,
    observer: &mut dyn Observer,
) -> Result<Option<ReferenceDifference>, EvaluationError> {
    use burn::tensor::{Device, Int, Tensor};
    use generator::{Request, SamplingConfig};

    use crate::generation::request;

    let device = Device::flex();
    let reference = model.generator(&device)?;
    let config = engine.config();
    let count = samples.len() as u64;
    observer.progress("reference", 0, 3 * count);
    let mut largest = 0f32;
    for (index, sample) in samples.iter().enumerate() {
        let got = measure::teacher_forced(engine, sample.class, &sample.tokens)?;
        let class = [config.vocabulary().class(sample.class)? as i64];
        let (_, before) = sample.tokens.split_last().unzip();
        let tokens: Vec<i64> =
            before.unwrap_or_default().iter().map(|&token: &CodebookIndex| token.into()).collect();
        let tokens = Tensor::<1, Int>::from_data(tokens.as_slice(), &device).unsqueeze();
        let logits = reference.forward(Tensor::from_data(class, &device), tokens, None);
        let expected = operations::parameters::host_tensor(logits).values;
        if got.len() != expected.len() {
            let problem = format!("the engine gave {} logits", got.len());
            return Err(EvaluationError::Impossible(problem));
        }
        let differences = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        // A difference that is no number must not be taken for a small one.
        largest = differences.fold(largest, |a, b| if b.is_nan() { b } else { a.max(b) });
        observer.progress("reference", index as u64 + 1, 3 * count);
    }
    let requests: Vec<Request> =
        samples.iter().zip(0..).map(|(sample, index)| request(sample.class, 3, index)).collect();
    let (mut drawn, mut equal) = (0, 0);
    let guided = model.config.sampling;
    for (pass, sampling) in
        [SamplingConfig { guidance: 1.0, ..guided }, guided].into_iter().enumerate()
    {
        let expected = Drawing::of(&reference, &requests, &sampling, requests.len())?.tokens()?;
        let got = Drawing::of(engine, &requests, &sampling, requests.len())?.tokens()?;
        let pairs = expected.iter().flatten().zip(got.iter().flatten());
        equal += pairs.filter(|(a, b)| a == b).count();
        drawn += expected.iter().map(Vec::len).sum::<usize>();
        observer.progress("reference", (pass as u64 + 2) * count, 3 * count);
    }
    Ok(Some(ReferenceDifference {
        reference_pictures: samples.len(),
        largest_logit_difference: largest,
        tokens_drawn: drawn,
        tokens_equal: equal,
    }))
}
