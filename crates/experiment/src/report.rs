//! The report of an experiment: what is finished, compared, and what is missing.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use charts::{Axis, Chart, Figure, HeatMap, Mark, Series};
use serde::Serialize;
use tokenizer::reference::LocalPattern;
use training::telemetry::Curves;

use crate::{Row, RunError, Unit, measures::Measures};

/// What is finished of an experiment, compared. Serialized, it is `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    rows: Vec<RowReport>,
    /// Rows and seeds that are not finished.
    missing: Vec<String>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct RowReport {
    name: String,
    title: String,
    /// The row whose tokens and generator it shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    second_stage_of: Option<String>,
    seeds: Vec<SeedReport>,
}

/// Step, loss, and loss on held-out pictures where it was measured.
type Point = (u64, f64, Option<f64>);

/// One row with one seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct SeedReport {
    seed: u64,
    /// Means over the last tenth of the generator's training, with its dropout, as the paper's
    /// loss and accuracy are.
    logged_loss: f64,
    logged_accuracy: f64,
    /// Of the generator's training.
    curve: Vec<Point>,
    #[serde(flatten)]
    measures: Measures,
}

impl Report {
    /// A report of units in the order of work: what was measured of each and the run of its
    /// generator, where it is finished.
    pub(crate) fn new(
        units: Vec<(Unit<'_>, Option<(Measures, PathBuf)>)>,
    ) -> Result<Self, RunError> {
        let (mut rows, mut missing) = (Vec::<RowReport>::new(), Vec::new());
        for (unit, found) in units {
            let place = rows.iter().position(|row| row.name == unit.row.name);
            let place = place.unwrap_or_else(|| {
                let Row { name, title, second_stage_of, .. } = unit.row.clone();
                rows.push(RowReport { name, title, second_stage_of, seeds: Vec::new() });
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
    ///
    /// # Panics
    /// Never: a report is plain data.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data with names as keys")
    }

    /// As tables for people. Of several seeds, the mean and the standard deviation.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from(
            "Tokens of held-out pictures, predicted without dropout. The grid's tokens are those \
             that every row has; losses are in nats. *Codes* is the entropy of the grid codes' \
             frequencies, the loss of a generator that knows nothing else, and *saved* the part of \
             it that the loss on the grid is below.\n\n",
        );
        text += &self.table(&HELDOUT);
        text += "\nTokens that were trained on: in the last tenth of the training, with its \
                 dropout, as the paper's loss and accuracy are; and afterwards without.\n\n";
        text += &self.table(&TRAINING);
        text += "\nPictures. Held-out pictures rebuilt, with the mean squared error of the first \
                 row of patches and of the others; *distances* are Fréchet distances of \
                 EfficientNet-Lite0 features, no FID: of reconstructions from their originals, of \
                 samples (without guidance) from the training pictures. *Attention before*: of \
                 what a patch takes of its eight neighbours in a bidirectional decoder, the share \
                 of the four that come before it in raster order.\n\n";
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
        for RowReport { name, title, seeds, .. } in &self.rows {
            let cells: Vec<String> = columns.iter().map(|column| column.cell(seeds)).collect();
            text += &format!("| {name} | {title} | {} | {} |\n", seeds.len(), cells.join(" | "));
        }
        text
    }

    /// The course of the generators' trainings (paper, Fig. 2), if any is finished; of several
    /// seeds, the mean.
    fn curves(&self) -> Option<Figure> {
        let rows = self.rows.iter().enumerate();
        // A second stage has the generator of its first one.
        let rows = rows.filter(|(_, row)| row.second_stage_of.is_none() && !row.seeds.is_empty());
        let (mut training, mut heldout) = (Vec::new(), Vec::new());
        for (color, row) in rows {
            let name = format!("{}: {}", row.name, row.title);
            let line = Series::line(&name, row.mean_curve(|point| Some(point.1)));
            training.push(line.with_color(color));
            let line = Series::line(&name, row.mean_curve(|point| point.2));
            heldout.push(line.with_mark(Mark::LineAndDots).with_color(color));
        }
        let chart = |title: &str, series: Vec<Series>| Chart {
            title: title.into(),
            x: Axis::new("step of the generator"),
            y: Axis::new("cross-entropy of a token, nats"),
            series,
            ..Chart::default()
        };
        let panels = [chart("Training", training), chart("Held-out pictures", heldout)];
        let panels = panels
            .into_iter()
            .filter(|chart| chart.series.iter().any(|series| !series.points.is_empty()));
        let figure = Figure::new(panels);
        (!figure.panels.is_empty()).then_some(figure)
    }

    /// What patches take of their neighbours in bidirectional decoders (paper, Fig. 8b), if any is
    /// finished; of several seeds, the mean. All of one scale.
    fn attention(&self) -> Option<Figure> {
        let mut maps: Vec<HeatMap> = self.rows.iter().filter_map(RowReport::pattern).collect();
        let all = maps.iter().flat_map(|map| map.values.iter().flatten());
        let most = all.fold(0.0_f64, |most, &value| most.max(value));
        for map in &mut maps {
            map.range = Some((0.0, most));
        }
        (!maps.is_empty()).then(|| Figure::new(maps).with_panel_size(360, 320))
    }

    /// Writes `report.json`, `report.md` and the figures, each as SVG and PNG.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), RunError> {
        std::fs::create_dir_all(folder).map_err(RunError::file("make", folder))?;
        for (name, text) in [("report.json", self.to_json()), ("report.md", self.to_markdown())] {
            let path = folder.join(name);
            files::write_file(&path, |file| file.write_all(text.as_bytes()))
                .map_err(RunError::file("write", &path))?;
        }
        for (name, figure) in [("curves", self.curves()), ("attention", self.attention())] {
            let Some(figure) = figure else { continue };
            for format in ["svg", "png"] {
                figure.write(&folder.join(name).with_extension(format))?;
            }
        }
        Ok(())
    }
}

impl RowReport {
    /// The mean over seeds of a value at each step that has it.
    fn mean_curve(&self, value: impl Fn(&Point) -> Option<f64>) -> Vec<(f64, f64)> {
        let mut sums = BTreeMap::<u64, (f64, f64)>::new();
        for point in self.seeds.iter().flat_map(|seed| &seed.curve) {
            if let Some(value) = value(point) {
                let (sum, count) = sums.entry(point.0).or_default();
                *sum += value;
                *count += 1.0;
            }
        }
        sums.into_iter().map(|(step, (sum, count))| (step as f64, sum / count)).collect()
    }

