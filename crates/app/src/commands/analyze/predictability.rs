//! Arguments of `alitok analyze predictability`

use std::path::PathBuf;

use clap::Args;

use crate::args::ModelArgs;

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
