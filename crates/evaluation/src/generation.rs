//! How well a generator draws: sets of samples, and drawing them.

use std::ops::Range;

use files::Home;
use generator::{Condition, Request, SamplingConfig};
use metrics::{Features, Purpose, Statistics};
use model::Model;
use pipeline::{Compute, Decode, Draw, Drawing, Event};
use pixels::crop::Crop;
use serde::Serialize;
use tokenizer::DecoderKind;
use tokens::CodebookIndex;

use crate::{
    EvaluationError, Observer,
    comparison::{self, Measures, Reference, names_validation},
    extractor::{Extractor, FeatureKind},
    observer,
    parts::{Arrays, Parts},
    pictures::{self, Pictures, Seen},
    protocol::Published,
};

/// Samples that gFID is of.
const SAMPLES: usize = 50_000;

/// How samples compare with a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerationResult {
    /// The numbers.
    #[serde(flatten)]
    pub measures: Measures,
    /// The network that compared, as files of statistics name it.
    pub extractor: &'static str,
    /// Number of samples.
    pub samples: usize,
    /// Number of pictures that the reference is of.
    pub reference: u64,
    /// What departs from the protocol of gFID.
    pub departures: Vec<String>,
}

/// Compares samples with a reference. `strict` refuses whatever departs from the protocol of gFID;
/// otherwise the observer is told.
///
/// # Errors
/// If pictures cannot be read, there are too few, or something departs and `strict` is set.
pub fn evaluate(
    samples: &Pictures,
    reference: Reference,
    extractor: &Extractor,
    strict: bool,
    observer: &mut dyn Observer,
) -> Result<GenerationResult, EvaluationError> {
    let (count, size) = (samples.count(), samples.size()?);
    let mut departures = Vec::new();
    if count != SAMPLES {
        departures.push(format!(
            "gFID is of {SAMPLES} samples; these are {count}, and fewer make it larger"
        ));
    }
    departures.extend(reference.unfit_for_generation());
    departures.extend(reference.other_size(size)?);
    departures.extend(extractor.description().caveat.map(str::to_owned));
    if strict && !departures.is_empty() {
        let (name, problem) = ("of gFID".to_owned(), departures.join("; "));
        return Err(EvaluationError::Departure { name, problem });
    }
    observer::tell(observer, &departures);
    let seen = pictures::see(extractor, samples, size, Crop::Never, "samples", observer)?;
    let reference = reference.see(extractor, size, observer)?;
    let mut measures = Measures::new(Published::default());
    comparison::compare(&seen, &reference, extractor, &mut measures)?;
    Ok(GenerationResult {
        measures,
        extractor: extractor.network(),
        samples: seen.count(),
        reference: reference.count,
        departures,
    })
}

/// Statistics of a set of pictures, centre-cropped to squares of `size` pixels if one is given;
/// otherwise all must have one size. Returns the number of pictures, too.
///
/// # Errors
/// If a picture cannot be read or has another size, or there are too few.
pub fn statistics(
    source: &str,
    home: &Home,
    size: Option<usize>,
    purpose: Purpose,
    extractor: &Extractor,
    observer: &mut dyn Observer,
) -> Result<(Statistics, usize), EvaluationError> {
    let pictures = Pictures::open(source, home)?;
    if purpose == Purpose::Generation && names_validation(source) {
        observer.departure(&format!(
            "{source} is a validation side by its name; gFID is measured against the training side"
        ));
    }
    let (size, crop) = match size {
        Some(size) => ((size, size), Crop::Center),
        None => (pictures.size()?, Crop::Never),
    };
    let seen = pictures::see(extractor, &pictures, size, crop, "pictures", observer)?;
    Ok((comparison::statistics(&seen, extractor, Some(purpose))?, seen.count()))
}

/// Draws pictures in class-cycling order: picture i has class i mod C, so that consecutive parts
/// of the set, which the Inception Score is of, have all classes.
pub struct Sampler {
    drawer: Box<dyn Draw>,
    decoder: Box<dyn Decode>,
    classes: usize,
    batch: usize,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sampler({} classes, {} at a time)", self.classes, self.batch)
    }
}

