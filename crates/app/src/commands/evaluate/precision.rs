//! Arguments of `alitok evaluate precision`

use clap::Args;

use crate::args::{DataArgs, ModelArgs};

/// Say what the packed engine's number formats change, against f32 and against the reference
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate precision --model mini --data bundled:heldout --json

Logits are those of the pictures' own tokens (teacher forcing), without guidance. Divergence is the
mean over tokens of the Kullback-Leibler divergence from f32, in nats. PSNR is that of decoded
pictures against f32's from the same tokens, of values before they become 8 bits. Where a format
changes no value it is infinite, which JSON writes as the text Infinity.")]
pub(crate) struct EvaluatePrecisionArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Take only this many pictures, from all over the data. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: Option<u32>,
    /// How many of the pictures are also compared with the reference on Burn, which is slow; and
    /// how many are drawn with both, with and without guidance.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) reference: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}
