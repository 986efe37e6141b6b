//! Protocols: files that say how a published number is measured, and what it was.

use generator::{SamplingConfig, presets};
use metrics::Purpose;
use model::Model;
use serde::{Deserialize, Serialize};
use tokenizer::DecoderKind;

use crate::{EvaluationError, extractor::ExtractorName};

/// The protocols of the folder `protocols`: name and text.
pub const BUNDLED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/protocols.rs"));

/// Stands for the guided generation of the paper by a model of this architecture.
const PAPER: &str = "paper";

/// Stands for what one's own model can be measured by: nothing published belongs to it.
pub const OWN: &str = "own";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Pictures of classes against a reference set.
    Generation,
    /// Pictures through tokens and back.
    Reconstruction,
}

/// What the reference is of: `generation` or `reconstruction`.
mod purpose {
    use metrics::Purpose;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Purpose, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.name())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Purpose, D::Error> {
        let name = String::deserialize(from)?;
        Purpose::parse(&name).ok_or_else(|| {
            D::Error::custom(format!("`{name}` is neither `generation` nor `reconstruction`"))
        })
    }
}

/// What samples, or reconstructions, are compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceSet {
    /// A set that generated pictures should look like, or the reconstructed pictures themselves.
    #[serde(with = "purpose")]
    pub purpose: Purpose,
    /// What it is called, for people.
    pub what: String,
    /// Where it is, if that is known; as `--reference` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Pictures of each class that are taken; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
}

/// The pictures that are reconstructed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSet {
    /// What they are called, for people.
    pub what: String,
    /// Where they are, if that is known; as `--data` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Pictures of each class that are taken; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
}

/// A generator's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeneratorSize {
    /// The bundled model's.
    Mini,
    /// AliTok-B.
    B,
    /// AliTok-L.
    L,
    /// AliTok-XL.
    Xl,
}

/// What a model must be to have the protocol's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Size of the generator; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorSize>,
    /// Codes of the tokenizer.
    pub codes: usize,
    /// Side of a picture in pixels.
    pub size: usize,
    /// Classes of the generator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
}

impl ModelShape {
    /// What is other in a model, in words.
    fn differences(&self, model: &Model) -> Vec<String> {
        let config = &model.config;
        let mut found = Vec::new();
        let mut expect = |what: &str, expected: usize, got: usize| {
            if expected != got {
                found.push(format!("{what} is {got}, not {expected}"));
            }
        };
        expect("the codebook", self.codes, config.tokenizer.codes);
        expect("the height of pictures", self.size, config.tokenizer.image.height);
        expect("the width of pictures", self.size, config.tokenizer.image.width);
        if let Some(preset) = self.generator {
            let Some(generator) = &config.generator else {
                found.push("it has no generator".to_owned());
                return found;
            };
            let published = match preset {
                GeneratorSize::Mini => presets::mini,
                GeneratorSize::B => presets::b,
                GeneratorSize::L => presets::l,
                GeneratorSize::Xl => presets::xl,
            };
            let published = published(generator.layout, generator.codes, generator.classes);
            expect("the generator's width", published.width, generator.width);
            expect("the generator's depth", published.layers, generator.layers);
            expect("the generator's number of heads", published.heads, generator.heads);
            expect(
                "the number of classes",
                self.classes.unwrap_or(generator.classes),
                generator.classes,
            );
        }
        found
    }
}

/// Values that others published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Published {
    /// Fréchet Inception distance of generated pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid: Option<f64>,
    /// That distance on spatial features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sfid: Option<f64>,
    /// Inception Score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inception_score: Option<f64>,
    /// Fraction of samples that lie within the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Fraction of the reference that lies within the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Fréchet Inception distance of reconstructions from their originals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rfid: Option<f64>,
    /// Peak signal-to-noise ratio in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
    /// Structural similarity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// Of a network that the source may not name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpips: Option<f64>,
}

impl Published {
    /// The value that stands beside the measured one of this name.
    pub fn get(&self, key: &str) -> Option<f64> {
        match key {
            "fid" => self.fid,
            "sfid" => self.sfid,
            "inception_score" => self.inception_score,
            "precision" => self.precision,
            "recall" => self.recall,
            "rfid" => self.rfid,
            "psnr" => self.psnr,
            "ssim" => self.ssim,
            "lpips_vgg" | "lpips_alex" => self.lpips,
            _ => None,
        }
    }
}

/// How a number is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// What is measured.
    pub kind: Kind,
    /// Number of pictures.
    pub count: usize,
    /// Seed of what is drawn, or chosen.
    pub seed: u64,
    /// The network whose features are compared.
    pub extractor: ExtractorName,
    /// Decoder; the bidirectional one without it, if the model has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderKind>,
    /// What is reconstructed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PictureSet>,
    /// What is compared with.
    pub reference: ReferenceSet,
    /// The model.
    pub model: ModelShape,
    /// How tokens are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingConfig>,
    /// What others measured.
    #[serde(default)]
    pub published: Published,
}

