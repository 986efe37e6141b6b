//! `alitok import`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use weights::{ImportOptions, Imported, WeightsChoice};

use super::inspect;
use crate::{
    args::{ReplaceArgs, StorageName, WeightsName},
    models, progress,
};

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
    /// Which weights to take where a file holds them and their moving average. Default: raw, which is
    /// said.
    #[arg(long, value_enum)]
    pub(crate) weights: Option<WeightsName>,
    /// The model folder to make.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    models::check_out(&args.out, args.replace, &[])?;
    let generator = args.generator.as_deref();
    let options = ImportOptions {
        format: args.precision.into(),
        weights: args.weights.map(WeightsChoice::from),
    };
    let Imported { model, notes } =
        weights::import(&args.tokenizer, generator, &args.out, options)?;
    for note in notes {
        progress::note(&note);
    }
    inspect::describe(&model)?;
    progress::wrote(1, "model", &args.out);
    Ok(())
}
