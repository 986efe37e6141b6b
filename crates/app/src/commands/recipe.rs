//! `alitok recipe`

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use training::proposal::{Machine, Wish, propose};

use crate::{
    args::DataArgs,
    models,
    progress::{self, duration},
    reference, sources, tuning,
};

/// Make recipes for one's own pictures
#[derive(Debug, Subcommand)]
pub(crate) enum RecipeVerb {
    New(RecipeNewArgs),
}

/// Look at pictures and machine and write the three recipes that fit both
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok recipe new --data photos/ --size 128 --hours 8 --out my/
  alitok train tokenizer --stage 1 --recipe my/ --data photos/ --out my/stage-1")]
pub(crate) struct RecipeNewArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Side of the square pictures in pixels.
    #[arg(long)]
    pub(crate) size: usize,
    /// What will train: this machine's processor, on which some steps are timed, or a GPU, which is
    /// not asked.
    #[arg(long = "for", value_enum, default_value_t = MachineName::Cpu)]
    pub(crate) machine: MachineName,
    /// Hours for all three trainings together.
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub(crate) hours: f64,
    /// Folder for `tokenizer_stage_1.toml`, `tokenizer_stage_2.toml` and `generator.toml`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MachineName {
    /// This machine's processor.
    Cpu,
    /// A GPU.
    Gpu,
}

pub(crate) fn run(verb: &RecipeVerb, device: Option<pipeline::Device>) -> Result<()> {
    let RecipeVerb::New(args) = verb;
    let started = Instant::now();
    let device = reference::device(device, "training")?;
    tuning::for_training();
    let data = sources::open(&args.data.data, false)?;
    let machine = match args.machine {
        MachineName::Cpu => Machine::Cpu,
        MachineName::Gpu => Machine::Gpu,
    };
    progress::result(&format!("{} pictures in {} classes", data.len(), data.classes().len()))?;
    let wish = Wish { size: args.size, machine, hours: args.hours };
    let proposal = propose(data, wish, models::home(), &device)?;
    let written = proposal.write(&args.out, &args.data.data)?;
    let steps = [
        proposal.stage_one.schedule.steps,
        proposal.stage_two.schedule.steps,
        proposal.generator.schedule.steps,
    ];
    for (stage, path) in written.iter().enumerate() {
        let time = proposal
            .seconds
            .map_or_else(String::new, |seconds| format!(", about {}", duration(seconds[stage])));
        let steps = progress::thousands(steps[stage]);
        progress::result(&format!("{}: {steps} steps{time}", path.display()))?;
    }
    progress::note(&format!(
        "3 recipes in {} → {}; their first lines have the commands",
        duration(started.elapsed().as_secs_f64()),
        args.out.display()
    ));
    Ok(())
}
