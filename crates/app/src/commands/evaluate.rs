//! `alitok evaluate`

mod generation;

use anyhow::{Context, Result};
use metrics::{FeatureExtractor, Mean, frechet_distance};
use pixels::{Picture, crop::Crop};

use crate::{
    args::{EvaluateReconstructionArgs, EvaluateVerb},
    compute::Compute,
    device::DeviceName,
    extractor::{self, Seen},
    model,
    progress::{self, Progress},
};

pub(crate) fn run(verb: &EvaluateVerb, device: DeviceName) -> Result<()> {
    match verb {
        EvaluateVerb::Generation(args) => generation::run(args, &device.device()),
        EvaluateVerb::Statistics(args) => generation::make_statistics(args, &device.device()),
        EvaluateVerb::Reconstruction(args) => reconstruction(args, device),
    }
}

fn reconstruction(args: &EvaluateReconstructionArgs, device: DeviceName) -> Result<()> {
    let data = pixels::data::open(&args.data.data)?;
    let model = model::open(&args.model.model)?;
    let compute = Compute::new(&args.compute, device)?;
    let decoding = compute.decoding(&model, &args.decoder)?;
    let encoding = compute.encoding(&model)?;
    let config = encoding.config();
    let size = (config.image.width, config.image.height);
    let extractor = extractor::open(&args.extractor.extractor, &device.device())?;
    let (mut psnr, mut ssim) = (Mean::default(), Mean::default());
    let mut used = vec![0_u64; config.codes];
    let patch = config.patch;
    let mut row_errors = vec![0_u64; size.1 / patch];
    let (mut originals, mut rebuilds) = (None, None);
    // Networks take several pictures at a time.
    let mut waiting: (Vec<Picture>, Vec<Picture>) = Default::default();
    let mut see = |waiting: &mut (Vec<Picture>, Vec<Picture>)| -> Result<()> {
        for (seen, pictures) in [(&mut originals, &mut waiting.0), (&mut rebuilds, &mut waiting.1)]
        {
            let found = extractor
                .features(&extractor::images(pictures))
                .map_err(|error| anyhow::anyhow!(error))?;
            Seen::add(seen, found)?;
            pictures.clear();
        }
        Ok(())
    };
    let mut progress = Progress::new("reconstructing", data.len() as u64);
    for index in 0..data.len() {
        let picture = Crop::Center.fit(data.picture(index)?, size.0, size.1, data.name(index))?;
        let tokens = encoding.tokens(&picture);
        for &token in &tokens {
            used[usize::from(token)] += 1;
        }
        let rebuilt = decoding.picture(&tokens)?;
        psnr.add(metrics::psnr(picture.rgb(), rebuilt.rgb())?);
        ssim.add(metrics::ssim(picture.rgb(), rebuilt.rgb(), size.0, size.1, 3)?);
        let row = 3 * size.0 * patch;
        let rows = picture.rgb().chunks(row).zip(rebuilt.rgb().chunks(row));
        for (error, (one, other)) in row_errors.iter_mut().zip(rows) {
            let squares = one.iter().zip(other).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2));
            *error += squares.sum::<u64>();
        }
        waiting.0.push(picture);
        waiting.1.push(rebuilt);
        if waiting.0.len() == extractor::BATCH {
            see(&mut waiting)?;
        }
        progress.set(index as u64 + 1);
    }
    if !waiting.0.is_empty() {
        see(&mut waiting)?;
    }
    progress.finish();
    let distance = match (&originals, &rebuilds) {
        (Some(originals), Some(rebuilds)) if data.len() > 1 => Some(frechet_distance(
            &rebuilds.pool_moments.gaussian()?,
            &originals.pool_moments.gaussian()?,
        )?),
        _ => None,
    };
    let values_in_row = (data.len() * 3 * size.0 * patch) as f64;
    // In the unit range, as training's loss is.
    let row_errors: Vec<f64> =
        row_errors.iter().map(|&error| error as f64 / values_in_row / (255.0 * 255.0)).collect();
    let tokens: u64 = used.iter().sum();
    let entropy: f64 = used
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| count as f64 / tokens as f64)
        .map(|probability| -probability * probability.log2())
        .sum();
    let (key, title) = match extractor.is_inception() {
        true => ("rfid", "rFID"),
        false => ("lite_frechet_distance", "distance (Lite0, no FID)"),
    };
    let (psnr, ssim) = (psnr.value().unwrap_or_default(), ssim.value().unwrap_or_default());
    let usage = used.iter().filter(|&&count| count > 0).count() as f64 / config.codes as f64;
    if args.json {
        let mut object = serde_json::json!({
            "images": data.len(),
            "decoder": decoding.kind.name(),
            "psnr": psnr,
            "ssim": ssim,
            "codebook_usage": usage,
            "codebook_entropy_bits": entropy,
            "row_errors": row_errors,
            "extractor": extractor.name(),
        });
        object[key] = distance.into();
        return progress::result(&object.to_string());
    }
    let mut text = format!(
        "{} pictures, {} decoder\n\
         PSNR                      {psnr:.2} dB (mean over pictures)\n\
         SSIM                      {ssim:.4}\n\
         codebook usage            {:.1} %\n\
         codebook entropy          {entropy:.2} of {:.2} bits",
        data.len(),
        decoding.kind,
        100.0 * usage,
        (config.codes as f64).log2(),
    );
    if let Some(distance) = distance {
        text.push_str(&format!("\n{title:<26}{distance:.4}"));
    }
    let first = row_errors.first().context("a picture has rows")?;
    let others = row_errors.iter().skip(1).sum::<f64>() / (row_errors.len() - 1).max(1) as f64;
    text.push_str(&format!(
        "\nerror of the first row    {first:.5} (mean of the others {others:.5})"
    ));
    progress::result(&text)
}
