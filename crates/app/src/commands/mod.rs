//! One file a verb: its arguments, and its work if that needs no Burn. The work of the others is in
//! `reference`.

pub(crate) mod analyze;
mod bench;
#[cfg(test)]
mod book;
pub(crate) mod cache;
mod complete;
mod completions;
mod data;
mod decode;
mod devices;
mod encode;
pub(crate) mod evaluate;
pub(crate) mod experiment;
mod export;
mod generate;
mod import;
mod inspect;
pub(crate) mod plot;
pub(crate) mod recipe;
mod reconstruct;
mod serve;
pub(crate) mod train;
pub(crate) mod weights;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    args::GlobalArgs,
    commands::{
        analyze::AnalyzeVerb, bench::BenchVerb, cache::CacheVerb, complete::CompleteArgs,
        data::DataVerb, decode::DecodeArgs, encode::EncodeArgs, evaluate::EvaluateVerb,
        experiment::ExperimentVerb, export::ExportArgs, generate::GenerateArgs, import::ImportArgs,
        inspect::InspectArgs, plot::PlotArgs, recipe::RecipeVerb, reconstruct::ReconstructArgs,
        serve::ServeArgs, train::TrainVerb, weights::WeightsVerb,
    },
    interrupt, progress, tuning,
};

/// Autoregressive image generation with an aligned tokenizer.
#[derive(Debug, Parser)]
#[command(
    name = "alitok",
    bin_name = "alitok",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "`alitok --version --verbose` says what a bug report needs: revision, compiler, features, machine."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

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
    Serve(ServeArgs),
    #[command(subcommand)]
    Data(DataVerb),
    #[command(subcommand)]
    Analyze(AnalyzeVerb),
    #[command(flatten)]
    Reference(ReferenceVerb),
    #[command(subcommand)]
    Bench(BenchVerb),
    Import(ImportArgs),
    Export(ExportArgs),
    Inspect(InspectArgs),
    /// Weights are packed at start
    #[command(hide = true, disable_help_flag = true)]
    Pack {
        #[arg(num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// List what this program can compute on, on this machine
    Devices,
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  alitok completions bash > ~/.local/share/bash-completion/completions/alitok")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages, one a verb, into a folder
    #[command(after_help = "Example:
  alitok man --out ~/.local/share/man/man1")]
    Man {
        /// The folder, which may hold others.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What needs Burn: a program without it hands these over to one that has it.
#[derive(Debug, Subcommand)]
pub(crate) enum ReferenceVerb {
    #[command(subcommand)]
    Recipe(RecipeVerb),
    #[command(subcommand)]
    Train(TrainVerb),
    Plot(PlotArgs),
    #[command(subcommand)]
    Cache(CacheVerb),
    #[command(subcommand)]
    Evaluate(EvaluateVerb),
    #[command(subcommand)]
    Experiment(ExperimentVerb),
    #[command(subcommand)]
    Weights(WeightsVerb),
}

/// Whether a program without Burn hands the verb over.
#[cfg(not(feature = "reference"))]
fn needs_burn(verb: &Verb) -> bool {
    matches!(verb, Verb::Reference(_) | Verb::Analyze(AnalyzeVerb::Reference(_)))
}

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let GlobalArgs { device, gpu, threads, .. } = arguments.global;
    if let Some(gpu) = gpu {
        ensure!(
            device == Some(pipeline::Device::Gpu),
            "--gpu {gpu} chooses among the GPUs of the device `gpu`; write --device gpu, too"
        );
        tuning::choose_gpu(gpu);
    }
    #[cfg(not(feature = "reference"))]
    if needs_burn(&arguments.verb) || matches!(device, Some(pipeline::Device::Reference { .. })) {
        return crate::hand_over::to_program_with_reference();
    }
    if let Some(threads) = threads {
        tuning::limit_threads(threads.into());
    }
    // Training sets its threads up by itself.
    if !matches!(
        arguments.verb,
        Verb::Reference(
            ReferenceVerb::Train(_) | ReferenceVerb::Experiment(_) | ReferenceVerb::Recipe(_)
        )
    ) {
        tuning::for_inference();
    }
    interrupt::watch();
    match arguments.verb {
        Verb::Generate(args) => generate::run(&args, device),
        Verb::Encode(args) => encode::run(&args, device),
        Verb::Decode(args) => decode::run(&args, device),
        Verb::Reconstruct(args) => reconstruct::run(&args, device),
        Verb::Complete(args) => complete::run(&args, device),
        Verb::Serve(args) => serve::run(&args, device),
        Verb::Data(verb) => match data::run(&verb) {
            #[cfg(not(feature = "reference"))]
            Err(error) if crate::hand_over::mends(&error) => {
                crate::hand_over::to_program_with_reference()
            }
            done => done,
        },
        Verb::Analyze(AnalyzeVerb::Language(args)) => analyze::language::run(&args, device),
        #[cfg(feature = "reference")]
        Verb::Analyze(AnalyzeVerb::Reference(verb)) => crate::reference::analyze(&verb, device),
        #[cfg(feature = "reference")]
        Verb::Reference(verb) => crate::reference::run(&verb, device),
        #[cfg(not(feature = "reference"))]
        Verb::Reference(_) | Verb::Analyze(AnalyzeVerb::Reference(_)) => {
            unreachable!("it was handed over")
        }
        Verb::Bench(verb) => bench::run(&verb, device),
        Verb::Import(args) => import::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Pack { .. } => bail!(
            "weights are packed on all threads at start now; leave `alitok pack` and --packed out, \
             and give --precision to the verb that draws, encodes or decodes"
        ),
        Verb::Devices => devices::run(),
        Verb::Completions { shell } => completions::run(Arguments::command(), shell),
        Verb::Man { out } => {
            std::fs::create_dir_all(&out)
                .and_then(|()| clap_mangen::generate_to(Arguments::command(), &out))
                .with_context(|| format!("cannot write manual pages into {}", out.display()))?;
            progress::closing("manual pages", &out);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, fs, path::Path};

    use clap::{Command, CommandFactory};

    use super::Arguments;

    /// Whether people should use it: not one that only says what took its place.
    fn is_shown(verb: &Command) -> bool {
        verb.get_name() != "help" && !verb.is_hide_set()
    }

    /// The page's part of a command and of those below it.
    fn describe(page: &mut String, command: &mut Command) {
        let verb = command.get_subcommands().next().is_none();
        if verb {
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            let text = lines.join("\n");
            write!(page, "\n## {name}\n\n```text\n{}\n```\n", text.trim_end()).unwrap();
        }
        for below in command.get_subcommands_mut().filter(|below| is_shown(below)) {
            describe(page, below);
        }
    }

    #[test]
    fn should_have_a_page_with_every_verb_and_flag() {
        let mut command = Arguments::command().term_width(100);
        command.build();
        let mut page = String::from(
            "# Command line\n\nThe help of every verb. `UPDATE=1 cargo test --release -p alitok page_with` \
             writes this page anew;\nthe test fails where the page and the help differ.\n\n| verb | does |\n| --- | --- |\n",
        );
        for verb in command.get_subcommands().filter(|verb| is_shown(verb)) {
            let about = verb.get_about().unwrap_or_default();
            writeln!(page, "| `{}` | {about} |", verb.get_name()).unwrap();
        }
        describe(&mut page, &mut command);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &page).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == page, "docs/cli.md is not the help; run this test with UPDATE=1");
    }

    #[test]
    fn should_define_arguments_that_clap_accepts() {
        Arguments::command().debug_assert();
    }
}
