//! The report of an experiment: what is finished, compared, and what is missing.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use training::experiment::Unit;

use super::measures::Measures;

/// What is finished of an experiment.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    rows: Vec<RowReport>,
    /// Rows and seeds that are not finished.
    missing: Vec<String>,
}

/// One row.
#[derive(Debug, Serialize)]
struct RowReport {
    name: String,
    title: String,
    seeds: Vec<SeedReport>,
}

/// One row with one seed.
#[derive(Debug, Serialize)]
struct SeedReport {
    seed: u64,
    /// Means over the last tenth of the generator's training, with its dropout, as the paper's
    /// loss and accuracy are.
    logged_loss: f64,
    logged_accuracy: f64,
    /// Of the generator's training: step, loss, and loss on held-out pictures where it was
    /// measured.
    curve: Vec<(u64, f64, Option<f64>)>,
    #[serde(flatten)]
    measures: Measures,
}

impl Report {
    /// A report of units in the order of work: what was measured of each and the run of its
    /// generator, where it is finished.
    pub(super) fn new(units: Vec<(Unit<'_>, Option<(Measures, PathBuf)>)>) -> Result<Self> {
        let (mut rows, mut missing) = (Vec::<RowReport>::new(), Vec::new());
        for (unit, found) in units {
            let place = rows.iter().position(|row| row.name == unit.row.name);
            let place = place.unwrap_or_else(|| {
                let (name, title) = (unit.row.name.clone(), unit.row.title.clone());
                rows.push(RowReport { name, title, seeds: Vec::new() });
                rows.len() - 1
            });
            match found {
                None => missing.push(unit.to_string()),
                Some((measures, generator)) => {
                    rows[place].seeds.push(SeedReport::new(unit.seed, measures, &generator)?);
                }
            }
        }
        Ok(Self { rows, missing })
    }

    /// As one JSON object.
    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// As tables for people. Of several seeds, the mean and the standard deviation.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = String::from(
            "Prediction of tokens. *In training* is with dropout, the mean of the last tenth of \
             the steps; *held out* without. The grid's tokens are those that every row has. \
             Losses are in nats; *codes* is the entropy of the grid codes' frequencies, the loss \
             of a generator that knows nothing else.\n\n",
        );
        text += &self.table(&PREDICTION);
        text += "\nPictures. Held-out pictures rebuilt, with the mean squared error of the first \
                 row of patches and of the others; *distances* are Fréchet distances of \
                 EfficientNet-Lite0 features, no FID: of reconstructions from their originals, of \
                 samples (without guidance) from the training pictures.\n\n";
        text += &self.table(&PICTURES);
        if !self.missing.is_empty() {
            text += &format!("\nMissing: {}.\n", self.missing.join("; "));
        }
        text
    }

    fn table(&self, columns: &[Column]) -> String {
        let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
        let mut text = format!("| row | | seeds | {} |\n", titles.join(" | "));
        text += &format!("|{}\n", " --- |".repeat(columns.len() + 3));
        for RowReport { name, title, seeds } in &self.rows {
            let cells: Vec<String> = columns.iter().map(|column| column.cell(seeds)).collect();
            text += &format!("| {name} | {title} | {} | {} |\n", seeds.len(), cells.join(" | "));
        }
        text
    }

    /// Writes `report.json` and `report.md`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in [("report.json", self.to_json()?), ("report.md", self.to_markdown())] {
            let path = folder.join(name);
            tokens::files::write_file(&path, |file| file.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

impl SeedReport {
    fn new(seed: u64, measures: Measures, generator: &Path) -> Result<Self> {
        let path = generator.join("log.jsonl");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = Vec::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)
                .with_context(|| format!("{} is damaged", path.display()))?;
            // A line on a roll-back has no loss.
            if let (Some(step), Some(loss)) = (line["step"].as_u64(), line["loss"].as_f64()) {
                let accuracy = line["accuracy"].as_f64().unwrap_or_default();
                lines.push((step, loss, accuracy, line["heldout_loss"].as_f64()));
            }
        }
        let (steps, ..) = *lines.last().with_context(|| format!("{} is empty", path.display()))?;
        let late: Vec<_> = lines.iter().filter(|(step, ..)| step * 10 > steps * 9).collect();
        let mean = |value: fn(&Line) -> f64| {
            late.iter().map(|line| value(line)).sum::<f64>() / late.len() as f64
        };
        Ok(Self {
            seed,
            logged_loss: mean(|line| line.1),
            logged_accuracy: mean(|line| line.2),
            curve: lines.iter().map(|&(step, loss, _, heldout)| (step, loss, heldout)).collect(),
            measures,
        })
    }
}

/// Step, loss, accuracy and held-out loss in a line of a training's log.
type Line = (u64, f64, f64, Option<f64>);

/// One number of a table.
struct Column {
    title: &'static str,
    digits: usize,
    value: fn(&SeedReport) -> f64,
}

impl Column {
    const fn new(title: &'static str, digits: usize, value: fn(&SeedReport) -> f64) -> Self {
        Self { title, digits, value }
    }

    /// Mean and standard deviation over seeds.
    fn cell(&self, seeds: &[SeedReport]) -> String {
        let digits = self.digits;
        let values: Vec<f64> = seeds.iter().map(self.value).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        match values.len() {
            0 => "–".into(),
            1 => format!("{mean:.digits$}"),
            _ => {
                let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
                format!("{mean:.digits$} ± {:.digits$}", (squares / (count - 1.0)).sqrt())
            }
        }
    }
}

const PREDICTION: [Column; 9] = [
    Column::new("loss in training", 3, |seed| seed.logged_loss),
    Column::new("accuracy in training, %", 1, |seed| 100.0 * seed.logged_accuracy),
    Column::new("held-out loss, grid", 3, |seed| seed.measures.heldout.grid_loss),
    Column::new("held-out accuracy, grid, %", 1, |seed| {
        100.0 * seed.measures.heldout.grid_accuracy
    }),
    Column::new("held-out loss, all", 3, |seed| seed.measures.heldout.loss),
    Column::new("held-out accuracy, all, %", 1, |seed| 100.0 * seed.measures.heldout.accuracy),
    Column::new("held-out nats a picture", 1, |seed| seed.measures.heldout.picture_loss),
    Column::new("training pictures without dropout, loss, grid", 3, |seed| {
        seed.measures.training.grid_loss
    }),
    Column::new("codes, nats", 3, |seed| seed.measures.code_entropy),
];

const PICTURES: [Column; 8] = [
    Column::new("codebook used, %", 1, |seed| 100.0 * seed.measures.codebook_usage),
    Column::new("PSNR, dB", 2, |seed| seed.measures.reconstruction.psnr),
    Column::new("SSIM", 3, |seed| seed.measures.reconstruction.ssim),
    Column::new("error, first row", 4, |seed| seed.measures.reconstruction.first_row_error),
    Column::new("error, other rows", 4, |seed| seed.measures.reconstruction.other_rows_error),
    Column::new("distance, reconstructions", 3, |seed| seed.measures.reconstruction.distance),
    Column::new("distance, samples", 3, |seed| seed.measures.sample_distance),
    Column::new("tokenizer parameters", 0, |seed| seed.measures.tokenizer_parameters as f64),
];
