//! Arguments of `alitok analyze codes`

use std::path::PathBuf;

use clap::Args;

use crate::args::DataArgs;

/// The used vectors of a codebook on a plane, by t-SNE (paper, Fig. 12)
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok analyze codes --data bundled --class 'Smileys & Emotion' --out codes.png")]
pub(crate) struct AnalyzeCodesArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has a panel for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    /// Pictures of one class only, by its name or number in the data set.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) class: Option<String>,
    /// Pictures whose codes are drawn; the paper has 200.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// How many neighbours a code has, about.
    #[arg(long, default_value_t = 30.0, value_parser = perplexity)]
    pub(crate) perplexity: f64,
    /// Seed of where the points begin.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

fn perplexity(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (1.0..=1000.0).contains(&number) => Ok(number),
        _ => Err("write a number from 1 to 1000".to_owned()),
    }
}
