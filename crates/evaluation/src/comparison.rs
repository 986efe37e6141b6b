//! What sets of pictures are compared with, by which measures, and the numbers beside published ones.

use std::path::Path;

use files::Home;
use metrics::{
    FeatureMatrix, KernelSubsets, NumpyBatch, Purpose, ScoreSplits, Statistics, frechet_distance,
    inception_score, kernel_distance, precision_recall,
};
use pixels::crop::Crop;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{
    EvaluationError, Observer,
    extractor::{Extractor, FeatureKind, Measure, Name, Naming, Quantity},
    pictures::{self, Pictures, Seen},
    protocol::Published,
};

/// Neighbours that the manifolds of precision and recall reach to.
pub const NEIGHBOURS: usize = 3;

/// Statistics of a set that a network saw.
///
/// # Errors
/// If there are too few pictures.
pub fn statistics(
    seen: &Seen,
    extractor: &Extractor,
    purpose: Option<Purpose>,
) -> Result<Statistics, EvaluationError> {
    Ok(Statistics {
        purpose,
        extractor: Some(extractor.network().to_owned()),
        digest: Some(extractor.digest().to_owned()),
        pool: seen.pool_gaussian()?,
        spatial: seen.gaussian(FeatureKind::Spatial)?,
    })
}

/// What samples are compared with.
#[derive(Debug)]
pub struct Reference {
    source: String,
    statistics: Option<Statistics>,
    pictures: Option<Pictures>,
}

impl Reference {
    /// Opens a reference batch (`.npz` with `arr_0`, or `mu` and `sigma`), statistics
    /// (`.safetensors`), or a data set, a bundled one below `home`. Nothing is computed yet.
    ///
    /// # Errors
    /// If there is no such thing, or it is of another network.
    pub fn open(source: &str, home: &Home, extractor: &Extractor) -> Result<Self, EvaluationError> {
        let name = source.to_lowercase();
        let named = source.to_owned();
        if name.ends_with(".safetensors") {
            let statistics = Statistics::read(source)?;
            for (what, theirs, ours) in [
                ("made by the network", &statistics.extractor, extractor.network()),
                ("made by weights of the digest", &statistics.digest, extractor.digest()),
            ] {
                if let Some(theirs) = theirs
                    && theirs != ours
                {
                    let problem = format!(
                        "was {what} {theirs}, the samples are seen by {ours}; make it anew"
                    );
                    return Err(EvaluationError::content(Path::new(source), problem));
                }
            }
            return Ok(Self { source: named, statistics: Some(statistics), pictures: None });
        }
        if !name.ends_with(".npz") {
            let pictures = Some(Pictures::open(source, home)?);
            return Ok(Self { source: named, statistics: None, pictures });
        }
        let batch = NumpyBatch::open(source)?;
        let takes_statistics = extractor.description().has_field_statistics;
        let statistics = batch.statistics().filter(|_| takes_statistics).cloned();
        let has_pictures = batch.images().is_some_and(|[count, ..]| count > 0);
        let pictures = has_pictures.then(|| Pictures::Batch(Box::new(batch)));
        if statistics.is_none() && pictures.is_none() {
            let problem = "holds statistics of Inception only; give --extractor inception=FILE, or \
                           reference pictures";
            return Err(EvaluationError::content(Path::new(source), problem));
        }
        Ok(Self { source: named, statistics, pictures })
    }

    /// Keeps `per_class` pictures of each class, chosen by the seed; all of them without a number.
    ///
    /// # Errors
    /// If a class has fewer, or there are no pictures to choose from.
    pub fn balanced(
        mut self,
        per_class: Option<usize>,
        seed: u64,
    ) -> Result<Self, EvaluationError> {
        if per_class.is_some() {
            let pictures = self.pictures.take().ok_or_else(|| {
                let problem = format!("{} holds no pictures to choose from", self.source);
                EvaluationError::Impossible(problem)
            })?;
            self.pictures = Some(pictures.balanced(&self.source, per_class, seed)?);
            self.statistics = None;
        }
        Ok(self)
    }

