//! `alitok evaluate reconstruction`

use anyhow::Result;
use clap::Args;
use evaluation::{
    comparison::Reference,
    pictures::open_data,
    reconstruction::{self, Rebuilder},
};
use pipeline::Device;

use super::{ExtractorArgs, LpipsArgs, open_extractor, open_lpips, reconstruction_details, table};
use crate::{
    args::{ComputeArgs, DataArgs, DecoderArgs, ModelArgs},
    models,
    progress::{self, Watcher},
    reference,
};

/// Reconstruct a data set: PSNR, SSIM, distance to the originals, codebook, error of each row
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate reconstruction --data bundled:heldout --model mini

PSNR and SSIM are means over pictures of 8-bit values. SSIM is of 11 x 11 Gaussian windows (sigma
1.5) that lie inside, a channel at a time, range 255. LPIPS is version 0.1 at the pictures' own
size. rFID compares with the very same pictures. JSON has no infinite numbers: there the PSNR of
identical pictures is the text Infinity. Pictures of another size are centre-cropped as ADM does.
Reconstructions of training pictures against a reference for generation (--per-class 50 --reference
R) are the limit that a tokenizer sets to gFID (paper, A.1).")]
pub(crate) struct EvaluateReconstructionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) lpips: LpipsArgs,
    /// Compare with a reference for generation, too.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Take so many pictures of each class, chosen by --seed. Default: all.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) per_class: Option<usize>,
    /// Seed of that choice.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) fn run(args: &EvaluateReconstructionArgs, device: Option<Device>) -> Result<()> {
    let source = &args.data.data;
    let data = open_data(source, args.per_class, args.seed, models::home())?;
    let model = models::open(&args.model.model)?;
    let burn_device = reference::networks(device)?;
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
