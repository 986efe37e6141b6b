//! Measuring a model by a protocol, in parts that survive an interruption.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use files::Home;
use metrics::Purpose;
use model::Model;
use pipeline::{Compute, decoder_kind};
use pixels::DataSet;
use serde::Serialize;
use serde_json::{Value, json};
use token_cache::Shard;
use weights::public;

use crate::{
    EvaluationError, Observer,
    comparison::{self, Measures, Reference},
    extractor::Extractor,
    generation::{self, Sampler},
    observer,
    parts::Parts,
    pictures::open_data,
    protocol::{Kind, OWN, Protocol},
    reconstruction::{self, PerceptualMeasure, Rebuilder, ReconstructionSums},
};

/// What may be given beside a protocol.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The root of bundled things.
    pub home: Home,
    /// Changes to settings of the protocol, as `key=value`; then it is another one.
    pub overrides: Vec<String>,
    /// What is compared with, where the protocol does not say where that is.
    pub reference: Option<String>,
    /// What is reconstructed, where the protocol does not say where that is.
    pub data: Option<String>,
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    pub batch: usize,
}

/// A protocol with all that it needs, checked before anything long begins.
#[allow(missing_debug_implementations)] // data sets have nothing to show
pub struct Evaluation<'a> {
    name: &'a str,
    protocol: Protocol,
    model: &'a Model,
    options: &'a RunOptions,
    extractor: Extractor,
    reference: Option<Reference>,
    data: Option<Box<dyn DataSet>>,
    perceptual: Vec<Box<dyn PerceptualMeasure>>,
    departures: Vec<String>,
    folder: PathBuf,
}

/// What a protocol's measurement found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunResult {
    /// Name or path of the protocol.
    pub protocol: String,
    /// The numbers that may have a published value.
    #[serde(flatten)]
    pub measures: Measures,
    /// What else was found.
    #[serde(flatten)]
    pub details: RunDetails,
    /// The network that compared, as files of statistics name it.
    pub extractor: &'static str,
    /// What departs from the protocol.
    pub departures: Vec<String>,
}

/// What the kinds of measurement find beside numbers that may be published.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RunDetails {
    /// Of generated pictures.
    Generation {
        /// Number of samples.
        samples: usize,
        /// Number of pictures that the reference is of.
        reference: u64,
    },
    /// Of reconstructed pictures.
    Reconstruction {
        /// Number of pictures.
        images: usize,
        /// Fraction of the codes that occur.
        codebook_usage: f64,
        /// Entropy of the codes' frequencies, in bits.
        codebook_entropy_bits: f64,
        /// Mean squared error of each row of patches, for values in [0, 1].
        row_errors: Vec<f64>,
    },
}

/// What was changed in a protocol, as `key value, not value`.
fn changes(path: &str, before: &Value, now: &Value, found: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, before) in one {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                changes(&inner, before, other.get(key).unwrap_or(&Value::Null), found);
            }
            for (key, now) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                found.push(format!("{path}.{key} is {now}, which it does not say"));
            }
        }
        _ if before != now => found.push(format!("{path} is {now}, not {before}")),
        _ => {}
    }
}

/// Checks that a network is the one that a protocol names, `asked` as `--extractor` takes it.
fn check_extractor(name: &str, protocol: &Protocol, asked: &str) -> Result<(), EvaluationError> {
    let wanted = protocol.extractor.name();
    let given = asked.split('=').next().unwrap_or_default();
    if given == wanted {
        return Ok(());
    }
    Err(EvaluationError::Impossible(format!(
        "the protocol {name} compares by {wanted}, not by {asked}; --set extractor={given} changes \
         it, and then its distances have another name"
    )))
}

