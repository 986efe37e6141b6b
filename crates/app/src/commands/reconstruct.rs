//! `alitok reconstruct`

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use pipeline::{
    Device,
    samples::{make_folder, numbered},
};

use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, ModelArgs},
    images, models, progress,
};

/// Turn pictures into tokens and back, and say what was lost
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok reconstruct photo.jpg --out rebuilt/ --decoder causal")]
pub(crate) struct ReconstructArgs {
    /// Pictures of any size.
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
    /// Folder for the pictures.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &ReconstructArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let compute = args.compute.compute(device)?;
    let decoder = compute.decoder(&model, args.decoder.kind())?;
    let encoder = compute.encoder(&model)?;
    let image = encoder.config().image;
    // Before any work: each input must be readable, and no output may overwrite one.
    let pictures = args
        .images
        .iter()
        .map(|path| images::read(path, image, &args.crop))
        .collect::<Result<Vec<_>>>()?;
    let outputs: Vec<_> =
        (0..pictures.len()).map(|index| numbered(&args.out, index, pictures.len())).collect();
    let same = |a: &Path, b: &Path| {
        a.canonicalize().ok().is_some_and(|a| b.canonicalize().ok() == Some(a))
    };
    for output in outputs.iter().filter(|output| output.exists()) {
        ensure!(
            !args.images.iter().any(|input| same(input, output)),
            "{} is one of the pictures to reconstruct; give another --out",
            output.display()
        );
    }
    make_folder(&args.out)?;
    for ((path, picture), output) in args.images.iter().zip(&pictures).zip(outputs) {
        let rebuilt = decoder.decode(&encoder.encode(picture)?)?;
        rebuilt.write_png(&output)?;
        let psnr = metrics::psnr(picture.rgb(), rebuilt.rgb())?;
        let ssim = metrics::ssim(picture.rgb(), rebuilt.rgb(), image.width, image.height, 3)?;
        progress::result(&format!("{}  PSNR {psnr:.2} dB  SSIM {ssim:.4}", path.display()))?;
    }
    Ok(())
}