    /// The mean over seeds of the attention's local pattern, with its share of what comes before.
    fn pattern(&self) -> Option<HeatMap> {
        let patterns: Vec<LocalPattern> =
            self.seeds.iter().filter_map(|seed| seed.measures.pattern()).collect();
        let count = patterns.len() as f64;
        patterns.first()?;
        let mut mean = LocalPattern { weights: [[0.0; 3]; 3] };
        for pattern in &patterns {
            let sums = mean.weights.iter_mut().flatten();
            for (sum, weight) in sums.zip(pattern.weights.iter().flatten()) {
                *sum += weight / count;
            }
        }
        let share = 100.0 * mean.preceding_share().unwrap_or_default();
        let percent = mean.weights.map(|row| row.map(|weight| 100.0 * weight).to_vec());
        let title = format!("{} ({share:.0} % before), % a patch", self.name);
        Some(HeatMap { digits: Some(1), ..HeatMap::new(title, percent.to_vec()) })
    }
}

impl SeedReport {
    fn new(seed: u64, measures: Measures, generator: &Path) -> Result<Self, RunError> {
        let path = generator.join("log.jsonl");
        let curves = Curves::read(&path)?;
        let of = |name: &str| curves.by_name.get(name).map_or(&[][..], Vec::as_slice);
        let losses = of("loss");
        let (steps, _) = *losses.last().ok_or_else(|| RunError::content(&path, "is empty"))?;
        let late = |curve: &[(u64, f64)]| -> f64 {
            let late = curve.iter().filter(|(step, _)| step * 10 > steps * 9);
            late.map(|(_, value)| value).sum()
        };
        let count = losses.iter().filter(|(step, _)| step * 10 > steps * 9).count() as f64;
        Ok(Self {
            seed,
            logged_loss: late(losses) / count,
            logged_accuracy: late(of("accuracy")) / count,
            curve: curve(losses, of("heldout_loss")),
            measures,
        })
    }
}

/// Puts losses and held-out losses together, which are measured at some of the same steps. After a
/// roll-back a step may occur twice; then the second held-out loss belongs to the second loss.
fn curve(losses: &[(u64, f64)], heldout: &[(u64, f64)]) -> Vec<Point> {
    let mut heldout = heldout.iter().peekable();
    let of_step = |&(step, loss): &(u64, f64)| {
        let heldout = heldout.next_if(|(measured, _)| *measured == step);
        (step, loss, heldout.map(|(_, value)| *value))
    };
    losses.iter().map(of_step).collect()
}

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
        // What rounds to zero is shown without a sign.
        let is_zero = mean.abs() < 0.5 * 10f64.powi(-(digits as i32));
        let mean = if is_zero { 0.0 } else { mean };
        match values.len() {
            0 => "–".into(),
            _ if mean.is_nan() => "–".into(),
            1 => format!("{mean:.digits$}"),
            _ => {
                let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
                format!("{mean:.digits$} ± {:.digits$}", (squares / (count - 1.0)).sqrt())
            }
        }
    }
}

