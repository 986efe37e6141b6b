//! `alitok evaluate generation` and `evaluate statistics`

use anyhow::{Result, bail, ensure};
use burn::tensor::Device;
use metrics::{
    FeatureExtractor, KernelSubsets, NumpyBatch, Purpose, ScoreSplits, Statistics,
    frechet_distance, inception_score, kernel_distance, precision_recall,
};
use pixels::crop::Crop;
use serde_json::{Map, Value};

use crate::{
    args::{EvaluateGenerationArgs, EvaluateStatisticsArgs, PurposeName},
    extractor::{self, Extractor, Pictures, Seen},
    progress,
};

/// Samples that gFID is of.
const SAMPLES: usize = 50_000;
/// Neighbours that the manifolds of precision and recall reach to.
const NEIGHBOURS: usize = 3;

/// Statistics of a set that a network saw.
fn statistics(seen: &Seen, extractor: &Extractor, purpose: Option<Purpose>) -> Result<Statistics> {
    Ok(Statistics {
        purpose,
        extractor: Some(extractor.name().to_owned()),
        digest: Some(extractor.digest().to_owned()),
        pool: seen.pool_moments.gaussian()?,
        spatial: match &seen.spatial_moments {
            Some(moments) => Some(moments.gaussian()?),
            None => None,
        },
    })
}

