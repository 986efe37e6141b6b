//! `alitok data`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use clap::Subcommand;
use pipeline::samples::make_folder;
use pixels::{
    DataSet, Picture, bundle,
    crop::{center_crop, ten_crop},
    loader::BadSample,
    survey::{Lengths, survey},
};

use crate::{
    progress::{self, Progress},
    tuning,
};

/// Look at data, and rebuild the bundled data set
#[derive(Debug, Subcommand)]
pub(crate) enum DataVerb {
    /// Write the crops of a picture that training and caching see
    #[command(after_help = "Example:
  alitok data crops photo.jpg --size 256 --ten-crop --out crops/")]
    Crops {
        /// The picture.
        image: PathBuf,
        /// Side of a crop, in pixels.
        #[arg(long)]
        size: usize,
        /// The ten crops instead of the centre.
        #[arg(long)]
        ten_crop: bool,
        /// Folder for `0.png` and so on.
        #[arg(long)]
        out: PathBuf,
    },
    /// Read every picture of a data set: counts per class, sizes, and what cannot be read
    #[command(after_help = "Example:
  alitok data inspect /data/imagenet/train --sheet sheet.png")]
    Inspect {
        /// `bundled`, `bundled:heldout`, a folder, or a path or pattern of shards.
        data: String,
        /// PNG file for pictures from all over the data set.
        #[arg(long)]
        sheet: Option<PathBuf>,
        /// Fail at the first picture that cannot be read.
        #[arg(long)]
        strict: bool,
    },
    /// Rebuild the bundled data set from the npm package emoji-datasource-google 16.0.0
    #[command(after_help = "Example:
  npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
  alitok data bundle package --out data/noto-emoji-64.tar")]
    Bundle {
        /// The unpacked package.
        package: PathBuf,
        /// The tar file.
        #[arg(long)]
        out: PathBuf,
    },
}

pub(crate) fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Crops { image, size, ten_crop, out } => crops(image, *size, *ten_crop, out),
        DataVerb::Inspect { data, sheet, strict } => inspect(data, sheet.as_deref(), *strict),
        DataVerb::Bundle { package, out } => {
            let summary = bundle::build(package, out)?;
            for class in &summary.classes {
                let (name, train, held_out) = (&class.class, class.train, class.held_out);
                progress::result(&format!("{name:20} {train:5} to learn {held_out:4} held out"))?;
            }
            progress::result(&format!("{} bytes in {}", summary.bytes, out.display()))
        }
    }
}

fn crops(image: &Path, size: usize, ten: bool, out: &Path) -> Result<()> {
    let picture = Picture::read(image)?;
    let crops = if ten { ten_crop(&picture, size)? } else { vec![center_crop(&picture, size)?] };
    make_folder(out)?;
    for (index, crop) in crops.iter().enumerate() {
        crop.write_png(out.join(format!("{index}.png")))?;
    }
    Ok(())
}

fn inspect(source: &str, sheet: Option<&Path>, strict: bool) -> Result<()> {
    let data: Arc<dyn DataSet> = pixels::data::open(source, crate::models::home())?.into();
    let threads = tuning::threads();
    let mut progress = Progress::new("reading", data.len() as u64);
    let survey = survey(Arc::clone(&data), threads, strict, |read| progress.set(read as u64))?;
    progress.finish();

    for (class, count) in data.classes().iter().zip(&survey.counts) {
        progress::result(&format!("{class:30} {count:9}"))?;
    }
    progress::result(&format!(
        "{} pictures in {} classes, {} unreadable",
        data.len(),
        data.classes().len(),
        survey.unreadable
    ))?;
    for (side, lengths) in [("width", survey.widths), ("height", survey.heights)] {
        if let Some(Lengths { smallest, median, largest }) = lengths {
            progress::result(&format!("{side} {smallest} to {largest} pixels, median {median}"))?;
        }
    }
    for BadSample { index, error } in &survey.listed {
        progress::result(&format!("unreadable: {}: {error}", data.name(*index)))?;
    }
    if let (Some(path), Some(picture)) = (sheet, &survey.contact_sheet) {
        picture.write_png(path)?;
    }
    Ok(())
}
