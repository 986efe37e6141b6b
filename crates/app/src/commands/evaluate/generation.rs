//! Arguments of `alitok evaluate generation` and `evaluate statistics`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ExtractorArgs;

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
