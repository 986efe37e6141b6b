//! `alitok encode`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::{Device, token_file};

use crate::{
    args::{ComputeArgs, CropArgs, ModelArgs},
    images, models,
    progress::{self, Progress},
};

/// Turn pictures into tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok encode photo.jpg other.png --out tokens.safetensors
  alitok encode photos/ --out tokens.safetensors")]
pub(crate) struct EncodeArgs {
    /// Pictures of any size, or folders of them.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// A .safetensors file for `tokens [N, L]` and the pictures' names.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &EncodeArgs, device: Option<Device>) -> Result<()> {
    token_file::check_name(&args.out)?;
    let model = models::open(&args.model.model)?;
    let encoder = args.compute.compute(device)?.encoder(&model)?;
    let images = images::find(&args.images)?;
    let mut progress = Progress::new("encoding", images.len() as u64);
    let mut tokens = Vec::new();
    for image in &images {
        let picture = images::read(&image.path, encoder.config().image, &args.crop)?;
        tokens.push(encoder.encode(&picture)?);
        progress.set(tokens.len() as u64);
    }
    progress.finish();
    let names: Vec<String> =
        images.iter().map(|image| image.name.to_string_lossy().into_owned()).collect();
    token_file::write_named(&args.out, &tokens, None, Some(&names))?;
    progress::wrote(tokens.len(), "picture", &args.out);
    Ok(())
}
