//! `alitok data`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use charts::Sheet;
use clap::Subcommand;
use pipeline::samples::{check_pictures, write_folder};
use pixels::{
    DataSet, Picture, bundle,
    crop::{center_crop, ten_crop},
    data::{LeftOut, refuse_losses},
    loader::BadSample,
    shapes,
    survey::{Lengths, SHEET_COLUMNS, survey},
};

use crate::{
    args::ReplaceArgs,
    progress::{self, Progress},
    sheet, tuning,
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
        #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=8192))]
        size: usize,
        /// The ten crops instead of the centre.
        #[arg(long)]
        ten_crop: bool,
        /// Folder for `0.png` and so on.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        replace: ReplaceArgs,
    },
    /// Read every picture of a data set: counts per class, sizes, and what cannot be read or is
    /// left out
    #[command(after_help = "Example:
  alitok data inspect /data/imagenet/train --sheet sheet.png")]
    Inspect {
        /// `bundled`, `bundled:emoji` or their other sides (`bundled:heldout`, `bundled:emoji:heldout`),
        /// a folder, `FOLDER@LABELS`, or a path or pattern of shards; docs/data.md has the rules.
        data: String,
        /// PNG file for pictures from all over the data set.
        #[arg(long)]
        sheet: Option<PathBuf>,
        /// Draw each pixel of the sheet as a square of N x N pixels.
        #[arg(long, value_name = "N", requires = "sheet", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
        scale: u16,
        /// Write the class below each picture of the sheet.
        #[arg(long, requires = "sheet")]
        captions: bool,
        /// Fail at the first picture that cannot be read, and for samples without picture or class.
        #[arg(long)]
        strict: bool,
    },
    /// Make a data set of coloured shapes with captions, to see whether a model binds words to pictures
    ///
    /// The captions are of GenEval's six tasks: one object, two objects, counting, colours, position and
    /// attribute binding. The folder gets `train.tar`; `heldout.tar`, with other pictures of the same
    /// combinations of words, and with combinations that nothing in `train.tar` shows, which
    /// `heldout.txt` lists; and `prompts.jsonl`, the prompts of `heldout.tar` with their meaning.
    #[command(after_help = "Example:
  alitok data shapes --out shapes/
  alitok data inspect shapes/train.tar --sheet sheet.png --captions")]
    Shapes {
        /// Folder for the set.
        #[arg(long)]
        out: PathBuf,
        /// Pictures to learn from.
        #[arg(long, default_value_t = shapes::DEFAULT_TRAIN)]
        count: usize,
        /// Held-out pictures of each task: so many of combinations in `train.tar`, so many of others.
        #[arg(long, value_name = "COUNT", default_value_t = shapes::DEFAULT_HELD_OUT)]
        heldout: usize,
        /// Side of a picture, in pixels.
        #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(32..=1024))]
        size: usize,
        /// What prompts, places, sizes and colours come from.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        replace: ReplaceArgs,
    },
    /// Rebuild a bundled data set from the npm packages that its pictures are in
    ///
    /// From emoji-datasource-google alone it makes the set `bundled`, Noto Emoji by category; from that,
    /// emoji-datasource-twitter and @lobehub/fluent-emoji-3d the set `bundled:emoji`, with captions.
    #[command(after_help = "Examples:
  npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
  alitok data bundle package --out data/noto-emoji-64.tar

  alitok data bundle google/package twitter/package fluent/package --out data/emoji-64.tar")]
    Bundle {
        /// The unpacked package, or all three.
        #[arg(required = true, num_args = 1..=3)]
        packages: Vec<PathBuf>,
        /// The tar file.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Unreadable pictures that are named; more are counted.
const MOST_NAMED: usize = 20;

pub(crate) fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Crops { image, size, ten_crop, out, replace } => {
            crops(image, *size, *ten_crop, out, replace.replace)
        }
        DataVerb::Inspect { data, sheet, scale, captions, strict } => {
            inspect(data, sheet.as_deref(), usize::from(*scale), *captions, *strict)
        }
        DataVerb::Shapes { out, count, heldout, size, seed, replace } => {
            let options =
                shapes::Options { train: *count, held_out: *heldout, size: *size, seed: *seed };
            make_shapes(out, options, replace.replace)
        }
        DataVerb::Bundle { packages, out } => {
            let summary = match &packages[..] {
                [package] => bundle::build(package, out)?,
                packages => bundle::build_captioned(packages, out)?,
            };
            for class in &summary.classes {
                let (name, train, held_out) = (&class.class, class.train, class.held_out);
                progress::result(&format!("{name:20} {train:5} to learn {held_out:4} held out"))?;
            }
            progress::result(&format!("{} bytes in {}", summary.bytes, out.display()))?;
            let pictures = summary.classes.iter().map(|class| class.train + class.held_out).sum();
            progress::wrote(pictures, "picture", out);
            Ok(())
        }
    }
}

