//! `alitok evaluate generation` and `evaluate statistics`

use anyhow::{Result, bail};
use burn::tensor::Device;
use metrics::{FeatureExtractor, Purpose};
use pixels::crop::Crop;
use serde_json::Value;

use super::comparison::{self, Reference, Report, STAND_IN, names_validation, statistics};
use crate::{
    args::{EvaluateGenerationArgs, EvaluateStatisticsArgs, PurposeName},
    extractor::{self, Pictures},
    progress,
    protocol::Published,
};

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
