//! What sets of pictures are compared with, by which measures, and how that is told.

use anyhow::{Context, Result, bail, ensure};
use metrics::{
    FeatureExtractor, FeatureMatrix, KernelSubsets, NumpyBatch, Purpose, ScoreSplits, Statistics,
    frechet_distance, inception_score, kernel_distance, precision_recall,
};
use pixels::crop::Crop;
use serde_json::{Map, Value};

use crate::{
    extractor::{self, Extractor, Pictures, Seen},
    progress,
    protocol::Published,
};

/// Neighbours that the manifolds of precision and recall reach to.
pub(super) const NEIGHBOURS: usize = 3;

/// What to remember about distances of the bundled network.
pub(super) const STAND_IN: &str = "the bundled network stands in for Inception; its distances are \
                                   no FID and compare with nothing but each other";

/// Statistics of a set that a network saw.
pub(super) fn statistics(
    seen: &Seen,
    extractor: &Extractor,
    purpose: Option<Purpose>,
) -> Result<Statistics> {
    Ok(Statistics {
        purpose,
        extractor: Some(extractor.name().to_owned()),
        digest: Some(extractor.digest().to_owned()),
        pool: seen.pool_gaussian()?,
        spatial: seen.spatial_gaussian()?,
    })
}

/// What samples are compared with.
pub(super) struct Reference {
    source: String,
    statistics: Option<Statistics>,
    pictures: Option<Pictures>,
}

impl Reference {
    /// Opens what `--reference` names. Nothing is computed yet.
    pub(super) fn open(source: &str, extractor: &Extractor) -> Result<Self> {
        let name = source.to_lowercase();
        let named = source.to_owned();
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
            return Ok(Self { source: named, statistics: Some(statistics), pictures: None });
        }
        if !name.ends_with(".npz") {
            let pictures = Some(Pictures::open(source)?);
            return Ok(Self { source: named, statistics: None, pictures });
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
        Ok(Self { source: named, statistics, pictures })
    }

    /// As many pictures of each class, where a number is given.
    pub(super) fn balanced(mut self, per_class: Option<usize>, seed: u64) -> Result<Self> {
        if per_class.is_some() {
            let pictures = self.pictures.take();
            let pictures = pictures
                .with_context(|| format!("{} holds no pictures to choose from", self.source))?;
            self.pictures = Some(pictures.balanced(&self.source, per_class, seed)?);
            self.statistics = None;
        }
        Ok(self)
    }

    /// Why this is no reference for gFID.
    pub(super) fn unfit_for_generation(&self) -> Option<String> {
        let purpose = self.statistics.as_ref().and_then(|statistics| statistics.purpose);
        let unfit = purpose == Some(Purpose::Reconstruction)
            || (purpose.is_none() && names_validation(&self.source));
        unfit.then(|| {
            format!(
                "{} is a reference for rFID (a validation side); gFID is measured against the \
                 training side",
                self.source
            )
        })
    }

    /// Why pictures of this size are not compared with it, if it says a size.
    pub(super) fn other_size(&self, (width, height): (usize, usize)) -> Result<Option<String>> {
        let Some(Pictures::Batch(_)) = &self.pictures else { return Ok(None) };
        let size = match &self.pictures {
            Some(pictures) => pictures.size()?,
            None => return Ok(None),
        };
        Ok((size != (width, height)).then(|| {
            format!(
                "the pictures of {} have {} x {} pixels, these have {width} x {height}",
                self.source, size.0, size.1
            )
        }))
    }

    /// Shows its pictures, if there are some, to the network that sees the samples.
    pub(super) fn see(self, extractor: &Extractor, size: (usize, usize)) -> Result<SeenReference> {
        let seen = match &self.pictures {
            Some(pictures) => {
                Some(extractor::look(extractor, pictures, size, Crop::Center, "reference")?)
            }
            None => None,
        };
        let statistics = match (self.statistics, &seen) {
            (Some(statistics), _) => statistics,
            (None, Some(seen)) => statistics(seen, extractor, None)?,
            (None, None) => bail!("{} has nothing to compare with", self.source),
        };
        let count = match (statistics.pool.count, &seen) {
            (0, Some(seen)) => seen.count() as u64,
            (count, _) => count,
        };
        Ok(SeenReference { statistics, seen, count })
    }
}

/// Whether a name says that it is a validation side, whose pictures rFID is measured against.
pub(super) fn names_validation(source: &str) -> bool {
    source
        .split(|letter: char| !letter.is_alphanumeric())
        .any(|word| ["val", "validation", "heldout"].contains(&word.to_lowercase().as_str()))
}

/// A reference after the network saw it.
pub(super) struct SeenReference {
    pub(super) statistics: Statistics,
    seen: Option<Seen>,
    /// Pictures that the statistics are of.
    pub(super) count: u64,
}

