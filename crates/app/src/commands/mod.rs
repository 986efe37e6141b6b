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
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    commands::{
        analyze::AnalyzeVerb, bench::BenchVerb, cache::CacheVerb, complete::CompleteArgs,
        data::DataVerb, decode::DecodeArgs, encode::EncodeArgs, evaluate::EvaluateVerb,
        experiment::ExperimentVerb, export::ExportArgs, generate::GenerateArgs, import::ImportArgs,
        inspect::InspectArgs, plot::PlotArgs, reconstruct::ReconstructArgs, train::TrainVerb,
        weights::WeightsVerb,
    },
    device::DeviceName,
};

/// Autoregressive image generation with an aligned tokenizer.
#[derive(Debug, Parser)]
#[command(name = "alitok", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Device to compute on.
    #[arg(long, global = true, value_enum, default_value_t = DeviceName::Flex)]
    pub(crate) device: DeviceName,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Generate(GenerateArgs),
    Encode(EncodeArgs),
    Decode(DecodeArgs),
    Reconstruct(ReconstructArgs),
    Complete(CompleteArgs),
    #[command(subcommand)]
    Train(TrainVerb),
    Plot(PlotArgs),
    #[command(subcommand)]
    Cache(CacheVerb),
    #[command(subcommand)]
    Data(DataVerb),
    #[command(subcommand)]
    Evaluate(EvaluateVerb),
    #[command(subcommand)]
    Experiment(ExperimentVerb),
    #[command(subcommand)]
    Analyze(AnalyzeVerb),
    #[command(subcommand)]
    Bench(BenchVerb),
    Import(ImportArgs),
    Export(ExportArgs),
    #[command(subcommand)]
    Weights(WeightsVerb),
    Inspect(InspectArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  alitok completions bash > ~/.local/share/bash-completion/completions/alitok")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

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
