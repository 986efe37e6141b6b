//! `alitok import`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::inspect;
use crate::args::StorageName;

/// Make a model folder from the authors' released weights
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok import AliTok.pth alitok_b.bin --out models/alitok-b")]
pub(crate) struct ImportArgs {
    /// The tokenizer: .pth, .bin, .pt or .safetensors.
    pub(crate) tokenizer: PathBuf,
    /// The generator.
    pub(crate) generator: Option<PathBuf>,
    /// How to store the weights.
    #[arg(long, value_enum, default_value_t = StorageName::F32)]
    pub(crate) precision: StorageName,
    /// The model folder to make.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    let generator = args.generator.as_deref();
    let model = weights::import(&args.tokenizer, generator, &args.out, args.precision.into())?;
    inspect::describe(&model)
}