impl SeenReference {
    /// All rows of its pictures' pooled features, where it has pictures.
    pub(super) fn pool(&self) -> Option<&FeatureMatrix> {
        self.seen.as_ref().and_then(Seen::pool)
    }

    /// A number that another reference hardly has: the sum of the mean's bits.
    pub(super) fn checksum(&self) -> u64 {
        let bits = self.statistics.pool.mean.iter().map(|value| value.to_bits());
        bits.fold(0, |sum: u64, bits| sum.rotate_left(1).wrapping_add(bits))
    }
}

/// One number with its name in the table and in JSON.
struct Line {
    key: String,
    title: String,
    value: f64,
    published: Option<f64>,
}

/// Names numbers: those of Inception as the field does, others after their network.
pub(super) struct Report {
    is_inception: bool,
    published: Published,
    lines: Vec<Line>,
}

impl Report {
    pub(super) fn new(extractor: &Extractor, published: Published) -> Self {
        Self { is_inception: extractor.is_inception(), published, lines: Vec::new() }
    }

    /// Adds a number that hangs on the network; `other` is its key and title with the bundled one.
    pub(super) fn add(&mut self, key: &str, title: &str, other: (&str, &str), value: f64) {
        let (key, title) = if self.is_inception { (key, title) } else { other };
        self.add_plain(key, title, value);
    }

    /// Adds a number that no network has a part in, or only the one that its name says.
    pub(super) fn add_plain(&mut self, key: &str, title: &str, value: f64) {
        let published = self.published.get(key);
        self.lines.push(Line { key: key.to_owned(), title: title.to_owned(), value, published });
    }

    /// All numbers, and what was published of them.
    pub(super) fn object(&self) -> Map<String, Value> {
        let mut object: Map<String, Value> = self
            .lines
            .iter()
            .map(|line| (line.key.clone(), metrics::json::number(line.value)))
            .collect();
        let published: Map<String, Value> = self
            .lines
            .iter()
            .filter_map(|line| Some((line.key.clone(), line.published?.into())))
            .collect();
        if !published.is_empty() {
            object.insert("published".to_owned(), published.into());
        }
        object
    }

    /// A line a number, the measured beside the published.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if self.lines.iter().any(|line| line.published.is_some()) {
            text.push_str(&format!("\n{:<34}{:>12}{:>12}", "", "measured", "published"));
        }
        for Line { title, value, published, .. } in &self.lines {
            text.push_str(&format!("\n{title:<34}{value:>12.4}"));
            if let Some(published) = published {
                text.push_str(&format!("{published:>12}"));
            }
        }
        text
    }
}

/// Compares what a network saw of samples with what it saw of a reference.
pub(super) fn compare(seen: &Seen, reference: &SeenReference, report: &mut Report) -> Result<()> {
    report.add(
        "fid",
        "FID",
        ("lite_frechet_distance", "Fréchet distance (Lite0, no FID)"),
        frechet_distance(&seen.pool_gaussian()?, &reference.statistics.pool)?,
    );
    if let (Some(ours), Some(theirs)) = (&seen.spatial_gaussian()?, &reference.statistics.spatial) {
        report.add_plain("sfid", "sFID", frechet_distance(ours, theirs)?);
    }
    if let Some(logits) = seen.logits() {
        let score = inception_score(logits, ScoreSplits::GUIDED_DIFFUSION)?;
        report.add_plain("inception_score", "Inception Score", score.mean);
        if let Ok(score) = inception_score(logits, ScoreSplits::TORCH_FIDELITY) {
            let title = "  (as torch-fidelity)";
            report.add_plain("inception_score_torch_fidelity", title, score.mean);
        }
    }
    if let (Some(ours), Some(theirs)) = (seen.pool(), reference.pool()) {
        let few = theirs.rows().min(ours.rows());
        if few >= KernelSubsets::TORCH_FIDELITY.size {
            let score = kernel_distance(ours, theirs, KernelSubsets::TORCH_FIDELITY)?;
            let other = ("lite_kernel_distance", "kernel distance (Lite0, no KID)");
            report.add("kid", "KID", other, score.mean);
        }
        if few > NEIGHBOURS {
            let found = precision_recall(theirs, ours, NEIGHBOURS)?;
            let other = ("lite_precision", "precision (Lite0)");
            report.add("precision", "Precision", other, found.precision);
            report.add("recall", "Recall", ("lite_recall", "recall (Lite0)"), found.recall);
        }
    }
    Ok(())
}

/// Says loudly what is not as it should be.
pub(super) fn note(departures: &[String]) {
    for departure in departures {
        progress::note(&format!("NOTE: {departure}"));
    }
}
