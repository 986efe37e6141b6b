//! `alitok analyze`

mod attention;
mod codes;
mod predictability;
mod reconstructions;

use anyhow::Result;
use charts::Format;

use crate::{
    commands::{self, analyze::AnalyzeVerb},
    reference::device,
};

pub(crate) fn run(verb: &AnalyzeVerb, name: Option<pipeline::Device>) -> Result<()> {
    // Before any work.
    Format::of(match verb {
        AnalyzeVerb::Language(args) => return commands::analyze::language::run(args, name),
        AnalyzeVerb::Attention(args) => &args.out,
        AnalyzeVerb::Codes(args) => &args.out,
        AnalyzeVerb::Predictability(args) => &args.out,
        AnalyzeVerb::Reconstructions(args) => &args.out,
    })?;
    match verb {
        AnalyzeVerb::Attention(args) => {
            attention::run(args, &device::training(name, "analyze attention")?)
        }
        AnalyzeVerb::Codes(args) => codes::run(args, name),
        AnalyzeVerb::Predictability(args) => {
            predictability::run(args, &device::training(name, "analyze predictability")?)
        }
        AnalyzeVerb::Reconstructions(args) => reconstructions::run(args, name),
        AnalyzeVerb::Language(args) => commands::analyze::language::run(args, name),
    }
}
