//! `alitok experiment`

use anyhow::{Result, ensure};
use experiment::{Equipment, Laboratory};
use pipeline::Device;

use crate::{
    args::ComputeArgs,
    commands::experiment::ExperimentVerb,
    models, progress,
    reference::{communicator::communicator, device, watcher::Watcher},
    tuning,
};

pub(crate) fn run(verb: &ExperimentVerb, device: Option<Device>) -> Result<()> {
    tuning::for_training();
    let ExperimentVerb::Ablation(args) = verb;
    let mut plan = experiment::read(&args.plan)?;
    plan.data = args.data.clone().unwrap_or(plan.data);
    plan.heldout = args.heldout.clone().unwrap_or(plan.heldout);
    let laboratory = Laboratory::new(&plan, &args.out);
    laboratory.check_rows(&args.rows)?;
    let equipment = Equipment {
        device: device::training(device, "training")?,
        compute: ComputeArgs::default().compute(device)?,
        home: models::home().clone(),
    };
    if !args.report_only {
        ensure!(
            communicator()?.ranks() == 1,
            "each process of an experiment works on rows of its own; start it without a launcher"
        );
        laboratory.work(&args.rows, &equipment, &mut Watcher::default())?;
    }
    let report = laboratory.report()?;
    progress::result(&if args.json { report.to_json() } else { report.to_markdown() })?;
    progress::closing("a report", &args.out);
    Ok(())
}