impl Sampler {
    /// Opens a model's generator and decoder. `batch` pictures are drawn side by side.
    ///
    /// # Errors
    /// If the model lacks one of them, or cannot be read.
    pub fn open(
        compute: &Compute,
        model: &Model,
        decoder: Option<DecoderKind>,
        batch: usize,
    ) -> Result<Self, EvaluationError> {
        Ok(Self {
            drawer: compute.drawer(model)?,
            decoder: compute.decoder(model, decoder)?,
            classes: model.generator_config()?.classes,
            batch,
        })
    }

    /// Pictures of these numbers: their `tokens` and `labels`, and the network's features of them:
    /// `pool`, and where it has them `spatial` and `logits`. A picture depends only on its number and
    /// the seed.
    ///
    /// # Errors
    /// If a picture cannot be drawn or decoded.
    pub fn part(
        &self,
        extractor: &Extractor,
        sampling: &SamplingConfig,
        seed: u64,
        range: Range<usize>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Arrays, EvaluationError> {
        let label = |index: usize| index % self.classes;
        let requests: Vec<Request> =
            range.clone().map(|index| request(label(index), seed, index as u64)).collect();
        let length = self.drawer.layout().len();
        let mut tokens = Vec::with_capacity(requests.len() * length);
        let mut pictures = Vec::with_capacity(requests.len());
        draw(&*self.drawer, &requests, sampling, self.batch, |decided, drawn| {
            progress(decided / length);
            if let Some(picture) = drawn {
                pictures.push(self.decoder.decode(&picture)?);
                tokens.extend(picture.into_iter().map(i64::from));
            }
            Ok(())
        })?;
        let features = extractor.features(&pictures::images(&pictures))?;
        let mut arrays = Arrays::default();
        arrays.add_integers("tokens", length, tokens);
        arrays.add_integers("labels", 1, range.map(|index| label(index) as i64).collect());
        for kind in FeatureKind::ALL {
            if let Some(rows) = kind.of(&features) {
                arrays.add_features(kind.name(), rows);
            }
        }
        Ok(arrays)
    }
}

/// A whole picture of a class.
pub fn request(class: usize, seed: u64, index: u64) -> Request {
    Request { condition: Condition::Class(class), seed, index, forced: Vec::new() }
}

/// Draws requests, `batch` at a time. Calls `tell` with the number of tokens decided so far, and with the
/// tokens of each picture in the order of the requests.
///
/// # Errors
/// What `tell` returns, and if a picture cannot be drawn.
pub fn draw(
    drawer: &dyn Draw,
    requests: &[Request],
    sampling: &SamplingConfig,
    batch: usize,
    mut tell: impl FnMut(usize, Option<Vec<CodebookIndex>>) -> Result<(), EvaluationError>,
) -> Result<(), EvaluationError> {
    let mut drawing = Drawing::of(drawer, requests, sampling, batch)?.in_order();
    while let Some(event) = drawing.next() {
        let drawn = match event {
            Event::Finished { tokens, .. } => Some(tokens),
            Event::Failed { error, .. } => return Err(error.into()),
            Event::Row { .. } | Event::Preview { .. } => None,
        };
        tell(drawing.decided(), drawn)?;
    }
    Ok(())
}

/// All that the network saw in the pictures of all parts.
///
/// # Errors
/// If a part is missing or damaged.
pub fn seen(parts: &Parts, extractor: &Extractor, classes: usize) -> Result<Seen, EvaluationError> {
    let mut seen = Seen::new(extractor.description());
    parts.each(|range, arrays| {
        let labels = arrays.integers("labels")?;
        if !labels.iter().zip(range).all(|(&label, index)| label == (index % classes) as i64) {
            return Err(EvaluationError::impossible(
                "its pictures have other classes than their numbers say",
            ));
        }
        let pool = arrays.required_features("pool")?;
        let (spatial, logits) = (arrays.features("spatial")?, arrays.features("logits")?);
        seen.add(&Features { pool, spatial, logits })
    })?;
    Ok(seen)
}