impl Protocol {
    /// Reads a protocol, a bundled one by name or a file, and changes single settings in it.
    /// `paper` is the bundled one whose model has this architecture, [`OWN`] one that fits any model:
    /// drawn pictures by the model's own sampling, or, of a tokenizer alone, reconstructions of so
    /// many `pictures`.
    ///
    /// # Errors
    /// If there is no such protocol, it contradicts itself, or is of another model.
    pub fn read(
        name: &str,
        overrides: &[String],
        model: &Model,
        pictures: usize,
    ) -> Result<Self, EvaluationError> {
        let protocol: Self = if name == OWN {
            let text = toml::to_string(&settings::to_table(&Self::own(model, pictures)))
                .expect("a table of plain values can be written");
            settings::read("protocol", name, &[(OWN, &text)], overrides)?
        } else {
            let name = if name == PAPER { Self::of_paper(model)? } else { name };
            settings::read("protocol", name, BUNDLED, overrides)?
        };
        protocol
            .validate()
            .map_err(|problem| EvaluationError::Protocol { name: name.to_owned(), problem })?;
        let differences = protocol.model.differences(model);
        if !differences.is_empty() {
            let (name, model) = (name.to_owned(), model.path().to_owned());
            return Err(EvaluationError::OtherModel { name, model, differences });
        }
        Ok(protocol)
    }

    /// The protocol as its file has it, without changes.
    ///
    /// # Errors
    /// If there is no such protocol.
    pub fn unchanged(name: &str, model: &Model, pictures: usize) -> Result<Self, EvaluationError> {
        if name == OWN {
            return Ok(Self::own(model, pictures));
        }
        let name = if name == PAPER { Self::of_paper(model)? } else { name };
        Ok(settings::read("protocol", name, BUNDLED, &[])?)
    }

    /// What any model can be measured by.
    fn own(model: &Model, pictures: usize) -> Self {
        /// About so many pictures are drawn: enough to compare settings of one model.
        const DRAWN: usize = 1000;
        let config = &model.config;
        let shape = ModelShape {
            generator: None,
            codes: config.tokenizer.codes,
            size: config.tokenizer.image.height,
            classes: None,
        };
        let generator = config.generator.as_ref();
        let reference = |purpose, what: &str| ReferenceSet {
            purpose,
            what: what.to_owned(),
            source: None,
            per_class: None,
        };
        let pictures_given =
            PictureSet { what: "the given pictures".to_owned(), source: None, per_class: None };
        Self {
            kind: if generator.is_some() { Kind::Generation } else { Kind::Reconstruction },
            count: generator.map_or(pictures, |generator| {
                // As many of each class.
                (generator.classes * (DRAWN / generator.classes).max(1)).max(2)
            }),
            seed: 0,
            extractor: ExtractorName::LITE,
            decoder: None,
            data: generator.is_none().then_some(pictures_given),
            reference: match generator {
                Some(_) => reference(Purpose::Generation, "the pictures that it should look like"),
                None => reference(Purpose::Reconstruction, "the same pictures"),
            },
            model: shape,
            sampling: generator.map(|_| config.sampling),
            published: Published::default(),
        }
    }

