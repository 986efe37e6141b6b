//! Arguments of `alitok analyze`

pub(crate) mod attention;
pub(crate) mod codes;
pub(crate) mod language;
pub(crate) mod predictability;
pub(crate) mod reconstructions;

use clap::Subcommand;

use crate::commands::analyze::{
    attention::AnalyzeAttentionArgs, codes::AnalyzeCodesArgs, language::AnalyzeLanguageArgs,
    predictability::AnalyzePredictabilityArgs, reconstructions::AnalyzeReconstructionsArgs,
};

/// Look into a model: figures, as PNG or SVG, and logits
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeVerb {
    Language(AnalyzeLanguageArgs),
    #[command(flatten)]
    Reference(AnalyzeReferenceVerb),
}

/// What of it needs Burn.
#[derive(Debug, Subcommand)]
pub(crate) enum AnalyzeReferenceVerb {
    Attention(AnalyzeAttentionArgs),
    Codes(AnalyzeCodesArgs),
    Predictability(AnalyzePredictabilityArgs),
    Reconstructions(AnalyzeReconstructionsArgs),
}
