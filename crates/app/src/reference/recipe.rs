//! `alitok recipe`

use std::time::Instant;

use anyhow::Result;
use training::proposal::{Machine, Wish, about, propose};

use crate::{
    commands::recipe::{MachineName, RecipeVerb},
    models,
    progress::{self, duration},
    reference::device,
    sources, tuning,
};

pub(crate) fn run(verb: &RecipeVerb, device: Option<pipeline::Device>) -> Result<()> {
    let RecipeVerb::New(args) = verb;
    let started = Instant::now();
    let device = device::training(device, "training")?;
    tuning::for_training();
    let data = sources::open(&args.data.data, false)?;
    let machine = match args.machine {
        MachineName::Cpu => Machine::Cpu,
        MachineName::Gpu => Machine::Gpu,
    };
    progress::result(&format!("{} pictures in {} classes", data.len(), data.classes().len()))?;
    let wish = Wish { size: args.size, machine, hours: args.hours, words: args.words };
    let proposal = propose(data, wish, models::home(), &device)?;
    let written = proposal.write(&args.out, &args.data.data)?;
    let steps = [
        proposal.stage_one.schedule.steps,
        proposal.stage_two.schedule.steps,
        proposal.third.schedule().steps,
    ];
    for (stage, path) in written.iter().enumerate() {
        let time = proposal
            .seconds
            .map_or_else(String::new, |seconds| format!(", about {}", about(seconds[stage])));
        let steps = progress::thousands(steps[stage]);
        progress::result(&format!("{}: {steps} steps{time}", path.display()))?;
    }
    if let Some(seconds) = proposal.cache_seconds {
        progress::result(&format!(
            "the token cache between the last two: about {}",
            about(seconds)
        ))?;
    }
    if let Some(hours) = proposal.wanted_hours {
        progress::note(&format!(
            "{} hours are short for these pictures: expect colours and rough shapes; from about {hours:.1} hours on they \
             get better",
            args.hours
        ));
    }
    progress::note(&format!(
        "3 recipes in {} → {}; their first lines have the commands",
        duration(started.elapsed().as_secs_f64()),
        args.out.display()
    ));
    Ok(())
}
