//! `alitok evaluate`

mod comparison;
mod generation;
mod precision;
mod reconstruction;
mod run;
mod sampling;
mod sweep;

use anyhow::Result;

use crate::{args::EvaluateVerb, device::DeviceName};

pub(crate) fn run(verb: &EvaluateVerb, device: DeviceName) -> Result<()> {
    match verb {
        EvaluateVerb::Generation(args) => generation::run(args, &device.device()),
        EvaluateVerb::Statistics(args) => generation::make_statistics(args, &device.device()),
        EvaluateVerb::Reconstruction(args) => reconstruction::run(args, device),
        EvaluateVerb::Run(args) => run::run(args, device),
        EvaluateVerb::Precision(args) => precision::run(args),
        EvaluateVerb::Sweep(args) => sweep::run(args, device),
    }
}
