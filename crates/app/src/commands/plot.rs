//! Arguments of `alitok plot`

use std::path::PathBuf;

use clap::Args;

/// Draw curves of runs from their logs
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok plot runs/mini-generator --out loss.png
  alitok plot runs/a runs/b --measure loss heldout_loss usage --smooth 10 --log --out curves.svg")]
pub(crate) struct PlotArgs {
    /// Folders of runs, or their log.jsonl.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// What to draw, a panel each: names as in log.jsonl.
    #[arg(long, value_name = "NAME", num_args = 1.., default_value = "loss")]
    pub(crate) measure: Vec<String>,
    /// Draw the mean of this many lines of the log instead of each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) smooth: u32,
    /// Draw measures on a logarithmic axis.
    #[arg(long)]
    pub(crate) log: bool,
    /// The .svg or .png file.
    #[arg(long)]
    pub(crate) out: PathBuf,
}
