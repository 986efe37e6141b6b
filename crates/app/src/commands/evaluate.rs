//! `alitok evaluate`

use anyhow::Result;
use burn::tensor::Device;
use metrics::Mean;
use pixels::crop::Crop;

use crate::{
    args::{EvaluateReconstructionArgs, EvaluateVerb},
    images, model,
    progress::{self, Progress},
};

pub(crate) fn run(verb: &EvaluateVerb, device: &Device) -> Result<()> {
    match verb {
        EvaluateVerb::Reconstruction(args) => reconstruction(args, device),
    }
}

fn reconstruction(args: &EvaluateReconstructionArgs, device: &Device) -> Result<()> {
    let data = pixels::data::open(&args.data.data)?;
    let model = model::open(&args.model.model)?;
    let decoding = model::decoding(&model, &args.decoder, device)?;
    let encoder = decoding.tokenizer.frozen_encoder();
    let config = encoder.config();
    let size = (config.image.width, config.image.height);
    let (mut psnr, mut ssim) = (Mean::default(), Mean::default());
    let mut used = vec![false; config.codes];
    let mut progress = Progress::new("reconstructing", data.len() as u64);
    for index in 0..data.len() {
        let picture = Crop::Center.fit(data.picture(index)?, size.0, size.1, data.name(index))?;
        let tokens = images::encode(&encoder, &picture);
        for &token in &tokens {
            used[usize::from(token)] = true;
        }
        let rebuilt = decoding.picture(&tokens)?;
        psnr.add(metrics::psnr(picture.rgb(), rebuilt.rgb())?);
        ssim.add(metrics::ssim(picture.rgb(), rebuilt.rgb(), size.0, size.1, 3)?);
        progress.set(index as u64 + 1);
    }
    progress.finish();
    let (psnr, ssim) = (psnr.value().unwrap_or_default(), ssim.value().unwrap_or_default());
    let usage = used.iter().filter(|&&used| used).count() as f64 / config.codes as f64;
    if args.json {
        let object = serde_json::json!({
            "images": data.len(),
            "decoder": decoding.kind.name(),
            "psnr": psnr,
            "ssim": ssim,
            "codebook_usage": usage,
        });
        return progress::result(&object.to_string());
    }
    progress::result(&format!(
        "{} pictures, {} decoder\nPSNR            {psnr:.2} dB (mean over pictures)\n\
         SSIM            {ssim:.4}\ncodebook usage  {:.1} %",
        data.len(),
        decoding.kind,
        100.0 * usage
    ))
}
