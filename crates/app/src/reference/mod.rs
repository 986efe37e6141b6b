//! The work of the verbs that need Burn: training, experiments, measures by networks, and whatever else
//! stands on the models for training. Only a program with the feature `reference` has it.

mod analyze;
mod cache;
mod communicator;
mod device;
mod evaluate;
mod experiment;
mod plot;
mod recipe;
mod train;
mod training_progress;
mod watcher;
mod weights;

use anyhow::Result;
use pipeline::Device;

pub(crate) use self::analyze::run as analyze;
use crate::commands::ReferenceVerb;

/// Does what the command line says.
pub(crate) fn run(verb: &ReferenceVerb, device: Option<Device>) -> Result<()> {
    match verb {
        ReferenceVerb::Recipe(verb) => recipe::run(verb, device),
        ReferenceVerb::Train(verb) => train::run(verb, device),
        ReferenceVerb::Plot(args) => plot::run(args),
        ReferenceVerb::Cache(verb) => cache::run(verb, device),
        ReferenceVerb::Evaluate(verb) => evaluate::run(verb, device),
        ReferenceVerb::Experiment(verb) => experiment::run(verb, device),
        ReferenceVerb::Weights(verb) => weights::run(verb),
    }
}
