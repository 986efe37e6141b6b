//! `alitok analyze`

mod attention;
mod codes;
mod predictability;
mod reconstructions;

use anyhow::Result;
use charts::Format;
use clap::Subcommand;

use crate::{
    commands::analyze::{
        attention::AnalyzeAttentionArgs, codes::AnalyzeCodesArgs,
        predictability::AnalyzePredictabilityArgs, reconstructions::AnalyzeReconstructionsArgs,
    },
    reference,
};

/// Look into a model: figures, as PNG or SVG
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeVerb {
    Attention(AnalyzeAttentionArgs),
    Codes(AnalyzeCodesArgs),
    Predictability(AnalyzePredictabilityArgs),
    Reconstructions(AnalyzeReconstructionsArgs),
}

pub(crate) fn run(verb: &AnalyzeVerb, name: Option<pipeline::Device>) -> Result<()> {
    // Before any work.
    Format::of(match verb {
        AnalyzeVerb::Attention(args) => &args.out,
        AnalyzeVerb::Codes(args) => &args.out,
        AnalyzeVerb::Predictability(args) => &args.out,
        AnalyzeVerb::Reconstructions(args) => &args.out,
    })?;
    match verb {
        AnalyzeVerb::Attention(args) => {
            attention::run(args, &reference::device(name, "analyze attention")?)
        }
        AnalyzeVerb::Codes(args) => codes::run(args, name),
        AnalyzeVerb::Predictability(args) => {
            predictability::run(args, &reference::device(name, "analyze predictability")?)
        }
        AnalyzeVerb::Reconstructions(args) => reconstructions::run(args, name),
    }
}
