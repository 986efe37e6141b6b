//! The networks that pictures are compared by: which of their features serve which measure, and what
//! the measures are called.
//!
//! A new network is one entry of [`EXTRACTORS`] (and, to be loaded by name, one of `networks`): the
//! measures, reports and figures read everything from it.

use std::{error::Error, fmt};

use metrics::{
    FeatureExtractor, FeatureMatrix, Features, Images,
    extractor::{INCEPTION, LITE},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::EvaluationError;

/// Pictures that go through a network together. Always this many: products on the CPU add in an order
/// that depends on the number of rows, and a picture's features must not depend on its batch.
pub const BATCH: usize = 8;

/// Which of a network's [`Features`] are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureKind {
    /// Pooled features.
    Pool,
    /// Spatial features.
    Spatial,
    /// Logits of classes.
    Logits,
}

impl FeatureKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Pool, Self::Spatial, Self::Logits];

    /// The name of these features in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Spatial => "spatial",
            Self::Logits => "logits",
        }
    }

    /// These features, where a network has them.
    pub fn of(self, features: &Features) -> Option<&FeatureMatrix> {
        match self {
            Self::Pool => Some(&features.pool),
            Self::Spatial => features.spatial.as_ref(),
            Self::Logits => features.logits.as_ref(),
        }
    }
}

/// A measure of sets of pictures by a network's features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Fréchet distance.
    Distance,
    /// Fréchet distance of features that keep places.
    SpatialDistance,
    /// Inception Score.
    Score,
    /// Kernel distance.
    KernelDistance,
    /// Precision and recall.
    PrecisionRecall,
}

impl Measure {
    /// Whether it needs the features of every picture, not only their mean and covariance.
    pub const fn needs_rows(self) -> bool {
        matches!(self, Self::Score | Self::KernelDistance | Self::PrecisionRecall)
    }
}

/// A number of a report that depends on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Fréchet distance of samples from a reference.
    Distance,
    /// Fréchet distance of spatial features.
    SpatialDistance,
    /// Inception Score as guided-diffusion's evaluator computes it.
    Score,
    /// Inception Score as torch-fidelity computes it.
    ScoreOfTorchFidelity,
    /// Kernel distance of samples from a reference.
    KernelDistance,
    /// Fraction of samples that lie within the reference.
    Precision,
    /// Fraction of the reference that lies within the samples.
    Recall,
    /// Distance of reconstructions from their originals, where it is what is asked for.
    ReconstructionDistance,
    /// Distance of reconstructions from their originals, reported beside one from another reference.
    OwnDistance,
    /// Distance of reconstructions from a reference of generation.
    ReconstructionsFromReference,
    /// Distance of the originals from a reference of generation.
    OriginalsFromReference,
}

/// What a number is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// In JSON.
    pub key: String,
    /// In a table.
    pub title: String,
}

/// What the measures of a network's features may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// As the field calls them: FID, KID and so on. For the network that the field means by them only.
    Fid,
    /// After the network: such distances compare with nothing but each other.
    Own {
        /// Begins every key.
        key: &'static str,
        /// Stands in every title.
        title: &'static str,
    },
}

impl Naming {
    /// What a number is called.
    pub fn name(self, quantity: Quantity) -> Name {
        let (key, title) = match self {
            Self::Fid => {
                let (key, title) = match quantity {
                    Quantity::Distance => ("fid", "FID"),
                    Quantity::SpatialDistance => ("sfid", "sFID"),
                    Quantity::Score => ("inception_score", "Inception Score"),
                    Quantity::ScoreOfTorchFidelity => {
                        ("inception_score_torch_fidelity", "  (as torch-fidelity)")
                    }
                    Quantity::KernelDistance => ("kid", "KID"),
                    Quantity::Precision => ("precision", "Precision"),
                    Quantity::Recall => ("recall", "Recall"),
                    Quantity::ReconstructionDistance => ("rfid", "rFID"),
                    Quantity::OwnDistance => ("own_rfid", "rFID (of these pictures)"),
                    Quantity::ReconstructionsFromReference => {
                        ("fid", "gFID of the reconstructions")
                    }
                    Quantity::OriginalsFromReference => ("originals_fid", "gFID of the originals"),
                };
                (key.to_owned(), title.to_owned())
            }
            Self::Own { key, title: network } => {
                let (ending, title) = match quantity {
                    Quantity::Distance => {
                        ("frechet_distance", format!("Fréchet distance ({network}, no FID)"))
                    }
                    Quantity::SpatialDistance => {
                        ("spatial_distance", format!("spatial distance ({network}, no sFID)"))
                    }
                    Quantity::Score => ("score", format!("score of logits ({network})")),
                    Quantity::ScoreOfTorchFidelity => {
                        ("score_torch_fidelity", "  (as torch-fidelity)".to_owned())
                    }
                    Quantity::KernelDistance => {
                        ("kernel_distance", format!("kernel distance ({network}, no KID)"))
                    }
                    Quantity::Precision => ("precision", format!("precision ({network})")),
                    Quantity::Recall => ("recall", format!("recall ({network})")),
                    Quantity::ReconstructionDistance => {
                        ("frechet_distance", format!("distance ({network}, no FID)"))
                    }
                    Quantity::OwnDistance => ("own_distance", "  to the originals".to_owned()),
                    Quantity::ReconstructionsFromReference => {
                        ("frechet_distance", format!("distance to the reference ({network})"))
                    }
                    Quantity::OriginalsFromReference => {
                        ("originals_distance", "  of the originals".to_owned())
                    }
                };
                (format!("{key}_{ending}"), title)
            }
        };
        Name { key, title }
    }