    /// Why this is no reference for gFID.
    pub fn unfit_for_generation(&self) -> Option<String> {
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

    /// Why pictures of this width and height are not compared with it, if its own have another size.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn other_size(
        &self,
        (width, height): (usize, usize),
    ) -> Result<Option<String>, EvaluationError> {
        // Pictures of a data set are cropped.
        let Some(pictures @ Pictures::Batch(_)) = &self.pictures else { return Ok(None) };
        let size = pictures.size()?;
        Ok((size != (width, height)).then(|| {
            format!(
                "the pictures of {} have {} x {} pixels, these have {width} x {height}",
                self.source, size.0, size.1
            )
        }))
    }

    /// Shows its pictures, if it has any, to the network that sees the samples.
    ///
    /// # Errors
    /// If a picture cannot be read, or there are too few.
    pub fn see(
        self,
        extractor: &Extractor,
        size: (usize, usize),
        observer: &mut dyn Observer,
    ) -> Result<SeenReference, EvaluationError> {
        let see = |pictures| {
            pictures::see(extractor, pictures, size, Crop::Center, "reference", observer)
        };
        let seen = self.pictures.as_ref().map(see).transpose()?;
        let statistics = match (self.statistics, &seen) {
            (Some(statistics), _) => statistics,
            (None, Some(seen)) => statistics(seen, extractor, None)?,
            (None, None) => {
                let problem = format!("{} has nothing to compare with", self.source);
                return Err(EvaluationError::Impossible(problem));
            }
        };
        let count = match (statistics.pool.count, &seen) {
            (0, Some(seen)) => seen.count() as u64,
            (count, _) => count,
        };
        Ok(SeenReference { statistics, seen, count })
    }
}

/// Whether a name says that it is a validation side, whose pictures rFID is measured against.
pub fn names_validation(source: &str) -> bool {
    source
        .split(|letter: char| !letter.is_alphanumeric())
        .any(|word| ["val", "validation", "heldout"].contains(&word.to_lowercase().as_str()))
}

/// A reference after the network saw it.
#[derive(Debug)]
pub struct SeenReference {
    /// Moments of its features.
    pub statistics: Statistics,
    seen: Option<Seen>,
    /// Pictures that the statistics are of.
    pub count: u64,
}

impl SeenReference {
    /// All rows of its pictures' features, where it has pictures.
    pub fn rows(&self, kind: FeatureKind) -> Option<&FeatureMatrix> {
        self.seen.as_ref().and_then(|seen| seen.rows(kind))
    }

    /// A number that another reference is unlikely to have: the sum of the mean's bits.
    pub(crate) fn checksum(&self) -> u64 {
        let bits = self.statistics.pool.mean.iter().map(|value| value.to_bits());
        bits.fold(0, |sum: u64, bits| sum.rotate_left(1).wrapping_add(bits))
    }
}

/// A measured number, with the published one beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its name in JSON.
    pub key: String,
    /// Its name in a table.
    pub title: String,
    /// The number.
    pub value: f64,
    /// What others published, if the protocol says it.
    pub published: Option<f64>,
}

/// Measured numbers in the order of a report. Serialized, they are a map of keys to numbers, with a
/// map `published` if any number has a published one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures {
    /// The numbers.
    pub measured: Vec<Measured>,
    published: Published,
}

impl Measures {
    /// Without numbers; beside them will stand those that were published.
    pub fn new(published: Published) -> Self {
        Self { measured: Vec::new(), published }
    }

    /// Adds a number that depends on a network, under the name that the network allows.
    pub fn add(&mut self, naming: Naming, quantity: Quantity, value: f64) {
        let Name { key, title } = naming.name(quantity);
        self.add_plain(key, title, value);
    }

    /// Adds a number under a name of its own.
    pub fn add_plain(&mut self, key: impl Into<String>, title: impl Into<String>, value: f64) {
        let (key, title) = (key.into(), title.into());
        let published = self.published.get(&key);
        self.measured.push(Measured { key, title, value, published });
    }

