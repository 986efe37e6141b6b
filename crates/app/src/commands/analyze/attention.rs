//! `alitok analyze attention`

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::Args;
use evaluation::analysis::attention::{self, AttentionOptions};
use serde_json::json;

use crate::{
    args::{DataArgs, DecoderArgs},
    models,
    progress::{self, Watcher},
    sources,
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

pub(crate) fn run(args: &AnalyzeAttentionArgs, device: &Device) -> Result<()> {
    let data = sources::open(&args.data.data, false)?;
    let options = AttentionOptions {
        decoder: args.decoder.kind(),
        count: args.count as usize,
        picture: args.picture,
        patches: args.patches.iter().map(|text| patch(text)).collect::<Result<_>>()?,
        layer: args.layer,
    };
    let mut found = Vec::new();
    for name in &args.models {
        let (model, watcher) = (models::open(name)?, &mut Watcher::default());
        found.push(attention::measure(name, &model, &*data, &options, device, watcher)?);
    }
    attention::figure(&found).write(&args.out)?;
    if args.json {
        progress::json(&json!({ "models": found }))?;
        progress::wrote(1, "figure", &args.out);
        return Ok(());
    }
    for found in found {
        let row = |row: [f64; 3]| row.map(|weight| format!("{:7.3}", 100.0 * weight)).concat();
        progress::result(&format!(
            "{}, {} decoder, {} pictures: attention of a patch to those around it, %\n{}\n\
             {:.1} % of what goes to the eight neighbours goes to the four before the patch",
            found.model,
            found.decoder,
            found.pictures,
            found.local_pattern.map(row).join("\n"),
            100.0 * found.preceding_share.unwrap_or_default()
        ))?;
    }
    progress::wrote(1, "figure", &args.out);
    Ok(())
}

/// Row and column of a patch.
fn patch(text: &str) -> Result<(usize, usize)> {
    match text.split_once(',').map(|(row, column)| (row.parse(), column.parse())) {
        Some((Ok(row), Ok(column))) => Ok((row, column)),
        _ => bail!("--patch {text}: write ROW,COLUMN, counted from 0, like 3,5"),
    }
}
