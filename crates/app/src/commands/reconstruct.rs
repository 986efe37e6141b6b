//! `alitok reconstruct`

use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use clap::Args;
use pipeline::{
    Device,
    samples::{check_pictures, make_folder},
};

use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, ModelArgs, ReplaceArgs},
    images, models, progress,
};

/// Turn pictures into tokens and back, and say what was lost
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok reconstruct photo.jpg --out rebuilt/ --decoder causal
  alitok reconstruct photos/ --out rebuilt/")]
pub(crate) struct ReconstructArgs {
    /// Pictures of any size, or folders of them.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// Folder for the pictures, which keep their names.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

pub(crate) fn run(args: &ReconstructArgs, device: Option<Device>) -> Result<()> {
    // Before any work.
    check_pictures(&args.out, args.replace.replace, &args.images)?;
    let images = images::find(&args.images)?;
    let model = models::open(&args.model.model)?;
    let compute = args.compute.compute(device)?;
    let decoder = compute.decoder(&model, args.decoder.kind())?;
    let encoder = compute.encoder(&model)?;
    let size = encoder.config().image;
    let mut found: Vec<(f64, f64)> = Vec::new();
    files::replace_folder::<Error>(&args.out, |folder| {
        for image in &images {
            let picture = images::read(&image.path, size, &args.crop)?;
            let rebuilt = decoder.decode(&encoder.encode(&picture)?)?;
            let path = image.png(folder);
            make_folder(path.parent().unwrap_or(folder))?;
            rebuilt.write_png(&path)?;
            let psnr = metrics::psnr(picture.rgb(), rebuilt.rgb())?;
            let ssim = metrics::ssim(picture.rgb(), rebuilt.rgb(), size.width, size.height, 3)?;
            let name = image.path.display();
            progress::result(&format!("{name}  PSNR {psnr:.2} dB  SSIM {ssim:.4}"))?;
            found.push((psnr, ssim));
        }
        Ok(())
    })
    .with_context(|| format!("nothing was written to {}", args.out.display()))?;
    let mean =
        |number: fn(&(f64, f64)) -> f64| found.iter().map(number).sum::<f64>() / found.len() as f64;
    let (psnr, ssim) = (mean(|found| found.0), mean(|found| found.1));
    let plural = if found.len() == 1 { "" } else { "s" };
    progress::closing(
        &format!("{} picture{plural}, mean PSNR {psnr:.2} dB, SSIM {ssim:.4},", found.len()),
        &args.out,
    );
    Ok(())
}
