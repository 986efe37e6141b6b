//! `alitok evaluate sweep`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use evaluation::sweep::{self, Candidate, Estimate, Golden, Setting, SweepOptions, SweepResult};
use pipeline::Device;
use training::Checkpoint;

use super::{open_extractor, without_negative_zero};
use crate::{
    commands::evaluate::sweep::EvaluateSweepArgs,
    models, progress,
    reference::{device, watcher::Watcher},
};

pub(super) fn run(args: &EvaluateSweepArgs, device: Option<Device>) -> Result<()> {
    let name = args.run.as_ref().map_or(args.model.model.clone(), |run| run.display().to_string());
    let model = models::open(&name)?;
    let golden = |text: &String| Golden::parse(text, args.evaluations as usize);
    let options = SweepOptions {
        home: models::home().clone(),
        protocol: args.protocol.clone(),
        overrides: args.overrides.clone(),
        count: args.count.map(|count| count as usize),
        guidance: args.guidance.clone(),
        guidance_power: args.guidance_power.clone(),
        temperature: args.temperature.clone(),
        golden: args.golden.as_ref().map(golden).transpose()?,
        resamples: args.resamples as usize,
        reference: args.reference.clone(),
        batch: args.batch.batch as usize,
        out: args.out.clone(),
    };
    let candidates = candidates(args)?;
    let compute = args.compute.compute(device)?;
    let networks = device::networks(device)?;
    let open =
        |protocols: &str| open_extractor(args.extractor.as_deref().unwrap_or(protocols), &networks);
    let watcher = &mut Watcher::default();
    let found = sweep::evaluate(&options, &model, &candidates, &compute, open, watcher)?;
    for name in ["sweep.svg", "sweep.png"] {
        found.figure().write(&args.out.join(name))?;
    }
    match args.json {
        true => progress::json(&found)?,
        false => progress::result(&text(&found, args.resamples))?,
    }
    progress::wrote(found.points.len(), "point", &args.out);
    Ok(())
}

/// The model, or each checkpoint of the run.
fn candidates(args: &EvaluateSweepArgs) -> Result<Vec<Candidate<'static>>> {
    let Some(run) = &args.run else { return Ok(vec![Candidate::model()]) };
    let checkpoints = Checkpoint::of_run(run)?;
    ensure!(
        !checkpoints.is_empty(),
        "{} has no checkpoints; a recipe's `keep_checkpoints` says how many are kept",
        run.display()
    );
    let candidate = |(step, path): (u64, PathBuf)| {
        let file = path.clone();
        Candidate::checkpoint(step, path, move || Ok(Checkpoint::exported(&file)?))
    };
    Ok(checkpoints.into_iter().map(candidate).collect())
}

/// A result as a table.
fn text(found: &SweepResult, resamples: u32) -> String {
    let estimate = |estimate: &Estimate| {
        format!("{:>12.4} ± {:<9.4}", without_negative_zero(estimate.value, 4), estimate.reach())
    };
    let mut text = format!(
        "{:>8} {:>9} {:>7} {:>12} {:>24} {:>24}",
        "step", "guidance", "power", "temperature", found.distance_title, found.quality_title
    );
    for point in &found.points {
        let Setting { step, guidance, guidance_power, temperature } = point.point.setting;
        let step = step.map_or_else(|| "–".to_owned(), |step| step.to_string());
        let quality = point.point.quality.as_ref().map_or_else(String::new, estimate);
        let mark = if point.point.setting == found.least {
            "  least"
        } else if point.as_good_as_the_least {
            "  not told apart from it"
        } else {
            ""
        };
        text.push_str(&format!(
            "\n{step:>8} {guidance:>9} {guidance_power:>7} {temperature:>12} {} {quality}{mark}",
            estimate(&point.point.distance)
        ));
    }
    text + &format!(
        "\n± is 1.96 standard deviations over {resamples} bootstrap resamples of the samples"
    )
}
