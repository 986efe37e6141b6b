//! Arguments of `alitok evaluate sweep`

use std::path::PathBuf;

use clap::Args;

use super::OWN;
use crate::args::{BatchArgs, ComputeArgs, ModelArgs};

/// Look for the best guidance, power and temperature, or compare the checkpoints of a run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate sweep --model runs/generator --reference photos/ --guidance 1,2,3,4 --count 180 --out sweeps/own
  alitok evaluate sweep --model mini --protocol mini --guidance 1,1.5,2,3,4 --count 180 --out sweeps/guidance
  alitok evaluate sweep --model mini --protocol mini --golden guidance=1:8 --evaluations 8 --count 180 --out sweeps/golden
  alitok evaluate sweep --run runs/generator --protocol mini --guidance 1,2 --count 180 --out sweeps/checkpoints

Points differ in the setting alone: all are of the same seed. Their spread over other samples is that of
the bootstrap. What stays the same over samples of one number, above all that few of them make the
distance too large, is not in it. Finished points are kept in points.jsonl; after an interruption give
the command again. With --run every checkpoint is a point (paper, Fig. 6).")]
pub(crate) struct EvaluateSweepArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A generator's run, instead of a model: each of its checkpoints.
    #[arg(long, conflicts_with = "model")]
    pub(crate) run: Option<PathBuf>,
    /// What is measured, and how, save what is swept. `own` fits any model and needs --reference.
    #[arg(long, default_value = OWN)]
    pub(crate) protocol: String,
    /// Change settings of the protocol, as key=value.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Pictures of a point. Default: the protocol's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) count: Option<u32>,
    /// Values of guidance, with commas between them. Default: the protocol's, as below.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    /// Values of the power of guidance's schedule.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance_power: Vec<f64>,
    /// Values of the temperature.
    #[arg(long, value_delimiter = ',')]
    pub(crate) temperature: Vec<f64>,
    /// Narrow one setting down to the least distance by the golden section: guidance,
    /// guidance_power or temperature.
    #[arg(long, value_name = "KEY=LOW:HIGH")]
    pub(crate) golden: Option<String>,
    /// Points of the golden section.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) evaluations: u32,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) resamples: u32,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Another network than the protocol's: `lite`, `inception` or `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Folder for points and the figure.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
