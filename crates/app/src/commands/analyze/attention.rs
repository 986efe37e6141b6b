//! Arguments of `alitok analyze attention`

use std::path::PathBuf;

use clap::Args;

use crate::args::{DataArgs, DecoderArgs};

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
