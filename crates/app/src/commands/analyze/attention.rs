//! `alitok analyze attention`

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use charts::{Figure, HeatMap, Panel, Picture as PicturePanel};
use clap::Args;
use serde_json::json;
use tokenizer::reference::DecoderAttention;
use tokens::TokenLayout;

use super::{picture, rows, tensor};
use crate::{
    args::{DataArgs, DecoderArgs},
    models,
    progress::{self, Progress},
};

/// Where patches look in a decoder: the mean pattern around them, and maps (paper, Figs. 8 and 11)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok analyze attention --data bundled:heldout --out attention.png
  alitok analyze attention --data D --model runs/baseline --model runs/stage-2 --patch 3,4 --patch 10,12 --out F.svg

The pattern is the mean over pictures, heads and layers of what a patch takes of itself and its
eight neighbours, each over those patches that have that neighbour.")]
pub(crate) struct AnalyzeAttentionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has a row for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Pictures that the mean is over, spread over the data set.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// The picture of the maps: its number in the data set, from 0.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) picture: usize,
    /// A patch to draw the map of, from 0. Default: four patches.
    #[arg(long = "patch", value_name = "ROW,COLUMN")]
    pub(crate) patches: Vec<String>,
    /// One layer instead of the mean of all, from 0.
    #[arg(long)]
    pub(crate) layer: Option<usize>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Patches whose maps are drawn unless the user chooses: these parts of the way down and across.
const PLACES: [(f64, f64); 4] = [(0.2, 0.2), (0.35, 0.7), (0.65, 0.35), (0.8, 0.8)];

pub(crate) fn run(args: &AnalyzeAttentionArgs, device: &Device) -> Result<()> {
    let data = pixels::data::open(&args.data.data, models::home())?;
    ensure!(
        args.picture < data.len(),
        "--picture {}: the data set has {} pictures, counted from 0",
        args.picture,
        data.len()
    );
    let mut panels = Vec::new();
    let mut found = Vec::new();
    for name in &args.models {
        let folder = models::open(name)?;
        let kind = models::decoder_kind(&folder.config.tokenizer, &args.decoder)?;
        let tokenizer = folder.tokenizer(device)?;
        let image = tokenizer.config().image;
        let layout = tokenizer.config().layout();
        let patches = patches(&args.patches, layout)?;
        let shown = picture(data.as_ref(), args.picture, image)?;
        let own = tokenizer.attention(tensor(&shown, device), kind)?;
        let layers = match args.layer {
            None => 0..own.layers(),
            Some(layer) => {
                ensure!(
                    layer < own.layers(),
                    "--layer {layer}: the decoder of {name} has {} layers, counted from 0",
                    own.layers()
                );
                layer..layer + 1
            }
        };
        let count = data.len().min(args.count as usize);
        let mut progress = Progress::new("looking at pictures", count as u64);
        let mut all: Option<DecoderAttention> = None;
        for number in 0..count {
            // Evenly spread, so that all classes are among them.
            let picture = picture(data.as_ref(), number * data.len() / count, image)?;
            let attention = tokenizer.attention(tensor(&picture, device), kind)?;
            match &mut all {
                None => all = Some(attention),
                Some(all) => all.merge(&attention),
            }
            progress.set(number as u64 + 1);
        }
        progress.finish();
        let pattern = all.context("there are no pictures")?.local_pattern(layers.clone());

        let patch = tokenizer.config().patch;
        let boxes =
            patches.iter().map(|&(row, column)| [column * patch, row * patch, patch, patch]);
        let mut input = PicturePanel::new(name.clone(), shown.width(), shown.height(), shown.rgb());
        input.boxes = boxes.collect();
        panels.push(Panel::from(input));
        let weights = pattern.weights.map(|row| row.map(|weight| 100.0 * weight).to_vec());
        let mut map = HeatMap::new(format!("{kind}: mean, % a patch"), weights.to_vec());
        map.digits = Some(2);
        panels.push(map.into());
        for &(row, column) in &patches {
            let map = own.map(row, column, layers.clone());
            let percent: Vec<f64> = map.iter().map(|weight| 100.0 * weight).collect();
            let title = format!("row {row}, column {column}, %");
            panels.push(HeatMap::new(title, rows(layout, &percent)).into());
        }
        found.push((name, kind, count, pattern, patches.len() + 2));
    }
    // A row a model.
    let columns = found.first().map_or(1, |found| found.4);
    Figure::new(panels).with_columns(columns).with_panel_size(260, 240).write(&args.out)?;
    if args.json {
        let models = found.iter().map(|(name, kind, count, pattern, _)| {
            json!({
                "model": name,
                "decoder": kind.name(),
                "pictures": count,
                "local_pattern": pattern.weights,
                "preceding_share": pattern.preceding_share(),
            })
        });
        return progress::result(&json!({ "models": models.collect::<Vec<_>>() }).to_string());
    }
    for (name, kind, count, pattern, _) in found {
        let rows = pattern.weights.map(|row| row.map(|w| format!("{:7.3}", 100.0 * w)).concat());
        let share = pattern.preceding_share().unwrap_or_default();
        progress::result(&format!(
            "{name}, {kind} decoder, {count} pictures: attention of a patch to those around it, %\n{}\n\
             {:.1} % of what goes to the eight neighbours goes to the four before the patch",
            rows.join("\n"),
            100.0 * share
        ))?;
    }
    progress::result(&format!("figure in {}", args.out.display()))
}

/// Rows and columns of the chosen patches.
fn patches(chosen: &[String], layout: TokenLayout) -> Result<Vec<(usize, usize)>> {
    if chosen.is_empty() {
        let at = |part: f64, extent: usize| (part * extent as f64) as usize;
        let place = |(down, across)| (at(down, layout.rows()), at(across, layout.columns()));
        return Ok(PLACES.map(place).to_vec());
    }
    let parse = |text: &String| {
        let numbers = text.split_once(',').map(|(row, column)| (row.parse(), column.parse()));
        let Some((Ok(row), Ok(column))) = numbers else {
            anyhow::bail!("--patch {text}: write ROW,COLUMN, counted from 0, like 3,5");
        };
        ensure!(
            row < layout.rows() && column < layout.columns(),
            "--patch {text}: the grid has {} rows and {} columns, counted from 0",
            layout.rows(),
            layout.columns()
        );
        Ok((row, column))
    };
    chosen.iter().map(parse).collect()
}
