//! Arguments of `alitok experiment`

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Train variants on equal budgets and compare them
#[derive(Debug, Subcommand)]
pub(crate) enum ExperimentVerb {
    Ablation(AblationArgs),
}

/// Does a causal decoder make tokens that are easier to predict? (the paper's Table 3, Fig. 2)
///
/// Trains a tokenizer and a generator a row and seed, measures them, and writes `report.md`,
/// `report.json` and figures. Given again, it goes on where it was interrupted; a second process
/// with the same folder takes rows that nobody works on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok experiment ablation --out runs/ablation
  alitok experiment ablation --plan cifar --data train.parquet --heldout test.parquet --out runs/cifar
  alitok experiment ablation --plan mine.toml --row A B --out runs/mine
  alitok experiment ablation --out runs/ablation --report-only")]
pub(crate) struct AblationArgs {
    /// A bundled plan (`small`, or `cifar` for `--data` of one's own), or a .toml file like those in `recipes/ablation`.
    #[arg(long, default_value = "small")]
    pub(crate) plan: String,
    /// Folder of the experiment.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Pictures to train on, in place of the plan's; docs/data.md has the rules.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// Pictures of the same classes that no training sees, in place of the plan's.
    #[arg(long)]
    pub(crate) heldout: Option<String>,
    /// Work on these rows only. The report has all that are finished.
    #[arg(long = "row", value_name = "NAME", num_args = 1..)]
    pub(crate) rows: Vec<String>,
    /// Train and measure nothing, only write the report of what is finished.
    #[arg(long)]
    pub(crate) report_only: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
