//! `alitok evaluate generation` and `evaluate statistics`

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use metrics::{FeatureExtractor, Purpose};
use pixels::crop::Crop;
use serde_json::Value;

use super::comparison::{self, Reference, Report, STAND_IN, names_validation, statistics};
use crate::{
    commands::evaluate::ExtractorArgs,
    extractor::{self, Pictures},
    progress,
    protocol::Published,
};

/// Compare generated pictures with a reference: FID, sFID, Inception Score, KID, precision, recall
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate generation --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz --extractor inception=pt_inception-2015-12-05-6726825d.pth --protocol
  alitok evaluate generation --samples samples/ --reference bundled --json

FID, sFID, Inception Score (consecutive parts of 5000), precision and recall (3 neighbours) are
those of the guided-diffusion evaluator, KID that of torch-fidelity. gFID is of 50000 samples that
go round the classes, against the training side. The bundled network needs no download, but its
distances are no FID and are never called so.")]
pub(crate) struct EvaluateGenerationArgs {
    /// Pictures of one size: an .npz with `arr_0`, a folder, or another data set.
    #[arg(long)]
    pub(crate) samples: String,
    /// A reference batch (.npz with `arr_0`, or `mu` and `sigma`), statistics (.safetensors), or a
    /// data set, which is cropped to the samples' size.
    #[arg(long)]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Refuse whatever departs from the protocol of gFID, instead of a note.
    #[arg(long)]
    pub(crate) protocol: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write the statistics of a set, to be compared with more than once
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok evaluate statistics --data bundled --purpose generation --out bundled.safetensors")]
pub(crate) struct EvaluateStatisticsArgs {
    /// An .npz with `arr_0`, or a data set.
    #[arg(long)]
    pub(crate) data: String,
    #[command(flatten)]
    pub(crate) extractor: ExtractorArgs,
    /// Side that pictures of a data set are centre-cropped to. Default: all must have one size.
    #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) size: Option<usize>,
    /// What will be compared with them.
    #[arg(long, value_enum)]
    pub(crate) purpose: PurposeName,
    /// The .safetensors file.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What statistics are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PurposeName {
    /// Generated pictures (gFID): a training side.
    Generation,
    /// Reconstructions of the very same pictures (rFID): a validation side.
    Reconstruction,
}

/// Samples that gFID is of.
const SAMPLES: usize = 50_000;

pub(super) fn make_statistics(args: &EvaluateStatisticsArgs, device: &Device) -> Result<()> {
    let pictures = Pictures::open(&args.data)?;
    let extractor = extractor::open(&args.extractor.extractor, device)?;
    if args.purpose == PurposeName::Generation && names_validation(&args.data) {
        comparison::note(&[format!(
            "{} is a validation side by its name; gFID is measured against the training side",
            args.data
        )]);
    }
    let (size, crop) = match args.size {
        Some(size) => ((size, size), Crop::Center),
        None => (pictures.size()?, Crop::Never),
    };
    let seen = extractor::look(&extractor, &pictures, size, crop, "pictures")?;
    let statistics = statistics(&seen, &extractor, Some(args.purpose.into()))?;
    statistics.write(&args.out)?;
    progress::result(&format!(
        "{} pictures, {} features of {}",
        seen.count(),
        statistics.pool.width(),
        extractor.name()
    ))
}

impl From<PurposeName> for Purpose {
    fn from(name: PurposeName) -> Self {
        match name {
            PurposeName::Generation => Self::Generation,
            PurposeName::Reconstruction => Self::Reconstruction,
        }
    }
}

pub(super) fn run(args: &EvaluateGenerationArgs, device: &Device) -> Result<()> {
    let samples = Pictures::open(&args.samples)?;
    let size = samples.size()?;
    let extractor = extractor::open(&args.extractor.extractor, device)?;
    let reference = Reference::open(&args.reference, &extractor)?;
    let mut departures = Vec::new();
    let count = samples.count();
    if count != SAMPLES {
        departures.push(format!(
            "gFID is of {SAMPLES} samples; these are {count}, and fewer make it larger"
        ));
    }
    departures.extend(reference.unfit_for_generation());
    departures.extend(reference.other_size(size)?);
    if !extractor.is_inception() {
        departures.push(STAND_IN.to_owned());
    }
    if args.protocol && !departures.is_empty() {
        bail!("this is not the protocol of gFID: {}", departures.join("; "));
    }
    comparison::note(&departures);

    let seen = extractor::look(&extractor, &samples, size, Crop::Never, "samples")?;
    let reference = reference.see(&extractor, size)?;
    let mut report = Report::new(&extractor, Published::default());
    comparison::compare(&seen, &reference, &mut report)?;
    if args.json {
        let mut object = report.object();
        object.insert("extractor".into(), extractor.name().into());
        object.insert("samples".into(), seen.count().into());
        object.insert("reference".into(), reference.count.into());
        object.insert("departures".into(), departures.into());
        return progress::result(&Value::Object(object).to_string());
    }
    progress::result(&format!(
        "{} samples, {} in the reference, {}{}",
        seen.count(),
        reference.count,
        extractor.name(),
        report.table()
    ))
}
