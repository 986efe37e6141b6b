//! `alitok encode`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::{Device, token_file};

use crate::{
    args::{ComputeArgs, CropArgs, ModelArgs},
    images, models,
    progress::Progress,
};

/// Turn pictures into tokens
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok encode photo.jpg other.png --out tokens.safetensors")]
pub(crate) struct EncodeArgs {
    /// Pictures of any size.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// A .safetensors file for `tokens [N, L]`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &EncodeArgs, device: Option<Device>) -> Result<()> {
    token_file::check_name(&args.out)?;
    let model = models::open(&args.model.model)?;
    let encoder = args.compute.compute(device)?.encoder(&model)?;
    let mut progress = Progress::new("encoding", args.images.len() as u64);
    let mut tokens = Vec::new();
    for path in &args.images {
        let picture = images::read(path, encoder.config().image, &args.crop)?;
        tokens.push(encoder.encode(&picture)?);
        progress.set(tokens.len() as u64);
    }
    progress.finish();
    Ok(token_file::write(&args.out, &tokens, None)?)
}
