//! Arguments of `alitok evaluate reconstruction`

use clap::Args;

use super::{ExtractorArgs, LpipsArgs};
use crate::args::{ComputeArgs, DataArgs, DecoderArgs, ModelArgs};

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
