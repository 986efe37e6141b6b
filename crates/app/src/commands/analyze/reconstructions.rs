//! `alitok analyze reconstructions`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use evaluation::analysis::reconstructions::{Comparison, Region};
use pipeline::Device;

use crate::{
    args::{ComputeArgs, CropArgs, DecoderName},
    images, models, progress,
};

/// Pictures beside their reconstructions, with a part enlarged (paper, Figs. 7 and 10)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok analyze reconstructions photo.jpg other.png --out reconstructions.png
  alitok analyze reconstructions photo.jpg --model A --model B --region 96,0,64 --out F.svg")]
pub(crate) struct AnalyzeReconstructionsArgs {
    /// Pictures of any size.
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// `mini` (bundled), or a model folder, or a run. Given again, the figure has columns for each.
    #[arg(long = "model", value_name = "MODEL", default_value = "mini")]
    pub(crate) models: Vec<String>,
    /// One decoder. Default: all that a model has.
    #[arg(long, value_enum)]
    pub(crate) decoder: Option<DecoderName>,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    /// The part to enlarge. Default: a quarter of the side, where the last column is worst.
    #[arg(long, value_name = "LEFT,TOP,SIDE", value_parser = region)]
    pub(crate) region: Option<Region>,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

fn region(text: &str) -> Result<Region, String> {
    let numbers: Vec<usize> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [left, top, side] if side > 0 && text.split(',').count() == 3 => {
            Ok(Region { left, top, side })
        }
        _ => Err("write LEFT,TOP,SIDE in pixels, like 96,0,64".to_owned()),
    }
}

pub(crate) fn run(args: &AnalyzeReconstructionsArgs, device: Option<Device>) -> Result<()> {
    let compute = ComputeArgs::default().compute(device)?;
    let open = |name: &String| Ok((name.clone(), models::open(name)?));
    let models = args.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    let comparison = Comparison::open(&models, args.decoder.map(Into::into), &compute)?;
    let mut all = Vec::new();
    for path in &args.images {
        let original = images::read(path, comparison.image(), &args.crop)?;
        let compared = comparison.compare(&original, args.region)?;
        let (name, Region { left, top, side }) = (path.display(), compared.region);
        progress::result(&format!("{name}: enlarged {side} x {side} pixels at {left},{top}"))?;
        all.push(compared);
    }
    comparison.figure(all).write(&args.out)?;
    progress::wrote(1, "figure", &args.out);
    Ok(())
}
