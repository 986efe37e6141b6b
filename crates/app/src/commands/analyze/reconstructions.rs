//! `alitok analyze reconstructions`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use charts::{Figure, Picture as PicturePanel};
use clap::Args;
use pipeline::Device;
use pixels::Picture;
use tokenizer::DecoderKind;

use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, DecoderName},
    compute::{Compute, Decoding, Encoding},
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

/// A square of pixels: left, top, side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region(pub(crate) [usize; 3]);

fn region(text: &str) -> Result<Region, String> {
    let numbers: Vec<usize> = text.split(',').filter_map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [left, top, side] if side > 0 && text.split(',').count() == 3 => {
            Ok(Region([left, top, side]))
        }
        _ => Err("write LEFT,TOP,SIDE in pixels, like 96,0,64".to_owned()),
    }
}

/// A column of the comparison.
struct Column {
    title: String,
    /// Which of the encoders.
    encoder: usize,
    decoding: Decoding,
}

pub(crate) fn run(args: &AnalyzeReconstructionsArgs, device: Option<Device>) -> Result<()> {
    let compute = ComputeArgs::default();
    let compute = Compute::new(&compute, device)?;
    let mut encoders: Vec<Encoding> = Vec::new();
    let mut columns = Vec::new();
    for name in &args.models {
        let folder = models::open(name)?;
        encoders.push(compute.encoding(&folder)?);
        let config = &folder.config.tokenizer;
        let kinds = match args.decoder {
            Some(decoder) => vec![decoder],
            None => [
                (DecoderKind::Causal, DecoderName::Causal),
                (DecoderKind::Bidirectional, DecoderName::Bidirectional),
            ]
            .into_iter()
            .filter(|&(kind, _)| config.decoder(kind).is_ok())
            .map(|(_, name)| name)
            .collect(),
        };
        for kind in kinds {
            let decoding = compute.decoding(&folder, &DecoderArgs { decoder: Some(kind) })?;
            let title = format!("{name}, {}", decoding.kind);
            columns.push(Column { title, encoder: encoders.len() - 1, decoding });
        }
    }
    let sizes: Vec<_> = encoders.iter().map(|encoder| encoder.config().image).collect();
    let image = sizes[0];
    ensure!(
        sizes.iter().all(|&other| other == image),
        "the models take pictures of different sizes; compare those of one size"
    );
    let mut panels = Vec::new();
    for path in &args.images {
        let original = images::read(path, image, &args.crop)?;
        let mut rebuilt = Vec::new();
        for column in &columns {
            let tokens = encoders[column.encoder].tokens(&original);
            rebuilt.push(column.decoding.picture(&tokens)?);
        }
        let region = match args.region {
            Some(region) => {
                let [left, top, side] = region.0;
                ensure!(
                    left + side <= image.width && top + side <= image.height,
                    "--region {left},{top},{side} reaches beyond the picture of {} x {} pixels",
                    image.width,
                    image.height
                );
                region.0
            }
            None => worst(
                &original,
                rebuilt.iter().next_back(),
                image.width.min(image.height).div_ceil(4),
            ),
        };
        let [left, top, side] = region;
        let mut row = vec![("original".to_owned(), &original)];
        for (column, rebuilt) in columns.iter().zip(&rebuilt) {
            let psnr = metrics::psnr(original.rgb(), rebuilt.rgb())?;
            row.push((format!("{}, {psnr:.1} dB", column.title), rebuilt));
        }
        for (title, picture) in &row {
            let mut panel = panel(title.clone(), picture);
            panel.boxes = vec![[left, top, side, side]];
            panels.push(panel);
        }
        for (_, picture) in &row {
            panels.push(panel(String::new(), &cut(picture, region)?));
        }
        let name = path.display();
        progress::result(&format!("{name}: enlarged {side} x {side} pixels at {left},{top}"))?;
    }
    let figure = Figure::new(panels).with_columns(columns.len() + 1);
    figure.with_panel_size(280, 300).write(&args.out)?;
    progress::result(&format!("figure in {}", args.out.display()))
}

fn panel(title: String, picture: &Picture) -> PicturePanel {
    PicturePanel::new(title, picture.width(), picture.height(), picture.rgb())
}

/// The square of this side, on a lattice of quarters of it, where a reconstruction is farthest
/// from the original.
fn worst(original: &Picture, rebuilt: Option<&Picture>, side: usize) -> [usize; 3] {
    let Some(rebuilt) = rebuilt else { return [0, 0, side] };
    let (width, height) = (original.width(), original.height());
    let step = (side / 4).max(1);
    let error = |left: usize, top: usize| -> u64 {
        (top..top + side)
            .flat_map(|row| {
                let pixels = 3 * (row * width + left)..3 * (row * width + left + side);
                original.rgb()[pixels.clone()].iter().zip(&rebuilt.rgb()[pixels])
            })
            .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
            .sum()
    };
    let mut largest = (0, [0, 0, side]);
    for top in (0..=height - side).step_by(step) {
        for left in (0..=width - side).step_by(step) {
            let error = error(left, top);
            if error > largest.0 {
                largest = (error, [left, top, side]);
            }
        }
    }
    largest.1
}

fn cut(picture: &Picture, [left, top, side]: [usize; 3]) -> Result<Picture> {
    let rows = (top..top + side).flat_map(|row| {
        let start = 3 * (row * picture.width() + left);
        &picture.rgb()[start..start + 3 * side]
    });
    Ok(Picture::new(side, side, rows.copied().collect())?)
}