fn make_shapes(out: &Path, options: shapes::Options, replace: bool) -> Result<()> {
    files::output::check_folder(out, replace, &|name, _| shapes::is_of_a_set(name), &[])?;
    let total = options.pictures();
    let mut progress = Progress::new("drawing", total as u64);
    write_folder(out, |folder| {
        Ok(shapes::write(folder, options, |drawn| progress.set(drawn as u64))?)
    })?;
    progress.finish();
    progress::wrote(total, "picture", out);
    Ok(())
}

fn crops(image: &Path, size: usize, ten: bool, out: &Path, replace: bool) -> Result<()> {
    check_pictures(out, replace, &[image.to_owned()])?;
    let picture = Picture::read(image)?;
    let crops = if ten { ten_crop(&picture, size)? } else { vec![center_crop(&picture, size)?] };
    write_folder(out, |folder| {
        for (index, crop) in crops.iter().enumerate() {
            crop.write_png(folder.join(format!("{index}.png")))?;
        }
        Ok(())
    })?;
    progress::wrote(crops.len(), "picture", out);
    Ok(())
}

fn inspect(
    source: &str,
    sheet: Option<&Path>,
    scale: usize,
    captions: bool,
    strict: bool,
) -> Result<()> {
    let data: Arc<dyn DataSet> = pixels::data::open(source, crate::models::home())?.into();
    if strict {
        refuse_losses(source, data.as_ref())?;
    }
    let threads = tuning::threads();
    let mut progress = Progress::new("reading", data.len() as u64);
    let survey = survey(Arc::clone(&data), threads, strict, |read| progress.set(read as u64))?;
    progress.finish();

    for (class, count) in data.classes().iter().zip(&survey.counts) {
        progress::result(&format!("{class:30} {count:9}"))?;
    }
    let count = |is_sample: bool| -> usize {
        let groups = data.left_out().iter().filter(|group| group.is_sample == is_sample);
        groups.map(|group| group.count).sum()
    };
    progress::result(&format!(
        "{} pictures in {} classes, {} unreadable, {} left out, {} other files passed over",
        data.len(),
        data.classes().len(),
        survey.unreadable,
        count(true),
        count(false),
    ))?;
    for (side, lengths) in [("width", survey.widths), ("height", survey.heights)] {
        if let Some(Lengths { smallest, median, largest }) = lengths {
            progress::result(&format!("{side} {smallest} to {largest} pixels, median {median}"))?;
        }
    }
    for BadSample { index, error } in survey.listed.iter().take(MOST_NAMED) {
        progress::result(&format!("unreadable: {}: {error}", data.name(*index)))?;
    }
    if let more @ 1.. = survey.unreadable.saturating_sub(MOST_NAMED) {
        progress::result(&format!("unreadable: and {more} more"))?;
    }
    for LeftOut { reason, is_sample, count, names } in data.left_out() {
        let what = if *is_sample { "left out" } else { "passed over" };
        for name in names {
            progress::result(&format!("{what}: {name}: {reason}"))?;
        }
        if let more @ 1.. = count - names.len() {
            progress::result(&format!("{what}: and {more} more: {reason}"))?;
        }
    }
    progress::result(&format!("read as: {}", data.read_as()))?;
    if let Some(path) = sheet
        && !survey.shown.is_empty()
    {
        let class = |index: usize| data.classes().get(data.label(index)).filter(|_| captions);
        let tiles = survey.shown.iter().map(|(index, picture)| {
            sheet::tile(class(*index).map_or("", |class| &class[..]), picture)
        });
        let sheet =
            Sheet { pictures: tiles.collect(), columns: SHEET_COLUMNS, scale, ..Sheet::default() };
        sheet::picture(&sheet)?.write_png(path)?;
        progress::wrote(survey.shown.len(), "picture", path);
    } else {
        progress::did("read", survey.readable, "picture");
    }
    Ok(())
}
