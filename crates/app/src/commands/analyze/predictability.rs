//! `alitok analyze predictability`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Int, Tensor, TensorData};
use charts::{Axis, Chart, Figure, HeatMap, Panel, Series};
use clap::Args;
use generator::reference::Predictability;
use model::{Model, tokenizer_digest};
use serde_json::json;
use token_cache::TokenCache;
use tokens::CodebookIndex;

use super::{picture, rows};
use crate::{
    args::ModelArgs,
    models,
    progress::{self, Progress},
};

/// How well the generator predicts the token at each position
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok analyze predictability --data bundled:heldout --out predictability.png
  alitok analyze predictability --model M --cache C --json --out F.svg")]
pub(crate) struct AnalyzePredictabilityArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A token cache that the model's tokenizer made; the first view of each picture counts.
    #[arg(long, conflicts_with = "data")]
    pub(crate) cache: Option<PathBuf>,
    /// A data set instead, whose centre crops are encoded first. Default: `bundled:heldout`.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// At most so many pictures, spread over all. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// Do not tell the generator the class.
    #[arg(long)]
    pub(crate) unconditional: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Sequences that go through the generator together.
const BATCH: usize = 16;

/// Where sequences come from.
enum Sequences {
    Cache(TokenCache),
    Data(Box<dyn pixels::DataSet>, Box<tokenizer::reference::FrozenEncoder>),
}

impl Sequences {
    fn open(args: &AnalyzePredictabilityArgs, model: &Model, device: &Device) -> Result<Self> {
        if let Some(cache) = &args.cache {
            let cache = TokenCache::open(cache)?;
            cache.check_tokenizer(&tokenizer_digest(&model.tokenizer_tensors()?))?;
            return Ok(Self::Cache(cache));
        }
        let data = args.data.as_deref().unwrap_or("bundled:heldout");
        let encoder = model.tokenizer(device)?.frozen_encoder();
        Ok(Self::Data(pixels::data::open(data, models::home())?, Box::new(encoder)))
    }

    fn len(&self) -> usize {
        match self {
            Self::Cache(cache) => cache.len(),
            Self::Data(data, _) => data.len(),
        }
    }

    fn classes(&self) -> &[String] {
        match self {
            Self::Cache(cache) => &cache.header().classes,
            Self::Data(data, _) => data.classes(),
        }
    }

    /// Label and tokens of a picture in its first view.
    fn get(&self, index: usize) -> Result<(usize, Vec<CodebookIndex>)> {
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

pub(crate) fn run(args: &AnalyzePredictabilityArgs, device: &Device) -> Result<()> {
    let folder = models::open(&args.model.model)?;
    let sequences = Sequences::open(args, &folder, device)?;
    let generator = folder.generator(device)?;
    let config = generator.config();
    ensure!(
        args.unconditional || sequences.classes().len() == config.classes,
        "the data have {} classes and the generator {}; --unconditional tells it none",
        sequences.classes().len(),
        config.classes
    );
    let (layout, vocabulary) = (config.layout, config.vocabulary());
    let count = sequences.len().min(args.count.map_or(usize::MAX, |count| count as usize));
    let mut found = Predictability::new(layout);
    let mut progress = Progress::new("predicting", count as u64);
    let (mut classes, mut tokens) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (label, of_picture) = sequences.get(number * sequences.len() / count)?;
        classes.push(match args.unconditional {
            true => vocabulary.unconditional() as i64,
            false => vocabulary.class(label)? as i64,
        });
        tokens.extend(of_picture.into_iter().map(i64::from));
        if classes.len() == BATCH || number + 1 == count {
            let shape = [classes.len(), layout.len()];
            let ids = TensorData::new(std::mem::take(&mut classes), [shape[0]]);
            let batch = TensorData::new(std::mem::take(&mut tokens), shape);
            found.add(
                &generator,
                Tensor::<1, Int>::from_data(ids, device),
                Tensor::<2, Int>::from_data(batch, device),
            );
        }
        progress.set(number as u64 + 1);
    }
    progress.finish();
    draw(&found, &args.out)?;
    report(&found, config.codes, args)
}

fn draw(found: &Predictability, out: &std::path::Path) -> Result<()> {
    let layout = found.layout();
    let (losses, accuracies) = (found.losses(), found.accuracies());
    let percent: Vec<f64> = accuracies.iter().map(|accuracy| 100.0 * accuracy).collect();
    let curve = |title: &str, values: &[f64]| -> Panel {
        let at = |(index, &value): (usize, &f64)| (index as f64, value);
        let mut series = Vec::new();
        if layout.prefix() > 0 {
            let prefix = values.iter().enumerate().take(layout.prefix()).map(at);
            series.push(Series::line("prefix", prefix));
        }
        let grid = values.iter().enumerate().skip(layout.prefix()).map(at);
        series.push(Series::line("grid", grid));
        Chart { title: title.into(), x: Axis::new("token"), y: Axis::default(), series }.into()
    };
    let map = |title: &str, values: &[f64]| -> Panel {
        let mut map = HeatMap::new(title, rows(layout, values));
        (map.x_label, map.y_label) = ("column".into(), "row".into());
        map.into()
    };
    let panels = [
        map("Loss, nats a token", &losses),
        curve("Loss, nats a token", &losses),
        map("Accuracy, %", &percent),
        curve("Accuracy, %", &percent),
    ];
    Ok(Figure::new(panels).with_columns(2).with_panel_size(480, 360).write(out)?)
}

fn report(found: &Predictability, codes: usize, args: &AnalyzePredictabilityArgs) -> Result<()> {
    let layout = found.layout();
    let (losses, accuracies) = (found.losses(), found.accuracies());
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    if args.json {
        let object = json!({
            "sequences": found.sequences(),
            "loss": mean(&losses),
            "accuracy": mean(&accuracies),
            "losses": losses,
            "accuracies": accuracies,
        });
        return progress::result(&object.to_string());
    }
    let line = |what: &str, range: std::ops::Range<usize>| {
        let (loss, accuracy) = (mean(&losses[range.clone()]), mean(&accuracies[range]));
        format!("{what:<16}{loss:10.4}{:11.2}\n", 100.0 * accuracy)
    };
    let mut text = format!(
        "{} sequences        loss, nats  accuracy, %\n{}",
        found.sequences(),
        line("all tokens", 0..layout.len())
    );
    if layout.prefix() > 0 {
        text.push_str(&line("prefix", layout.prefix_range()));
    }
    text.push_str(&line("first row", layout.row_range(0)));
    text.push_str(&line("other rows", layout.len_of_rows(1)..layout.len()));
    text.push_str(&format!("{:<16}{:10.4}", "a blind guess", (codes as f64).ln()));
    progress::result(&format!("{text}\nfigure in {}", args.out.display()))
}