    /// Whether a distance may be called FID.
    pub fn is_fid(self) -> bool {
        self == Self::Fid
    }
}

/// Where the weights of a network come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsSource {
    /// They come with the program, at this path below its root.
    Bundled(&'static str),
    /// Public weights of this name, fetched before.
    Public {
        /// As `alitok weights list` has it.
        name: &'static str,
        /// A file of the same weights, as people may have it.
        file: &'static str,
    },
}

/// What is to know of a network that pictures are compared by.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// As protocols and `--extractor` name it.
    pub name: &'static str,
    /// As files of statistics name it.
    pub network: &'static str,
    /// Where its weights come from.
    pub weights: WeightsSource,
    /// Which features serve which measure, in the order of reports.
    pub measures: &'static [(Measure, FeatureKind)],
    /// What the measures may be called.
    pub naming: Naming,
    /// What must be said beside its numbers.
    pub caveat: Option<&'static str>,
    /// Whether the field's `.npz` files of statistics (`mu`, `sigma`) are of its features.
    pub has_field_statistics: bool,
}

/// Every network that is known by name.
pub static EXTRACTORS: [Description; 2] = [
    Description {
        name: "lite",
        network: LITE,
        weights: WeightsSource::Bundled("models/efficientnet-lite0/efficientnet-lite0.safetensors"),
        measures: &[
            (Measure::Distance, FeatureKind::Pool),
            (Measure::KernelDistance, FeatureKind::Pool),
            (Measure::PrecisionRecall, FeatureKind::Pool),
        ],
        naming: Naming::Own { key: "lite", title: "Lite0" },
        caveat: Some(
            "the bundled network stands in for Inception; its distances are no FID and compare with \
             nothing but each other",
        ),
        has_field_statistics: false,
    },
    Description {
        name: "inception",
        network: INCEPTION,
        weights: WeightsSource::Public {
            name: "inception",
            file: "pt_inception-2015-12-05-6726825d.pth",
        },
        measures: &[
            (Measure::Distance, FeatureKind::Pool),
            (Measure::SpatialDistance, FeatureKind::Spatial),
            (Measure::Score, FeatureKind::Logits),
            (Measure::KernelDistance, FeatureKind::Pool),
            (Measure::PrecisionRecall, FeatureKind::Pool),
        ],
        naming: Naming::Fid,
        caveat: None,
        has_field_statistics: true,
    },
];

impl Description {
    /// The network of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        EXTRACTORS.iter().find(|known| known.name == name)
    }

    /// The features that serve a measure, if the network has any.
    pub fn features_for(&self, measure: Measure) -> Option<FeatureKind> {
        self.measures.iter().find(|(known, _)| *known == measure).map(|(_, kind)| *kind)
    }

    /// How to ask for it.
    fn usage(&self) -> String {
        let name = self.name;
        match self.weights {
            WeightsSource::Bundled(_) => format!("`{name}`"),
            WeightsSource::Public { name: public, file } => format!(
                "`{name}` after `alitok weights fetch {public}`, or `{name}=FILE` with the weights \
                 {file}"
            ),
        }
    }

    /// The network that `--extractor` names as `NAME` or `NAME=FILE`, and the file.
    ///
    /// # Errors
    /// If there is no such network.
    pub fn parse(text: &str) -> Result<(&'static Self, Option<&str>), EvaluationError> {
        let (name, file) =
            text.split_once('=').map_or((text, None), |(name, file)| (name, Some(file)));
        let found = Self::find(name).ok_or_else(|| {
            let known: Vec<String> = EXTRACTORS.iter().map(Self::usage).collect();
            let problem = format!("write {}", known.join(", "));
            EvaluationError::option(format!("--extractor {text}"), problem)
        })?;
        Ok((found, file))
    }
}