pub(super) fn make_statistics(args: &EvaluateStatisticsArgs, device: &Device) -> Result<()> {
    let pictures = Pictures::open(&args.data)?;
    let extractor = extractor::open(&args.extractor.extractor, device)?;
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

/// What samples are compared with.
#[derive(Default)]
struct Reference {
    statistics: Option<Statistics>,
    pictures: Option<Pictures>,
}

impl Reference {
    fn open(source: &str, extractor: &Extractor) -> Result<Self> {
        let name = source.to_lowercase();
        if name.ends_with(".safetensors") {
            let statistics = Statistics::read(source)?;
            for (what, theirs, ours) in [
                ("made by the network", &statistics.extractor, extractor.name()),
                ("made by weights of the digest", &statistics.digest, extractor.digest()),
            ] {
                if let Some(theirs) = theirs
                    && theirs != ours
                {
                    bail!(
                        "{source} was {what} {theirs}, the samples are seen by {ours}; make it anew"
                    );
                }
            }
            return Ok(Self { statistics: Some(statistics), pictures: None });
        }
        if !name.ends_with(".npz") {
            return Ok(Self { pictures: Some(Pictures::open(source)?), ..Self::default() });
        }
        let batch = NumpyBatch::open(source)?;
        // The field's statistics are Inception's.
        let statistics = batch.statistics().filter(|_| extractor.is_inception()).cloned();
        let has_pictures = batch.images().is_some_and(|[count, ..]| count > 0);
        let pictures = has_pictures.then(|| Pictures::Batch(Box::new(batch)));
        ensure!(
            statistics.is_some() || pictures.is_some(),
            "{source} holds statistics of Inception only; give --extractor inception=FILE, or \
             reference pictures"
        );
        Ok(Self { statistics, pictures })
    }
}

/// Whether a name says that it is a validation side, whose pictures rFID is measured against.
fn names_validation(source: &str) -> bool {
    source
        .split(|letter: char| !letter.is_alphanumeric())
        .any(|word| ["val", "validation", "heldout"].contains(&word.to_lowercase().as_str()))
}

/// Why the numbers are not those of the protocol.
fn departures(
    args: &EvaluateGenerationArgs,
    count: usize,
    extractor: &Extractor,
    reference: &Reference,
) -> Vec<String> {
    let mut found = Vec::new();
    if count != SAMPLES {
        found.push(format!(
            "gFID is of {SAMPLES} samples; these are {count}, and fewer make it larger"
        ));
    }
    let purpose = reference.statistics.as_ref().and_then(|statistics| statistics.purpose);
    if purpose == Some(Purpose::Reconstruction)
        || (purpose.is_none() && names_validation(&args.reference))
    {
        found.push(format!(
            "{} is a reference for rFID (a validation side); gFID is measured against the \
             training side",
            args.reference
        ));
    }
    if !extractor.is_inception() {
        found.push(
            "the bundled network stands in for Inception; its distances are no FID and compare \
             with nothing but each other"
                .to_owned(),
        );
    }
    found
}

/// One number with its name in the table and in JSON.
struct Line {
    key: String,
    title: String,
    value: f64,
}

/// Names numbers: those of Inception as the field does, others after their network.
struct Report {
    is_inception: bool,
    lines: Vec<Line>,
}

impl Report {
    fn add(&mut self, key: &str, title: &str, other: (&str, &str), value: f64) {
        let (key, title) = if self.is_inception { (key, title) } else { other };
        self.lines.push(Line { key: key.to_owned(), title: title.to_owned(), value });
    }
}

pub(super) fn run(args: &EvaluateGenerationArgs, device: &Device) -> Result<()> {
    let samples = Pictures::open(&args.samples)?;
    let extractor = extractor::open(&args.extractor.extractor, device)?;
    let reference = Reference::open(&args.reference, &extractor)?;
    let departures = departures(args, samples.count(), &extractor, &reference);
    if args.protocol && !departures.is_empty() {
        bail!("this is not the protocol of gFID: {}", departures.join("; "));
    }
    for departure in &departures {
        progress::note(&format!("NOTE: {departure}"));
    }

    let size = samples.size()?;
    let seen = extractor::look(&extractor, &samples, size, Crop::Never, "samples")?;
    let compared = match &reference.pictures {
        Some(pictures) => {
            Some(extractor::look(&extractor, pictures, size, Crop::Center, "reference")?)
        }
        None => None,
    };
    let ours = statistics(&seen, &extractor, None)?;
    let theirs = match (reference.statistics, &compared) {
        (Some(statistics), _) => statistics,
        (None, Some(compared)) => statistics(compared, &extractor, None)?,
        (None, None) => bail!("{} has nothing to compare with", args.reference),
    };

    let mut report = Report { is_inception: extractor.is_inception(), lines: Vec::new() };
    report.add(
        "fid",
        "FID",
        ("lite_frechet_distance", "Fréchet distance (Lite0, no FID)"),
        frechet_distance(&ours.pool, &theirs.pool)?,
    );
    if let (Some(ours), Some(theirs)) = (&ours.spatial, &theirs.spatial) {
        report.add("sfid", "sFID", ("", ""), frechet_distance(ours, theirs)?);
    }
    if let Some(logits) = &seen.logits {
        let score = inception_score(logits, ScoreSplits::GUIDED_DIFFUSION)?;
        report.add("inception_score", "Inception Score", ("", ""), score.mean);
        if let Ok(score) = inception_score(logits, ScoreSplits::TORCH_FIDELITY) {
            let title = "  (as torch-fidelity)";
            report.add("inception_score_torch_fidelity", title, ("", ""), score.mean);
        }
    }
    if let Some(compared) = &compared {
        let few = compared.count().min(seen.count());
        if few >= KernelSubsets::TORCH_FIDELITY.size {
            let score = kernel_distance(&seen.pool, &compared.pool, KernelSubsets::TORCH_FIDELITY)?;
            let other = ("lite_kernel_distance", "kernel distance (Lite0, no KID)");
            report.add("kid", "KID", other, score.mean);
        }
        if few > NEIGHBOURS {
            let found = precision_recall(&compared.pool, &seen.pool, NEIGHBOURS)?;
            let other = ("lite_precision", "precision (Lite0)");
            report.add("precision", "Precision", other, found.precision);
            report.add("recall", "Recall", ("lite_recall", "recall (Lite0)"), found.recall);
        }
    }

    let reference_count = match (theirs.pool.count, &compared) {
        (0, Some(compared)) => compared.count() as u64,
        (count, _) => count,
    };
    if args.json {
        let mut object = Map::new();
        for line in &report.lines {
            object.insert(line.key.clone(), line.value.into());
        }
        object.insert("extractor".into(), extractor.name().into());
        object.insert("samples".into(), seen.count().into());
        object.insert("reference".into(), reference_count.into());
        object.insert("departures".into(), departures.into());
        return progress::result(&Value::Object(object).to_string());
    }
    let mut text = format!(
        "{} samples, {reference_count} in the reference, {}",
        seen.count(),
        extractor.name()
    );
    for Line { title, value, .. } in &report.lines {
        text.push_str(&format!("\n{title:<34}{value:.4}"));
    }
    progress::result(&text)
}
