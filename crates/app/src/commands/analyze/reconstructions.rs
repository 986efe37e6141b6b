//! Arguments of `alitok analyze reconstructions`

use std::path::PathBuf;

use clap::Args;

use crate::args::{CropArgs, DecoderName};

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
    pub(crate) region: Option<Square>,
    /// The figure, .png or .svg.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// A part of a picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Square {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) side: usize,
}

fn region(text: &str) -> Result<Square, String> {
    let numbers: Vec<usize> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [left, top, side] if side > 0 && text.split(',').count() == 3 => {
            Ok(Square { left, top, side })
        }
        _ => Err("write LEFT,TOP,SIDE in pixels, like 96,0,64".to_owned()),
    }
}
