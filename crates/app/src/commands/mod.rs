//! One file a verb: from arguments to work.

mod analyze;
mod bench;
mod cache;
mod complete;
mod data;
mod decode;
mod encode;
mod evaluate;
mod experiment;
mod export;
mod generate;
mod import;
mod inspect;
mod plot;
mod reconstruct;
mod train;
mod weights;

use std::io::Write;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Arguments, Verb};

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let name = arguments.device;
    let device = name.device();
    match arguments.verb {
        Verb::Generate(args) => generate::run(&args, name),
        Verb::Encode(args) => encode::run(&args, name),
        Verb::Decode(args) => decode::run(&args, name),
        Verb::Reconstruct(args) => reconstruct::run(&args, name),
        Verb::Complete(args) => complete::run(&args, name),
        Verb::Train(verb) => train::run(&verb, &device),
        Verb::Plot(args) => plot::run(&args),
        Verb::Cache(verb) => cache::run(&verb, name),
        Verb::Data(verb) => data::run(&verb),
        Verb::Evaluate(verb) => evaluate::run(&verb, name),
        Verb::Experiment(verb) => experiment::run(&verb, name),
        Verb::Analyze(verb) => analyze::run(&verb, name),
        Verb::Bench(verb) => bench::run(&verb),
        Verb::Import(args) => import::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Weights(verb) => weights::run(&verb),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Completions { shell } => {
            // In memory first: clap panics where standard output is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "alitok", &mut script);
            let mut output = std::io::stdout().lock();
            output.write_all(&script)?;
            Ok(output.flush()?)
        }
    }
}
