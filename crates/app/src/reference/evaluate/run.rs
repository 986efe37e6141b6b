//! `alitok evaluate run`

use anyhow::Result;
use evaluation::run::{Evaluation, RunDetails, RunOptions, RunResult};
use pipeline::Device;
use serde_json::Map;

use super::{open_extractor, open_lpips, reconstruction_details, table};
use crate::{
    commands::evaluate::run::EvaluateRunArgs,
    models, progress,
    reference::{device, watcher::Watcher},
};

pub(super) fn run(args: &EvaluateRunArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let compute = args.compute.compute(device)?;
    let device = device::networks(device)?;
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
