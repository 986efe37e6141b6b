//! How well a generator predicts the token at each position (paper, Fig. 6 and Table 3).

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use charts::{Axis, Chart, Figure, HeatMap, Panel, Series};
use generator::reference::{Generator, Predictability};
use model::{Model, tokenizer_digest};
use pixels::DataSet;
use serde::Serialize;
use token_cache::TokenCache;
use tokenizer::reference::FrozenEncoder;
use tokens::{CodebookIndex, TokenLayout};

use super::{picture, rows};
use crate::{EvaluationError, Observer, classes::labels_of};

/// Sequences that go through the generator together.
const BATCH: usize = 16;

/// Where sequences come from.
#[allow(missing_debug_implementations)] // data sets have nothing to show
pub enum Sequences {
    /// The first view of the pictures of a token cache.
    Cache(TokenCache),
    /// The centre crops of a data set's pictures, encoded first.
    Data(Box<dyn DataSet>, Box<FrozenEncoder>),
}

impl Sequences {
    /// The sequences of a cache that the model's tokenizer made.
    ///
    /// # Errors
    /// If another tokenizer made them, or the cache is damaged.
    pub fn of_cache(cache: TokenCache, model: &Model) -> Result<Self, EvaluationError> {
        cache.check_tokenizer(&tokenizer_digest(&model.tokenizer_tensors()?))?;
        Ok(Self::Cache(cache))
    }

    /// The sequences of a data set's pictures.
    ///
    /// # Errors
    /// If the model cannot be read.
    pub fn of_data(
        data: Box<dyn DataSet>,
        model: &Model,
        device: &Device,
    ) -> Result<Self, EvaluationError> {
        let encoder = model.tokenizer(device)?.frozen_encoder();
        Ok(Self::Data(data, Box::new(encoder)))
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.len(),
            Self::Data(data, _) => data.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn classes(&self) -> &[String] {
        match self {
            Self::Cache(cache) => &cache.header().classes,
            Self::Data(data, _) => data.classes(),
        }
    }

    /// Label and tokens of a picture in its first view.
    fn get(&self, index: usize) -> Result<(usize, Vec<CodebookIndex>), EvaluationError> {
        match self {
            Self::Cache(cache) => {
                let record = cache.record(index, 0)?;
                Ok((record.label, record.tokens().collect()))
            }
            Self::Data(data, encoder) => {
                let picture = picture(data.as_ref(), index, encoder.config().image)?;
                Ok((data.label(index), encoder.encode_picture(picture.to_unit_planes())))
            }
        }
    }
}

/// How well tokens are predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictabilityResult {
    /// Number of sequences.
    pub sequences: u64,
    /// Mean cross-entropy of a token in nats.
    pub loss: f64,
    /// Fraction of tokens that are the likeliest.
    pub accuracy: f64,
    /// Mean cross-entropy at each position.
    pub losses: Vec<f64>,
    /// Fraction of sequences whose token at a position is the likeliest, for each position.
    pub accuracies: Vec<f64>,
    /// How the tokens lie.
    #[serde(skip)]
    pub layout: TokenLayout,
    /// Number of codes: a blind guess has a loss of its logarithm.
    #[serde(skip)]
    pub codes: usize,
}

/// Predicts sequences, spread over all, without telling the class if `unconditional`.
///
/// # Errors
/// If the sequences are of other classes than the generator, or cannot be read.
pub fn measure(
    model: &Model,
    sequences: &Sequences,
    count: Option<usize>,
    unconditional: bool,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<PredictabilityResult, EvaluationError> {
    let generator = model.generator(device)?;
    let config = generator.config();
    let labels = match unconditional {
        true => Vec::new(),
        false => labels_of(&model.classes, sequences.classes(), observer)?,
    };
    let vocabulary = config.vocabulary();
    let total = sequences.len();
    let count = total.min(count.unwrap_or(usize::MAX));
    let found = predict(&generator, count, device, observer, |number| {
        let (label, tokens) = sequences.get(number * total / count)?;
        let class = match unconditional {
            true => vocabulary.unconditional(),
            // A damaged cache may have a label beyond its classes.
            false => vocabulary.class(labels.get(label).copied().unwrap_or(label))?,
        };
        Ok((class, tokens))
    })?;
    let (losses, accuracies) = (found.losses(), found.accuracies());
    Ok(PredictabilityResult {
        sequences: found.sequences(),
        loss: mean(&losses),
        accuracy: mean(&accuracies),
        losses,
        accuracies,
        layout: config.layout,
        codes: config.codes,
    })
}

/// Predicts `count` sequences. `sequence` gives the class id and the tokens of each.
///
/// # Errors
/// What `sequence` returns.
pub fn predict(
    generator: &Generator,
    count: usize,
    device: &Device,
    observer: &mut dyn Observer,
    sequence: impl Fn(usize) -> Result<(usize, Vec<CodebookIndex>), EvaluationError>,
) -> Result<Predictability, EvaluationError> {
    let layout = generator.config().layout;
    let mut found = Predictability::new(layout);
    let mut progress = |done: usize| observer.progress("predicting", done as u64, count as u64);
    progress(0);
    for first in (0..count).step_by(BATCH) {
        let (mut classes, mut tokens) = (Vec::new(), Vec::new());
        for number in first..count.min(first + BATCH) {
            let (class, of_picture) = sequence(number)?;
            classes.push(class as i64);
            tokens.extend(of_picture.into_iter().map(i64::from));
            progress(number + 1);
        }
        let shape = [classes.len(), layout.len()];
        found.add(
            generator,
            Tensor::<1, Int>::from_data(TensorData::new(classes, [shape[0]]), device),
            Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), device),
        );
    }
    Ok(found)
}

/// The mean; 0 of nothing.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

impl PredictabilityResult {
    /// Mean loss and accuracy of the tokens at these positions.
    pub fn means(&self, range: Range<usize>) -> (f64, f64) {
        (mean(&self.losses[range.clone()]), mean(&self.accuracies[range]))
    }

    /// Loss and accuracy, as maps and over positions.
    pub fn figure(&self) -> Figure {
        let layout = self.layout;
        let percent: Vec<f64> = self.accuracies.iter().map(|accuracy| 100.0 * accuracy).collect();
        let curve = |title: &str, values: &[f64]| -> Panel {
            let at = |(index, &value): (usize, &f64)| (index as f64, value);
            let mut series = Vec::new();
            if layout.prefix() > 0 {
                let prefix = values.iter().enumerate().take(layout.prefix()).map(at);
                series.push(Series::line("prefix", prefix));
            }
            let grid = values.iter().enumerate().skip(layout.prefix()).map(at);
            series.push(Series::line("grid", grid));
            let (x, y) = (Axis::new("token"), Axis::new(title));
            Chart { title: title.into(), x, y, series, ..Chart::default() }.into()
        };
        let map = |title: &str, values: &[f64]| -> Panel {
            let mut map = HeatMap::new(title, rows(layout, values));
            (map.x_label, map.y_label) = ("column".into(), "row".into());
            map.into()
        };
        let panels = [
            map("Loss, nats a token", &self.losses),
            curve("Loss, nats a token", &self.losses),
            map("Accuracy, %", &percent),
            curve("Accuracy, %", &percent),
        ];
        Figure::new(panels).with_columns(2).with_panel_size(480, 360)
    }
}
