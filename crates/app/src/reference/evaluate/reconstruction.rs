//! `alitok evaluate reconstruction`

use anyhow::Result;
use evaluation::{
    comparison::Reference,
    pictures::open_data,
    reconstruction::{self, Rebuilder},
};
use pipeline::Device;

use super::{open_extractor, open_lpips, reconstruction_details, table};
use crate::{
    commands::evaluate::reconstruction::EvaluateReconstructionArgs,
    models, progress,
    reference::{device, watcher::Watcher},
};

pub(super) fn run(args: &EvaluateReconstructionArgs, device: Option<Device>) -> Result<()> {
    let source = &args.data.data;
    let data = open_data(source, args.per_class, args.seed, models::home())?;
    let model = models::open(&args.model.model)?;
    let burn_device = device::networks(device)?;
    let extractor = open_extractor(&args.extractor.extractor, &burn_device)?;
    let lpips = args.lpips.networks.iter().map(|name| open_lpips(name, &burn_device));
    let perceptual = lpips.collect::<Result<Vec<_>, _>>()?;
    let compared =
        args.reference.as_deref().map(|name| Reference::open(name, models::home(), &extractor));
    let compute = args.compute.compute(device)?;
    let rebuilder = Rebuilder {
        data: data.as_ref(),
        encoder: &*compute.encoder(&model)?,
        decoder: &*compute.decoder(&model, args.decoder.kind())?,
        extractor: &extractor,
        perceptual: &perceptual,
    };
    let watcher = &mut Watcher::default();
    let found = reconstruction::evaluate(source, &rebuilder, compared.transpose()?, watcher)?;
    if args.json {
        progress::json(&found)?;
        progress::did("measured", found.images, "picture");
        return Ok(());
    }
    let details = reconstruction_details(
        model.config.tokenizer.codes,
        found.codebook_usage,
        found.codebook_entropy_bits,
        &found.row_errors,
    );
    progress::result(&format!(
        "{} pictures, {} decoder{}{details}",
        found.images,
        found.decoder.unwrap_or_default(),
        table(&found.measures)
    ))?;
    progress::did("measured", found.images, "picture");
    Ok(())
}
