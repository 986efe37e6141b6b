//! `alitok evaluate run`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use evaluation::run::{Evaluation, RunDetails, RunOptions, RunResult};
use pipeline::Device;
use serde_json::Map;

use super::{LpipsArgs, open_extractor, open_lpips, reconstruction_details, table};
use crate::{
    args::{BatchArgs, ComputeArgs, ModelArgs, ShardArgs},
    models,
    progress::{self, Watcher},
    reference,
};

/// Measure a model as a published number was measured, and put both side by side
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate run --model runs/generator --reference photos/ --out evaluation/own
  alitok evaluate run --model runs/stage-2 --data photos/ --out evaluation/own-tokenizer
  alitok evaluate run --model mini --protocol mini mini-stage-2 mini-limit --out evaluation/mini
  alitok evaluate run --model models/alitok-b --protocol paper --reference VIRTUAL_imagenet256_labeled.npz --extractor inception --out evaluation/b
  alitok evaluate run --model models/alitok-b --protocol paper --set count=5000 --set sampling.guidance=16 --reference R --out evaluation/b-16

A protocol is a file: one of the folder `protocols`, by name, or another by path. `paper` is the paper's
guided generation with a model of this architecture. Work is kept in parts of 64 pictures: after an
interruption give the command again; on several machines that share --out, give each its --shard.
Whatever departs from the protocol is refused, unless --set changes the protocol.")]
pub(crate) struct EvaluateRunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Protocols; with several, each has a folder of its own in --out. `own` fits any model: what it
    /// draws with its own settings against --reference, or, of a tokenizer, how well it rebuilds --data.
    #[arg(long, default_value = evaluation::protocol::OWN, num_args = 1..)]
    pub(crate) protocol: Vec<String>,
    /// Change settings of the protocol, as key=value; then it is another one.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// What is reconstructed, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// The protocol's network: `lite`, `inception` after `alitok weights fetch inception`, or
    /// `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) lpips: LpipsArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// Folder for finished parts and the result.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Say what would be measured, after all checks; measure and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(super) fn run(args: &EvaluateRunArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let compute = args.compute.compute(device)?;
    let device = reference::networks(device)?;
    let several = args.protocol.len() > 1;
    let options = RunOptions {
        home: models::home().clone(),
        overrides: args.overrides.clone(),
        reference: args.reference.clone(),
        data: args.data.clone(),
        batch: args.batch.batch as usize,
    };
    let evaluations = args
        .protocol
        .iter()
        .map(|name| {
            let out = if several { args.out.join(name) } else { args.out.clone() };
            let extractor = args.extractor.as_deref();
            let open = |asked: &str| open_extractor(asked, &device);
            Evaluation::prepare(name, &model, &options, extractor, open, out)?
                .with_perceptual(&args.lpips.networks, |name| open_lpips(name, &device))
        })
        .collect::<Result<Vec<_>, _>>()?;
    for evaluation in &evaluations {
        let line = evaluation.about();
        match args.dry_run {
            true => progress::result(&line)?,
            false => progress::note(&line),
        }
    }
    if args.dry_run {
        return Ok(());
    }
    let mut objects = Map::new();
    let mut pictures = 0;
    for evaluation in evaluations {
        let found = evaluation.run(&compute, args.shard.shard, &mut Watcher::default())?;
        let Some(found) = found else { continue };
        pictures += match &found.details {
            RunDetails::Generation { samples, .. } => *samples,
            RunDetails::Reconstruction { images, .. } => *images,
        };
        match args.json {
            true => drop(objects.insert(found.protocol.clone(), serde_json::to_value(&found)?)),
            false => progress::result(&text(&found, model.config.tokenizer.codes))?,
        }
    }
    match (args.json, several) {
        (false, _) => {}
        (true, true) => progress::json(&objects)?,
        (true, false) => objects.values().try_for_each(progress::json)?,
    }
    if pictures > 0 {
        progress::wrote(pictures, "picture", &args.out);
    } else {
        progress::closing(&format!("shard {}", args.shard.shard), &args.out);
    }
    Ok(())
}

/// A result in words, of a codebook of so many codes.
fn text(found: &RunResult, codes: usize) -> String {
    let RunResult { protocol, measures, details, extractor, .. } = found;
    let table = table(measures);
    match details {
        RunDetails::Generation { samples, reference } => {
            format!(
                "{protocol}: {samples} samples, {reference} in the reference, {extractor}{table}"
            )
        }
        RunDetails::Reconstruction {
            images,
            codebook_usage,
            codebook_entropy_bits,
            row_errors,
        } => {
            let details =
                reconstruction_details(codes, *codebook_usage, *codebook_entropy_bits, row_errors);
            format!("{protocol}: {images} pictures, {extractor}{table}{details}")
        }
    }
}