    /// The number with this key.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.measured.iter().find(|measured| measured.key == key).map(|measured| measured.value)
    }
}

impl Serialize for Measures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for measured in &self.measured {
            map.serialize_entry(&measured.key, &metrics::json::number(measured.value))?;
        }
        let published: std::collections::BTreeMap<&str, f64> = self
            .measured
            .iter()
            .filter_map(|measured| Some((measured.key.as_str(), measured.published?)))
            .collect();
        if !published.is_empty() {
            map.serialize_entry("published", &published)?;
        }
        map.end()
    }
}

/// Compares what a network saw of samples with what it saw of a reference, by the measures that the
/// network's features serve.
///
/// # Errors
/// If there are too few pictures, or statistics are damaged.
pub fn compare(
    seen: &Seen,
    reference: &SeenReference,
    extractor: &Extractor,
    measures: &mut Measures,
) -> Result<(), EvaluationError> {
    let description = extractor.description();
    let mut add = |quantity, value| measures.add(description.naming, quantity, value);
    for &(measure, kind) in description.measures {
        match measure {
            Measure::Distance => {
                let ours = seen.pool_gaussian()?;
                add(Quantity::Distance, frechet_distance(&ours, &reference.statistics.pool)?);
            }
            Measure::SpatialDistance => {
                let theirs = reference.statistics.spatial.as_ref();
                if let (Some(ours), Some(theirs)) = (seen.gaussian(kind)?, theirs) {
                    add(Quantity::SpatialDistance, frechet_distance(&ours, theirs)?);
                }
            }
            Measure::Score => {
                let Some(logits) = seen.rows(kind) else { continue };
                let score = inception_score(logits, ScoreSplits::GUIDED_DIFFUSION)?;
                add(Quantity::Score, score.mean);
                if let Ok(score) = inception_score(logits, ScoreSplits::TORCH_FIDELITY) {
                    add(Quantity::ScoreOfTorchFidelity, score.mean);
                }
            }
            Measure::KernelDistance => {
                let (Some(ours), Some(theirs)) = (seen.rows(kind), reference.rows(kind)) else {
                    continue;
                };
                if theirs.rows().min(ours.rows()) >= KernelSubsets::TORCH_FIDELITY.size {
                    let score = kernel_distance(ours, theirs, KernelSubsets::TORCH_FIDELITY)?;
                    add(Quantity::KernelDistance, score.mean);
                }
            }
            Measure::PrecisionRecall => {
                let (Some(ours), Some(theirs)) = (seen.rows(kind), reference.rows(kind)) else {
                    continue;
                };
                if theirs.rows().min(ours.rows()) > NEIGHBOURS {
                    let found = precision_recall(theirs, ours, NEIGHBOURS)?;
                    add(Quantity::Precision, found.precision);
                    add(Quantity::Recall, found.recall);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_put_published_numbers_beside_those_of_the_same_name_only() {
        let published = Published { fid: Some(1.5), psnr: Some(20.5), ..Published::default() };
        let own = Naming::Own { key: "lite", title: "Lite0" };
        let mut measures = Measures::new(published);
        measures.add(own, Quantity::Distance, 2.0);
        measures.add_plain("psnr", "PSNR, dB", 21.0);
        let object = serde_json::to_value(&measures).unwrap();
        let expected = serde_json::json!({
            "lite_frechet_distance": 2.0,
            "psnr": 21.0,
            "published": { "psnr": 20.5 },
        });
        assert_eq!(object, expected);
        let mut measures = Measures::new(published);
        measures.add(Naming::Fid, Quantity::Distance, 2.0);
        assert_eq!(measures.measured[0].published, Some(1.5));
        assert_eq!(measures.get("fid"), Some(2.0));
    }

    #[test]
    fn should_know_validation_sides_by_name() {
        for name in ["bundled:heldout", "/data/imagenet/val", "VAL/x.tar", "a-validation.npz"] {
            assert!(names_validation(name), "{name}");
        }
        for name in ["bundled", "/data/valuable", "train"] {
            assert!(!names_validation(name), "{name}");
        }
    }
}