impl<'a> Evaluation<'a> {
    /// Prepares the protocol `name` for a model; parts go to `folder`. `open` opens the network that
    /// it compares by, given the name as `--extractor` takes it; `asked` is another name for the same
    /// network, such as `inception=FILE`.
    ///
    /// # Errors
    /// If the protocol is of another model, or something that was given departs from it.
    pub fn prepare(
        name: &'a str,
        model: &'a Model,
        options: &'a RunOptions,
        asked: Option<&str>,
        open: impl FnOnce(&str) -> Result<Extractor, EvaluationError>,
        folder: PathBuf,
    ) -> Result<Self, EvaluationError> {
        let pictures = if name == OWN { given_pictures(model, options)? } else { 0 };
        let protocol = Protocol::read(name, &options.overrides, model, pictures)?;
        let mut departures = Vec::new();
        let before = to_value(&Protocol::unchanged(name, model, pictures)?);
        let mut changed = Vec::new();
        changes("", &before, &to_value(&protocol), &mut changed);
        if !changed.is_empty() && name != OWN {
            departures.push(format!(
                "this is not the protocol {name}: {}; its published values are of another \
                 experiment",
                changed.join(", ")
            ));
        }
        let asked = asked.unwrap_or(protocol.extractor.name());
        check_extractor(name, &protocol, asked)?;
        let extractor = open(asked)?;
        departures.extend(extractor.description().caveat.map(str::to_owned));
        let reference = reference(name, &protocol, model, options, &extractor, &mut departures)?;
        let data = data(name, &protocol, model, options, &mut departures)?;
        Ok(Self {
            name,
            protocol,
            model,
            options,
            extractor,
            reference,
            data,
            perceptual: Vec::new(),
            departures,
            folder,
        })
    }

