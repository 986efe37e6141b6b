//! `alitok evaluate`

mod comparison;
mod generation;
mod precision;
mod reconstruction;
mod run;
mod sampling;
mod sweep;

use anyhow::Result;
use clap::{Args, Subcommand};
use pipeline::Device;

use crate::{
    commands::evaluate::{
        generation::{EvaluateGenerationArgs, EvaluateStatisticsArgs},
        precision::EvaluatePrecisionArgs,
        reconstruction::EvaluateReconstructionArgs,
        run::EvaluateRunArgs,
        sweep::EvaluateSweepArgs,
    },
    reference,
};

/// Measure a model
#[derive(Debug, Subcommand)]
pub(crate) enum EvaluateVerb {
    Generation(EvaluateGenerationArgs),
    Statistics(EvaluateStatisticsArgs),
    Reconstruction(EvaluateReconstructionArgs),
    Run(EvaluateRunArgs),
    Precision(EvaluatePrecisionArgs),
    Sweep(EvaluateSweepArgs),
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

pub(crate) fn run(verb: &EvaluateVerb, device: Option<Device>) -> Result<()> {
    match verb {
        EvaluateVerb::Generation(args) => generation::run(args, &reference::networks(device)?),
        EvaluateVerb::Statistics(args) => {
            generation::make_statistics(args, &reference::networks(device)?)
        }
        EvaluateVerb::Reconstruction(args) => reconstruction::run(args, device),
        EvaluateVerb::Run(args) => run::run(args, device),
        EvaluateVerb::Precision(args) => precision::run(args),
        EvaluateVerb::Sweep(args) => sweep::run(args, device),
    }
}
