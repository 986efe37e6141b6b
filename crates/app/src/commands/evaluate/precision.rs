//! `alitok evaluate precision`

use anyhow::Result;
use clap::Args;
use evaluation::precision;

use crate::{
    args::{DataArgs, ModelArgs},
    models,
    progress::{self, Watcher},
    sources, tuning,
};

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

pub(super) fn run(args: &EvaluatePrecisionArgs) -> Result<()> {
    let data = sources::open(&args.data.data, false)?;
    let model = models::open(&args.model.model)?;
    let pictures = args.pictures.map(|count| count as usize);
    let reference = args.reference as usize;
    let (pool, watcher) = (tuning::pool(), &mut Watcher::default());
    let found = precision::evaluate(&model, &*data, pictures, reference, &pool, watcher)?;
    if args.json {
        progress::json(&found)?;
        progress::did("measured", found.pictures, "picture");
        return Ok(());
    }
    let mut lines = vec![format!("{} pictures, {} tokens", found.pictures, found.tokens)];
    let all = serde_json::to_value(&found)?;
    for format in ["f32", "bf16", "int8", "int4"] {
        lines.push(format.to_owned());
        for (name, value) in all[format].as_object().into_iter().flatten() {
            lines.push(format!("  {:<34} {value}", name.replace('_', " ")));
        }
    }
    progress::result(&lines.join("\n"))?;
    progress::did("measured", found.pictures, "picture");
    Ok(())
}
