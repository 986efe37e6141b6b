//! `alitok analyze`

mod attention;
mod codes;
mod predictability;
mod reconstructions;

use anyhow::Result;
use charts::Format;

use crate::{commands::analyze::AnalyzeReferenceVerb, reference::device};

pub(crate) fn run(verb: &AnalyzeReferenceVerb, name: Option<pipeline::Device>) -> Result<()> {
    // Before any work.
    Format::of(match verb {
        AnalyzeReferenceVerb::Attention(args) => &args.out,
        AnalyzeReferenceVerb::Codes(args) => &args.out,
        AnalyzeReferenceVerb::Predictability(args) => &args.out,
        AnalyzeReferenceVerb::Reconstructions(args) => &args.out,
    })?;
    match verb {
        AnalyzeReferenceVerb::Attention(args) => {
            attention::run(args, &device::training(name, "analyze attention")?)
        }
        AnalyzeReferenceVerb::Codes(args) => codes::run(args, name),
        AnalyzeReferenceVerb::Predictability(args) => {
            predictability::run(args, &device::training(name, "analyze predictability")?)
        }
        AnalyzeReferenceVerb::Reconstructions(args) => reconstructions::run(args, name),
    }
}
