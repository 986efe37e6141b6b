//! Arguments of `alitok evaluate`

pub(crate) mod generation;
pub(crate) mod precision;
pub(crate) mod reconstruction;
pub(crate) mod run;
pub(crate) mod sweep;
pub(crate) mod text;

use clap::{Args, Subcommand};

use crate::commands::evaluate::{
    generation::{EvaluateGenerationArgs, EvaluateStatisticsArgs},
    precision::EvaluatePrecisionArgs,
    reconstruction::EvaluateReconstructionArgs,
    run::EvaluateRunArgs,
    sweep::EvaluateSweepArgs,
    text::EvaluateTextArgs,
};

/// The protocol that fits any model.
const OWN: &str = "own";

/// Measure a model
#[derive(Debug, Subcommand)]
pub(crate) enum EvaluateVerb {
    Generation(EvaluateGenerationArgs),
    Statistics(EvaluateStatisticsArgs),
    Reconstruction(EvaluateReconstructionArgs),
    Run(EvaluateRunArgs),
    Precision(EvaluatePrecisionArgs),
    Sweep(EvaluateSweepArgs),
    Text(EvaluateTextArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExtractorArgs {
    /// Network that compares: `lite` (bundled; its distances are no FID), `inception` after `alitok
    /// weights fetch inception`, or `inception=FILE` with pt_inception-2015-12-05-6726825d.pth.
    #[arg(long, default_value = "lite")]
    pub(crate) extractor: String,
}

#[derive(Debug, Args)]
pub(crate) struct LpipsArgs {
    /// Also LPIPS by `vgg` or `alex`, after `alitok weights fetch`, or with files:
    /// NAME=NETWORK,CHANNELS. May be given twice.
    #[arg(long = "lpips", value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}