/// The name of a known network, as protocols have it.
#[derive(Clone, Copy)]
pub struct ExtractorName(&'static Description);

impl ExtractorName {
    /// The bundled network.
    pub const LITE: Self = Self(&EXTRACTORS[0]);

    /// The network.
    pub fn description(self) -> &'static Description {
        self.0
    }

    /// As `--extractor` takes it.
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

impl PartialEq for ExtractorName {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for ExtractorName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Serialize for ExtractorName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'a> Deserialize<'a> for ExtractorName {
    fn deserialize<D: Deserializer<'a>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Description::find(&name).map(Self).ok_or_else(|| {
            let known = EXTRACTORS.iter().map(|known| format!("`{}`", known.name));
            let known = known.collect::<Vec<_>>().join(", ");
            de::Error::custom(format!("no network is called `{name}`; there are {known}"))
        })
    }
}

/// A network with what is to know of it.
pub struct Extractor {
    description: &'static Description,
    network: Box<dyn FeatureExtractor + Send + Sync>,
}

impl fmt::Debug for Extractor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Extractor({}, {})", self.network(), self.digest())
    }
}

impl Extractor {
    /// A network of one's own, or a known one that computes in another way.
    pub fn new(
        description: &'static Description,
        network: Box<dyn FeatureExtractor + Send + Sync>,
    ) -> Self {
        Self { description, network }
    }

    /// What is to know of it.
    pub fn description(&self) -> &'static Description {
        self.description
    }

    /// The network's name, as files of statistics have it.
    pub fn network(&self) -> &'static str {
        self.description.network
    }

    /// A digest of the network's weights.
    pub fn digest(&self) -> &str {
        self.network.digest()
    }

    /// What a measure depends on beside the pictures: the network and its weights.
    pub fn identity(&self) -> String {
        format!("{} {}", self.network(), self.digest())
    }

    /// The features of pictures.
    ///
    /// # Errors
    /// If the network cannot take the pictures.
    pub fn features(&self, images: &Images) -> Result<Features, EvaluationError> {
        self.network.features(images).map_err(|source: Box<dyn Error + Send + Sync>| {
            EvaluationError::At { place: format!("the network {}", self.network()), source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_call_no_distance_fid_but_that_of_inception() {
        const ALL: [Quantity; 11] = [
            Quantity::Distance,
            Quantity::SpatialDistance,
            Quantity::Score,
            Quantity::ScoreOfTorchFidelity,
            Quantity::KernelDistance,
            Quantity::Precision,
            Quantity::Recall,
            Quantity::ReconstructionDistance,
            Quantity::OwnDistance,
            Quantity::ReconstructionsFromReference,
            Quantity::OriginalsFromReference,
        ];
        let field = ALL.map(|quantity| Naming::Fid.name(quantity));
        for description in &EXTRACTORS {
            assert_eq!(description.naming.is_fid(), description.network == INCEPTION);
            assert_eq!(description.caveat.is_none(), description.naming.is_fid());
            if description.naming.is_fid() {
                continue;
            }
            for quantity in ALL {
                let name = description.naming.name(quantity);
                assert!(name.key.starts_with(description.name), "{name:?}");
                assert!(field.iter().all(|field| field.key != name.key), "{name:?}");
            }
        }
    }

    #[test]
    fn should_name_networks_and_files() {
        let (found, file) = Description::parse("inception=a=b.pth").unwrap();
        assert_eq!((found.name, file), ("inception", Some("a=b.pth")));
        let (found, file) = Description::parse("lite").unwrap();
        assert_eq!((found.name, file), ("lite", None));
        let told = Description::parse("vgg").unwrap_err().to_string();
        assert!(told.contains("`lite`") && told.contains("inception=FILE"), "{told}");
        let names: Result<ExtractorName, _> = serde_json::from_str("\"vgg\"");
        assert!(names.unwrap_err().to_string().contains("`lite`, `inception`"));
    }
}
