//! `alitok evaluate precision`

use std::sync::Arc;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Int, Tensor};
use clap::Args;
use engine::{Precision, measure};
use generator::{Condition, Request, SamplingConfig};
use metrics::{Mean, divergence, json::number, log_softmax};
use model::Model;
use pixels::crop::Crop;
use serde_json::{Value, json};
use tokenizer::DecoderKind;
use tokens::CodebookIndex;

use crate::{
    args::{DataArgs, ModelArgs},
    models,
    progress::{self, Progress},
    tuning,
};

/// Say what the packed engine's number formats change, against f32 and against the reference
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate precision --model mini --data bundled:heldout --json

Logits are those of the pictures' own tokens (teacher forcing), without guidance. Divergence is the
mean over tokens of the Kullback-Leibler divergence from f32, in nats. PSNR is that of decoded pictures
against f32's from the same tokens, of values before they become 8 bits. Where a format changes no value
it is infinite, which JSON writes as the text Infinity.")]
pub(crate) struct EvaluatePrecisionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Take only this many pictures, from all over the data. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: Option<u32>,
    /// How many of the pictures are also compared with the reference on Burn, which is slow; and
    /// how many are drawn with both, with and without guidance.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reference: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];
const DECODERS: [DecoderKind; 2] = [DecoderKind::Causal, DecoderKind::Bidirectional];

/// Differences of a format from f32, or of f32 from the reference.
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

/// Peak signal-to-noise ratio of values in [0, 1], in decibels; infinite without an error.
fn decibels(squared_error: f64) -> f64 {
    -10.0 * squared_error.log10()
}

/// A picture as the models see it.
struct Sample {
    class: usize,
    tokens: Vec<CodebookIndex>,
}

pub(super) fn run(args: &EvaluatePrecisionArgs) -> Result<()> {
    let data = pixels::data::open(&args.data.data, models::home())?;
    let model = models::open(&args.model.model)?;
    let config = model.generator_config()?;
    ensure!(
        data.classes().len() == config.classes,
        "the data have {} classes, the generator {}; give the data that it was trained on",
        data.classes().len(),
        config.classes
    );
    let pool = tuning::pool();
    let tokenizer = &model.config.tokenizer;
    let file = model.tokenizer_file()?;
    let encoder =
        engine::Encoder::load(file.clone(), tokenizer, Precision::F32, Arc::clone(&pool))?;
    let count = args.pictures.map_or(data.len(), |count| data.len().min(count as usize));
    let mut progress = Progress::new("pictures", 2 * count as u64);
    let (mut samples, mut work) = (Vec::with_capacity(count), encoder.workspace());
    for index in 0..count {
        let place = index * data.len() / count;
        let image = tokenizer.image;
        let picture = data.picture(place)?;
        let picture = Crop::Center.fit(picture, image.width, image.height, data.name(place))?;
        let tokens = encoder.encode(&picture.to_unit_planes(), &mut work);
        samples.push(Sample { class: data.label(place), tokens });
        progress.set(index as u64 + 1);
    }

    let mut generators = Vec::new();
    for precision in PRECISIONS {
        let file = model.generator_file()?;
        generators.push(engine::Generator::load(file, config, precision, Arc::clone(&pool))?);
    }
    let mut decoders = Vec::new();
    for (place, kind) in DECODERS.into_iter().enumerate() {
        if tokenizer.decoder(kind).is_ok() {
            let open = |precision| {
                let pool = Arc::clone(&pool);
                engine::Decoder::load(file.clone(), tokenizer, kind, precision, pool)
            };
            let [f32, bf16, int8] = PRECISIONS.map(open);
            decoders.push((place, [f32?, bf16?, int8?]));
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
        progress.set((count + index) as u64 + 1);
    }
    progress.finish();

    let loss = found[0].loss.value().unwrap_or_default();
    let mut all = json!({ "pictures": count, "tokens": found[0].loss.count() });
    let compared = &samples[..count.min(args.reference as usize)];
    all["f32"] = reference(&model, compared, &generators[0])?;
    all["f32"]["loss"] = loss.into();
    for (precision, found) in PRECISIONS.iter().zip(&found).skip(1) {
        let changed = found.loss.value().unwrap_or_default();
        let mut figures = json!({
            "loss": changed,
            "loss_change_percent": 100.0 * (changed / loss - 1.0),
            "divergence": found.divergence.value(),
            "largest_divergence": found.largest_divergence,
        });
        for (place, _) in &decoders {
            let (kind, errors) = (DECODERS[*place], &found.errors[*place]);
            figures[format!("{kind}_psnr")] =
                errors.mean.value().map(|error| number(decibels(error))).into();
            figures[format!("{kind}_lowest_psnr")] = number(decibels(errors.largest));
        }
        all[precision.name()] = figures;
    }
    if args.json {
        return progress::result(&all.to_string());
    }
    let mut lines = vec![format!("{count} pictures, {} tokens", found[0].loss.count())];
    for precision in PRECISIONS {
        lines.push(precision.name().to_owned());
        for (name, value) in all[precision.name()].as_object().into_iter().flatten() {
            lines.push(format!("  {:<34} {value}", name.replace('_', " ")));
        }
    }
    progress::result(&lines.join("\n"))
}

/// How far the engine in f32 is from the reference: its logits for some pictures, and the tokens
/// of as many pictures that both draw.
fn reference(model: &Model, samples: &[Sample], engine: &engine::Generator) -> Result<Value> {
    let device = Device::flex();
    let reference = model.generator(&device)?;
    let config = engine.config();
    let mut progress = Progress::new("reference", 3 * samples.len() as u64);
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
        ensure!(got.len() == expected.len(), "the engine gave {} logits", got.len());
        let differences = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        // A difference that is no number must not be taken for a small one.
        largest = differences.fold(largest, |a, b| if b.is_nan() { b } else { a.max(b) });
        progress.set(index as u64 + 1);
    }
    let requests: Vec<Request> = samples
        .iter()
        .zip(0..)
        .map(|(sample, index)| {
            let condition = Condition::Class(sample.class);
            Request { condition, seed: 3, index, forced: Vec::new() }
        })
        .collect();
    let (mut drawn, mut equal) = (0, 0);
    let guided = model.config.sampling;
    for sampling in [SamplingConfig { guidance: 1.0, ..guided }, guided] {
        let expected = generator::reference::generate(&reference, &requests, &sampling, |_| ())?;
        let got = engine::generate(engine, &requests, &sampling, requests.len(), |_| ())?;
        let pairs = expected.iter().flatten().zip(got.iter().flatten());
        equal += pairs.filter(|(a, b)| a == b).count();
        drawn += expected.iter().map(Vec::len).sum::<usize>();
    }
    progress.finish();
    Ok(json!({
        "reference_pictures": samples.len(),
        "largest_logit_difference": largest,
        "tokens_drawn": drawn,
        "tokens_equal": equal,
    }))
}