const HELDOUT: [Column; 7] = [
    Column::new("grid, loss", 3, |seed| seed.measures.heldout.grid_loss),
    Column::new("grid, accuracy, %", 1, |seed| 100.0 * seed.measures.heldout.grid_accuracy),
    Column::new("all, loss", 3, |seed| seed.measures.heldout.loss),
    Column::new("all, accuracy, %", 1, |seed| 100.0 * seed.measures.heldout.accuracy),
    Column::new("a picture, nats", 1, |seed| seed.measures.heldout.picture_loss),
    Column::new("codes, nats", 3, |seed| seed.measures.code_entropy),
    Column::new("saved, %", 1, |seed| {
        100.0 * (1.0 - seed.measures.heldout.grid_loss / seed.measures.code_entropy)
    }),
];

const TRAINING: [Column; 6] = [
    Column::new("in training, loss", 3, |seed| seed.logged_loss),
    Column::new("in training, accuracy, %", 1, |seed| 100.0 * seed.logged_accuracy),
    Column::new("grid, loss", 3, |seed| seed.measures.training.grid_loss),
    Column::new("grid, accuracy, %", 1, |seed| 100.0 * seed.measures.training.grid_accuracy),
    Column::new("all, loss", 3, |seed| seed.measures.training.loss),
    Column::new("all, accuracy, %", 1, |seed| 100.0 * seed.measures.training.accuracy),
];

const PICTURES: [Column; 9] = [
    Column::new("codebook used, %", 1, |seed| 100.0 * seed.measures.codebook_usage),
    Column::new("PSNR, dB", 2, |seed| seed.measures.reconstruction.psnr),
    Column::new("SSIM", 3, |seed| seed.measures.reconstruction.ssim),
    Column::new("error, first row", 4, |seed| seed.measures.reconstruction.first_row_error),
    Column::new("error, other rows", 4, |seed| seed.measures.reconstruction.other_rows_error),
    Column::new("distance, reconstructions", 3, |seed| seed.measures.reconstruction.distance),
    Column::new("distance, samples", 3, |seed| seed.measures.sample_distance),
    Column::new("attention before, %", 1, |seed| {
        let pattern = seed.measures.pattern().map(|pattern| pattern.preceding_share());
        pattern.flatten().map_or(f64::NAN, |share| 100.0 * share)
    }),
    Column::new("tokenizer parameters", 0, |seed| seed.measures.tokenizer_parameters as f64),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_put_losses_of_a_step_together() {
        let losses = [(1, 5.0), (2, 4.0), (1, 4.5), (2, 3.5), (3, 3.0)];
        let heldout = [(2, 4.25), (2, 3.75), (3, 3.25)];
        let expected = [
            (1, 5.0, None),
            (2, 4.0, Some(4.25)),
            (1, 4.5, None),
            (2, 3.5, Some(3.75)),
            (3, 3.0, Some(3.25)),
        ];
        assert_eq!(curve(&losses, &heldout), expected);
    }
}