    fn of_paper(model: &Model) -> Result<&'static str, EvaluationError> {
        for &(name, _) in BUNDLED {
            if !name.starts_with("paper-") || name.ends_with("-unguided") {
                continue;
            }
            let protocol: Self = settings::read("protocol", name, BUNDLED, &[])?;
            if protocol.kind == Kind::Generation && protocol.model.differences(model).is_empty() {
                return Ok(name);
            }
        }
        Err(EvaluationError::Impossible(format!(
            "no model of the paper has the architecture of {}; name one of the protocols {}",
            model.path().display(),
            BUNDLED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        )))
    }

    fn validate(&self) -> Result<(), String> {
        if self.count < 2 {
            return Err("`count` must be at least 2: one picture has no covariance".to_owned());
        }
        match self.kind {
            Kind::Generation => {
                let Some(sampling) = &self.sampling else {
                    return Err("`sampling` is missing".to_owned());
                };
                sampling.validate().map_err(|error| format!("sampling: {error}"))?;
                if self.data.is_some() {
                    return Err("`data` belongs to reconstruction".to_owned());
                }
                if self.reference.purpose != Purpose::Generation {
                    return Err("`reference.purpose` must be `generation`: rFID's reference is \
                                of other pictures than gFID's"
                        .to_owned());
                }
            }
            Kind::Reconstruction => {
                if self.data.is_none() {
                    return Err("`data` is missing".to_owned());
                }
                if self.sampling.is_some() {
                    return Err("`sampling` belongs to generation".to_owned());
                }
                let own = self.reference.purpose == Purpose::Reconstruction;
                if own && (self.reference.source.is_some() || self.reference.per_class.is_some()) {
                    return Err("a reference for `reconstruction` is the pictures themselves and \
                                has no `source`"
                        .to_owned());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn read(name: &str) -> Protocol {
        let protocol: Protocol = settings::read("protocol", name, BUNDLED, &[])
            .unwrap_or_else(|error| panic!("{error}"));
        protocol.validate().unwrap_or_else(|problem| panic!("{name}: {problem}"));
        protocol
    }

    #[test]
    fn should_carry_every_protocol_of_the_repository() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocols");
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        // By name alone: a path's order would put `mini-limit.toml` before `mini.toml`.
        files.sort_by_key(|path| path.file_stem().map(|stem| stem.to_owned()));
        let names: Vec<_> =
            files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, BUNDLED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (path, name) in files.iter().zip(names) {
            assert_eq!(read(path.to_str().unwrap()), read(name));
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.contains(&format!(" --protocol {name} ")), "{name}: no command");
        }
    }

    #[test]
    fn should_hold_the_papers_tables() {
        // Table 1, without and with guidance; the last columns are precision and recall.
        for (name, unguided, guided) in [
            ("paper-b", [2.40, 177.1], [1.44, 319.5, 0.77, 0.65]),
            ("paper-l", [1.98, 200.8], [1.38, 326.2, 0.78, 0.65]),
            ("paper-xl", [1.88, 228.4], [1.28, 306.3, 0.79, 0.65]),
        ] {
            let Published { fid, inception_score, precision, recall, .. } = read(name).published;
            assert_eq!([fid, inception_score, precision, recall], guided.map(Some), "{name}");
            let protocol = read(&format!("{name}-unguided"));
            let Published { fid, inception_score, .. } = protocol.published;
            assert_eq!([fid, inception_score], unguided.map(Some), "{name}");
            // Table 9.
            let sampling = protocol.sampling.unwrap();
            assert_eq!((sampling.guidance, sampling.temperature), (1.0, 0.95));
        }
        for (name, guidance, power) in
            [("paper-b", 11.0, 1.3), ("paper-l", 5.0, 0.6), ("paper-xl", 8.0, 1.4)]
        {
            let sampling = read(name).sampling.unwrap();
            assert_eq!((sampling.guidance, sampling.guidance_power), (guidance, power), "{name}");
            assert_eq!(sampling.temperature, 1.0, "{name}");
        }
        // Tables 5 and 6.
        assert_eq!(read("paper-512").published.fid, Some(1.39));
        assert_eq!(read("paper-xl-16384").published.inception_score, Some(304.9));
        // Table 10.
        for (name, expected) in [
            ("paper-stage-1", [20.66, 0.6571, 0.1659, 0.91]),
            ("paper-stage-2", [20.97, 0.6610, 0.1573, 0.86]),
            ("paper-stage-1-16384", [21.08, 0.6805, 0.1367, 0.84]),
            ("paper-stage-2-16384", [21.30, 0.6851, 0.1303, 0.81]),
        ] {
            let Published { psnr, ssim, lpips, rfid, .. } = read(name).published;
            assert_eq!([psnr, ssim, lpips, rfid], expected.map(Some), "{name}");
        }
        for (name, text) in BUNDLED.iter().filter(|(name, _)| name.starts_with("paper")) {
            assert_eq!(read(name).count, 50_000, "{name}");
            assert!(text.contains("--extractor inception"), "{name}");
        }
    }

    #[test]
    fn should_refuse_what_contradicts_itself() {
        let changed = |name: &str, assignment: &str| {
            settings::read::<Protocol>("protocol", name, BUNDLED, &[assignment.to_owned()])
        };
        let told = changed("mini", "sampling.guidence=3").unwrap_err().to_string();
        assert!(told.contains("sampling.guidence") || told.contains("guidence"), "{told}");
        assert!(told.contains("did you mean"), "{told}");
        for (name, assignment) in [
            ("mini", "count=1"),
            ("mini", "sampling.temperature=-1"),
            ("mini", "kind=reconstruction"),
            ("mini", "reference.purpose=reconstruction"),
            ("mini-stage-1", "reference.source=bundled"),
            ("mini-stage-1", "kind=generation"),
        ] {
            let protocol = changed(name, assignment).unwrap();
            assert!(protocol.validate().is_err(), "{assignment}");
        }
        assert!(changed("mini", "reference.purpose=rfid").is_err());
    }
}
