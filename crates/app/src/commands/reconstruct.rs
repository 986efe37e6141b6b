//! `alitok reconstruct`

use std::{collections::HashSet, path::PathBuf};

use anyhow::Result;
use burn::tensor::Device;

use crate::{args::ReconstructArgs, images, model, progress};

pub(crate) fn run(args: &ReconstructArgs, device: &Device) -> Result<()> {
    let model = model::open(&args.model.model)?;
    let decoding = model::decoding(&model, &args.decoder, device)?;
    let encoder = decoding.tokenizer.frozen_encoder();
    let image = encoder.config().image;
    // Before any work: each input must be readable, and none may overwrite another's output.
    let pictures = args
        .images
        .iter()
        .map(|path| images::read(path, image, &args.crop))
        .collect::<Result<Vec<_>>>()?;
    let names = names(&args.images);
    images::make_folder(&args.out)?;
    for ((path, picture), name) in args.images.iter().zip(&pictures).zip(names) {
        let rebuilt = decoding.picture(&images::encode(&encoder, picture))?;
        rebuilt.write_png(args.out.join(&name))?;
        let size = (image.width, image.height);
        let psnr = metrics::psnr(picture.rgb(), rebuilt.rgb())?;
        let ssim = metrics::ssim(picture.rgb(), rebuilt.rgb(), size.0, size.1, 3)?;
        progress::result(&format!("{}  PSNR {psnr:.2} dB  SSIM {ssim:.4}", path.display()))?;
    }
    Ok(())
}

/// A PNG's name for each picture: its own, with its number where two are called the same.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut taken = HashSet::new();
    paths
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let mut name = format!("{stem}.png");
            if !taken.insert(name.clone()) {
                name = format!("{stem}-{index:04}.png");
                taken.insert(name.clone());
            }
            name
        })
        .collect()
}
