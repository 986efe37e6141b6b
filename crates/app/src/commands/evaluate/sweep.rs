//! `alitok evaluate sweep`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use evaluation::sweep::{self, Candidate, Estimate, Golden, Setting, SweepOptions, SweepResult};
use pipeline::Device;
use training::Checkpoint;

use super::{open_extractor, without_negative_zero};
use crate::{
    args::{BatchArgs, ComputeArgs, ModelArgs},
    models,
    progress::{self, Watcher},
    reference,
};

/// Look for the best guidance, power and temperature, or compare the checkpoints of a run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate sweep --model runs/generator --reference photos/ --guidance 1,2,3,4 --count 180 --out sweeps/own
  alitok evaluate sweep --model mini --protocol mini --guidance 1,1.5,2,3,4 --count 180 --out sweeps/guidance
  alitok evaluate sweep --model mini --protocol mini --golden guidance=1:8 --evaluations 8 --count 180 --out sweeps/golden
  alitok evaluate sweep --run runs/generator --protocol mini --guidance 1,2 --count 180 --out sweeps/checkpoints

Points differ in the setting alone: all are of the same seed. Their spread over other samples is that of
the bootstrap. What stays the same over samples of one number, above all that few of them make the
distance too large, is not in it. Finished points are kept in points.jsonl; after an interruption give
the command again. With --run every checkpoint is a point (paper, Fig. 6).")]
pub(crate) struct EvaluateSweepArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A generator's run, instead of a model: each of its checkpoints.
    #[arg(long, conflicts_with = "model")]
    pub(crate) run: Option<PathBuf>,
    /// What is measured, and how, save what is swept. `own` fits any model and needs --reference.
    #[arg(long, default_value = evaluation::protocol::OWN)]
    pub(crate) protocol: String,
    /// Change settings of the protocol, as key=value.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Pictures of a point. Default: the protocol's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) count: Option<u32>,
    /// Values of guidance, with commas between them. Default: the protocol's, as below.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    /// Values of the power of guidance's schedule.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance_power: Vec<f64>,
    /// Values of the temperature.
    #[arg(long, value_delimiter = ',')]
    pub(crate) temperature: Vec<f64>,
    /// Narrow one setting down to the least distance by the golden section: guidance,
    /// guidance_power or temperature.
    #[arg(long, value_name = "KEY=LOW:HIGH")]
    pub(crate) golden: Option<String>,
    /// Points of the golden section.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) evaluations: u32,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) resamples: u32,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Another network than the protocol's: `lite`, `inception` or `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Folder for points and the figure.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

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
    let networks = reference::networks(device)?;
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
