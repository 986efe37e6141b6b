//! `alitok evaluate generation` and `evaluate statistics`

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use evaluation::{comparison::Reference, generation, pictures::Pictures};
use metrics::Purpose;

use super::{ExtractorArgs, open_extractor, table};
use crate::{
    models,
    progress::{self, Watcher},
};

/// Compare generated pictures with a reference: FID, sFID, Inception Score, KID, precision, recall
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate generation --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz --extractor inception=pt_inception-2015-12-05-6726825d.pth --protocol
  alitok evaluate generation --samples samples/ --reference bundled --json

FID, sFID, Inception Score (consecutive parts of 5000), precision and recall (3 neighbours) are
those of the guided-diffusion evaluator, KID that of torch-fidelity. gFID is of 50000 samples that
go round the classes, against the training side. The bundled network needs no download, but its
distances are no FID and are never called so.")]
pub(crate) struct EvaluateGenerationArgs {
    /// Pictures of one size: an .npz with `arr_0`, a folder, or another data set.
    #[arg(long)]
    pub(crate) samples: String,
    /// A reference batch (.npz with `arr_0`, or `mu` and `sigma`), statistics (.safetensors), or a
    /// data set, which is cropped to the samples' size.
    #[arg(long)]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Refuse whatever departs from the protocol of gFID, instead of a note.
    #[arg(long)]
    pub(crate) protocol: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write the statistics of a set, to be compared with more than once
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate statistics --data bundled --purpose generation --out bundled.safetensors")]
pub(crate) struct EvaluateStatisticsArgs {
    /// An .npz with `arr_0`, or a data set.
    #[arg(long)]
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Side that pictures of a data set are centre-cropped to. Default: all must have one size.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=8192))]
    pub(crate) size: Option<usize>,
    /// What will be compared with them.
    #[arg(long, value_enum)]
    pub(crate) purpose: PurposeName,
    /// The .safetensors file.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What statistics are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PurposeName {
    /// Generated pictures (gFID): a training side.
    Generation,
    /// Reconstructions of the very same pictures (rFID): a validation side.
    Reconstruction,
}

impl From<PurposeName> for Purpose {
    fn from(name: PurposeName) -> Self {
        match name {
            PurposeName::Generation => Self::Generation,
            PurposeName::Reconstruction => Self::Reconstruction,
        }
    }
}

pub(super) fn make_statistics(args: &EvaluateStatisticsArgs, device: &Device) -> Result<()> {
    let extractor = open_extractor(&args.extractor.extractor, device)?;
    let purpose = args.purpose.into();
    let watcher = &mut Watcher::default();
    let (statistics, count) = generation::statistics(
        &args.data,
        models::home(),
        args.size,
        purpose,
        &extractor,
        watcher,
    )?;
    statistics.write(&args.out)?;
    progress::result(&format!(
        "{count} pictures, {} features of {}",
        statistics.pool.width(),
        extractor.network()
    ))?;
    progress::closing(&format!("statistics of {count} pictures"), &args.out);
    Ok(())
}

pub(super) fn run(args: &EvaluateGenerationArgs, device: &Device) -> Result<()> {
    let samples = Pictures::open(&args.samples, models::home())?;
    let extractor = open_extractor(&args.extractor.extractor, device)?;
    let reference = Reference::open(&args.reference, models::home(), &extractor)?;
    let watcher = &mut Watcher::default();
    let found = generation::evaluate(&samples, reference, &extractor, args.protocol, watcher)?;
    match args.json {
        true => progress::json(&found)?,
        false => progress::result(&format!(
            "{} samples, {} in the reference, {}{}",
            found.samples,
            found.reference,
            found.extractor,
            table(&found.measures)
        ))?,
    }
    progress::did("measured", found.samples, "picture");
    Ok(())
}