    /// Adds perceptual distances of reconstructions. `open` opens each by name.
    ///
    /// # Errors
    /// If the protocol reconstructs nothing, or one cannot be opened.
    pub fn with_perceptual(
        mut self,
        names: &[String],
        open: impl Fn(&str) -> Result<Box<dyn PerceptualMeasure>, EvaluationError>,
    ) -> Result<Self, EvaluationError> {
        if self.protocol.kind == Kind::Generation && !names.is_empty() {
            return Err(EvaluationError::Option {
                option: "--lpips".into(),
                problem: format!(
                    "it compares pictures with their reconstructions; the protocol {} has none",
                    self.name
                ),
            });
        }
        self.perceptual = names.iter().map(|name| open(name)).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// The protocol, with its changes.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// What is about to be measured, in a line.
    pub fn about(&self) -> String {
        let Protocol { kind, count, seed, reference, .. } = &self.protocol;
        let image = self.model.config.tokenizer.image;
        let work = match kind {
            Kind::Generation => {
                let given = self.options.reference.as_ref().or(reference.source.as_ref());
                let against = given.map_or(reference.what.as_str(), String::as_str);
                format!("draws {count} pictures from seed {seed} and compares them with {against}")
            }
            Kind::Reconstruction => {
                let own = self.protocol.data.as_ref().and_then(|set| set.source.as_ref());
                let given = self.options.data.as_ref().or(own);
                format!("rebuilds {count} pictures of {}", given.map_or("the data", String::as_str))
            }
        };
        format!(
            "{}: {work}, {} x {} pixels, by {}",
            self.name,
            image.width,
            image.height,
            self.extractor.network()
        )
    }

    /// Everything that the numbers of the parts depend on.
    fn identity(&self, compute: &Compute) -> Result<Value, EvaluationError> {
        let protocol = &self.protocol;
        let digest = |path: &Path| public::hash_of(path);
        let decoder = decoder_kind(&self.model.config.tokenizer, protocol.decoder)?;
        let mut weights = json!({ "tokenizer": digest(self.model.tokenizer_file()?.path())? });
        if protocol.kind == Kind::Generation {
            weights["generator"] = digest(self.model.generator_file()?.path())?.into();
        }
        let mut identity = json!({
            "kind": protocol.kind,
            "count": protocol.count,
            "seed": protocol.seed,
            "model": weights,
            "decoder": decoder.name(),
            "computed": compute.name(),
            "extractor": self.extractor.identity(),
        });
        if let Some(sampling) = &protocol.sampling {
            identity["sampling"] = to_value(sampling);
        }
        if let Some(data) = &self.data {
            let set = protocol.data.as_ref();
            let own = set.and_then(|set| set.source.as_ref());
            identity["data"] = json!({
                "source": self.options.data.as_ref().or(own),
                "per_class": set.and_then(|set| set.per_class),
                "first": data.name(0),
            });
            identity["perceptual"] = to_value(&reconstruction::digests(&self.perceptual));
        }
        Ok(identity)
    }

    /// Does one shard of the work, as far as it is not done. If all shards are done then, measures, and
    /// writes `result.json` beside the parts; `None` if others are still to be done.
    ///
    /// # Errors
    /// If the folder was begun with another request, or pictures cannot be made or read.
    pub fn run(
        mut self,
        compute: &Compute,
        shard: Shard,
        observer: &mut dyn Observer,
    ) -> Result<Option<RunResult>, EvaluationError> {
        observer::tell(observer, &self.departures);
        let parts = Parts::open(&self.folder, &self.identity(compute)?, self.protocol.count)?;
        if !parts.missing().is_empty() {
            self.work(&parts, compute, shard, observer)?;
        }
        let missing = parts.missing().len();
        if missing > 0 {
            observer.note(&format!(
                "{}: {missing} of {} parts are missing; the other shards make them, and the last \
                 one measures",
                self.folder.display(),
                parts.len()
            ));
            return Ok(None);
        }
        let config = &self.model.config.tokenizer;
        let size = (config.image.width, config.image.height);
        let reference = self.reference.take();
        let reference = reference.map(|reference| reference.see(&self.extractor, size, observer));
        let reference = reference.transpose()?;
        let published = self.protocol.published;
        let (measures, details) = match (self.protocol.kind, &reference) {
            (Kind::Generation, Some(reference)) => {
                let classes = self.model.generator_config()?.classes;
                let seen = generation::seen(&parts, &self.extractor, classes)?;
                let mut measures = Measures::new(published);
                comparison::compare(&seen, reference, &self.extractor, &mut measures)?;
                let (samples, reference) = (seen.count(), reference.count);
                (measures, RunDetails::Generation { samples, reference })
            }
            _ => {
                let description = self.extractor.description();
                let mut sums = ReconstructionSums::new(config.codes, description, &self.perceptual);
                parts.each(|_, arrays| sums.add(&arrays))?;
                let found = sums.result(config, &self.extractor, reference.as_ref(), published)?;
                let details = RunDetails::Reconstruction {
                    images: found.images,
                    codebook_usage: found.codebook_usage,
                    codebook_entropy_bits: found.codebook_entropy_bits,
                    row_errors: found.row_errors,
                };
                (found.measures, details)
            }
        };
        let result = RunResult {
            protocol: self.name.to_owned(),
            measures,
            details,
            extractor: self.extractor.network(),
            departures: self.departures,
        };
        let path = self.folder.join("result.json");
        let text = format!("{:#}\n", to_value(&result));
        files::write_file(&path, |file| file.write_all(text.as_bytes()))
            .map_err(EvaluationError::file("write", &path))?;
        Ok(Some(result))
    }

    fn work(
        &self,
        parts: &Parts,
        compute: &Compute,
        shard: Shard,
        observer: &mut dyn Observer,
    ) -> Result<(), EvaluationError> {
        let (protocol, extractor) = (&self.protocol, &self.extractor);
        let total = parts.pictures_of(shard) as u64;
        let mut progress = |done: usize| observer.progress("pictures", done as u64, total);
        progress(0);
        if let Some(sampling) = &protocol.sampling {
            let sampler = Sampler::open(compute, self.model, protocol.decoder, self.options.batch)?;
            return parts.work(
                shard,
                |range, done| sampler.part(extractor, sampling, protocol.seed, range, done),
                &mut progress,
            );
        }
        let data = self.data.as_deref();
        let rebuilder = Rebuilder {
            data: data.ok_or_else(|| {
                EvaluationError::impossible("there are no pictures to reconstruct")
            })?,
            encoder: &*compute.encoder(self.model)?,
            decoder: &*compute.decoder(self.model, protocol.decoder)?,
            extractor,
            perceptual: &self.perceptual,
        };
        parts.work(shard, |range, done| rebuilder.part(range, done), &mut progress)
    }
}

/// Plain data as JSON.
pub(crate) fn to_value(data: &impl Serialize) -> Value {
    serde_json::to_value(data).expect("plain data with names as keys")
}

/// How many pictures were given to reconstruct, to a tokenizer without a generator.
fn given_pictures(model: &Model, options: &RunOptions) -> Result<usize, EvaluationError> {
    match (&model.config.generator, &options.data) {
        (Some(_), _) => Ok(0),
        (None, Some(source)) => Ok(open_data(source, None, 0, &options.home)?.len()),
        (None, None) => Err(EvaluationError::Impossible(format!(
            "{} is a tokenizer, which is measured on pictures that it rebuilds: --data names them",
            model.path().display()
        ))),
    }
}

/// Opens what a protocol compares with.
fn reference(
    name: &str,
    protocol: &Protocol,
    model: &Model,
    options: &RunOptions,
    extractor: &Extractor,
    departures: &mut Vec<String>,
) -> Result<Option<Reference>, EvaluationError> {
    let set = &protocol.reference;
    if set.purpose == Purpose::Reconstruction {
        if options.reference.is_some() {
            return Err(EvaluationError::Impossible(format!(
                "the protocol {name} measures rFID against the pictures themselves; leave out \
                 --reference"
            )));
        }
        return Ok(None);
    }
    if let (Some(given), Some(source)) = (&options.reference, &set.source)
        && given != source
    {
        departures.push(format!("the reference is {given}, not the protocol's {source}"));
    }
    let given = options.reference.as_deref();
    let reference = open_reference(name, protocol, given, &options.home, extractor)?;
    let departs = |problem: String| EvaluationError::Departure { name: name.to_owned(), problem };
    if let Some(unfit) = reference.unfit_for_generation() {
        return Err(departs(unfit));
    }
    let image = model.config.tokenizer.image;
    if let Some(other) = reference.other_size((image.width, image.height))? {
        return Err(departs(other));
    }
    Ok(Some(reference))
}

/// Opens the reference that was given, or the protocol's.
pub(crate) fn open_reference(
    name: &str,
    protocol: &Protocol,
    given: Option<&str>,
    home: &Home,
    extractor: &Extractor,
) -> Result<Reference, EvaluationError> {
    let set = &protocol.reference;
    let source = given.or(set.source.as_deref()).ok_or_else(|| {
        let problem =
            format!("the protocol {name} compares with {}: --reference names it", set.what);
        EvaluationError::Impossible(problem)
    })?;
    Reference::open(source, home, extractor)?.balanced(set.per_class, protocol.seed)
}

/// Opens what a protocol reconstructs, if it does.
fn data(
    name: &str,
    protocol: &Protocol,
    model: &Model,
    options: &RunOptions,
    departures: &mut Vec<String>,
) -> Result<Option<Box<dyn DataSet>>, EvaluationError> {
    let Some(set) = &protocol.data else {
        if options.data.is_some() {
            return Err(EvaluationError::Impossible(format!(
                "the protocol {name} reconstructs nothing; leave out --data"
            )));
        }
        let classes = model.generator_config()?.classes;
        if !protocol.count.is_multiple_of(classes) {
            departures.push(format!(
                "{} pictures are not as many of each of {classes} classes",
                protocol.count
            ));
        }
        return Ok(None);
    };
    let source = options.data.as_ref().or(set.source.as_ref()).ok_or_else(|| {
        let problem = format!("the protocol {name} reconstructs {}: --data names it", set.what);
        EvaluationError::Impossible(problem)
    })?;
    let data = open_data(source, set.per_class, protocol.seed, &options.home)?;
    if data.len() != protocol.count {
        let problem = format!(
            "it is of {} pictures, {source} has {}; --set count={} changes it",
            protocol.count,
            data.len(),
            data.len()
        );
        return Err(EvaluationError::Departure { name: name.to_owned(), problem });
    }
    Ok(Some(data))
}
