//! `alitok evaluate run`

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use clap::Args;
use metrics::{FeatureExtractor, Purpose};
use model::Model;
use pixels::DataSet;
use serde_json::{Map, Value, json};
use token_cache::Shard;
use weights::public;

use super::{
    comparison::{self, Reference, Report, STAND_IN},
    reconstruction::{open_data, perceptual, report},
    sampling::{self, Sampler},
};
use crate::{
    args::{BatchArgs, ComputeArgs, DecoderArgs, ModelArgs, ShardArgs},
    commands::evaluate::LpipsArgs,
    compute::Compute,
    extractor::{self, Extractor},
    models,
    parts::Parts,
    progress::{self, Progress},
    protocol::{ExtractorName, Kind, Protocol},
    reconstruction::{self as rebuilding, PerceptualMeasure, Rebuilder, ReconstructionSums},
    reference,
};

/// Measure a model as a published number was measured, and put both side by side
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate run --model mini --protocol mini mini-stage-2 mini-limit --out evaluation/mini
  alitok evaluate run --model models/alitok-b --protocol paper --reference VIRTUAL_imagenet256_labeled.npz --extractor inception --out evaluation/b
  alitok evaluate run --model models/alitok-b --protocol paper --set count=5000 --set sampling.guidance=16 --reference R --out evaluation/b-16

A protocol is a file: one of the folder `protocols`, by name, or another by path. `paper` is the paper's
guided generation with a model of this architecture. Work is kept in parts of 64 pictures: after an
interruption give the command again; on several machines that share --out, give each its --shard.
Whatever departs from the protocol is refused, unless --set changes the protocol.")]
pub(crate) struct EvaluateRunArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Protocols; with several, each has a folder of its own in --out.
    #[arg(long, required = true, num_args = 1..)]
    pub(crate) protocol: Vec<String>,
    /// Change settings of the protocol, as key=value; then it is another one.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// What is reconstructed, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// The protocol's network: `lite`, `inception` after `alitok weights fetch inception`, or
    /// `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) lpips: LpipsArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
    /// Folder for finished parts and the result.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A protocol with all that it needs, checked before anything long begins.
struct Job<'a> {
    args: &'a EvaluateRunArgs,
    name: &'a str,
    protocol: Protocol,
    model: &'a Model,
    extractor: Extractor,
    reference: Option<Reference>,
    data: Option<Box<dyn DataSet>>,
    perceptual: Vec<PerceptualMeasure>,
    departures: Vec<String>,
    out: PathBuf,
}

pub(super) fn run(args: &EvaluateRunArgs, device: Option<pipeline::Device>) -> Result<()> {
    let shard = args.shard.shard;
    let model = models::open(&args.model.model)?;
    let compute = Compute::new(&args.compute, device)?;
    let device = reference::networks(device)?;
    let several = args.protocol.len() > 1;
    let jobs = args
        .protocol
        .iter()
        .map(|name| {
            let out = if several { args.out.join(name) } else { args.out.clone() };
            Job::prepare(args, name, &model, &device, out)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut objects = Map::new();
    for job in jobs {
        let name = job.name;
        comparison::note(&job.departures);
        let Some((object, text)) = job.run(&compute, shard)? else { continue };
        match args.json {
            true => drop(objects.insert(name.to_owned(), object)),
            false => progress::result(&text)?,
        }
    }
    match (args.json, several) {
        (false, _) => Ok(()),
        (true, true) => progress::result(&Value::Object(objects).to_string()),
        (true, false) => {
            objects.into_values().try_for_each(|object| progress::result(&object.to_string()))
        }
    }
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

impl<'a> Job<'a> {
    fn prepare(
        args: &'a EvaluateRunArgs,
        name: &'a str,
        model: &'a Model,
        device: &Device,
        out: PathBuf,
    ) -> Result<Self> {
        let protocol = Protocol::read(name, &args.overrides, model)?;
        let mut departures = Vec::new();
        let before = serde_json::to_value(Protocol::unchanged(name, model)?)?;
        let mut changed = Vec::new();
        changes("", &before, &serde_json::to_value(&protocol)?, &mut changed);
        if !changed.is_empty() {
            departures.push(format!(
                "this is not the protocol {name}: {}; its published values are of another \
                 experiment",
                changed.join(", ")
            ));
        }
        let wanted = protocol.extractor.name();
        let asked = args.extractor.as_deref().unwrap_or(wanted);
        ensure!(
            asked.split('=').next() == Some(wanted),
            "the protocol {name} compares by {wanted}, not by {asked}; --set extractor={} changes \
             it, and then its distances have another name",
            asked.split('=').next().unwrap_or_default()
        );
        let extractor = extractor::open(asked, device)?;
        if protocol.extractor == ExtractorName::Lite {
            departures.push(STAND_IN.to_owned());
        }

        let reference = match protocol.reference.purpose {
            Purpose::Reconstruction => {
                ensure!(
                    args.reference.is_none(),
                    "the protocol {name} measures rFID against the pictures themselves; leave out \
                     --reference"
                );
                None
            }
            Purpose::Generation => {
                let set = &protocol.reference;
                if let (Some(given), Some(source)) = (&args.reference, &set.source)
                    && given != source
                {
                    departures
                        .push(format!("the reference is {given}, not the protocol's {source}"));
                }
                let source =
                    args.reference.as_ref().or(set.source.as_ref()).with_context(|| {
                        format!(
                            "the protocol {name} compares with {}: --reference names it",
                            set.what
                        )
                    })?;
                let reference =
                    Reference::open(source, &extractor)?.balanced(set.per_class, protocol.seed)?;
                if let Some(unfit) = reference.unfit_for_generation() {
                    bail!("this is not the protocol {name}: {unfit}");
                }
                let image = model.config.tokenizer.image;
                if let Some(other) = reference.other_size((image.width, image.height))? {
                    bail!("this is not the protocol {name}: {other}");
                }
                Some(reference)
            }
        };

        let mut data = None;
        if let Some(set) = &protocol.data {
            let source = args.data.as_ref().or(set.source.as_ref()).with_context(|| {
                format!("the protocol {name} reconstructs {}: --data names it", set.what)
            })?;
            let opened = open_data(source, set.per_class, protocol.seed)?;
            ensure!(
                opened.len() == protocol.count,
                "this is not the protocol {name}: it is of {} pictures, {source} has {}; --set \
                 count={} changes it",
                protocol.count,
                opened.len(),
                opened.len()
            );
            data = Some(opened);
        } else {
            ensure!(
                args.data.is_none(),
                "the protocol {name} reconstructs nothing; leave out --data"
            );
            let classes = model.generator_config()?.classes;
            if protocol.count % classes != 0 {
                departures.push(format!(
                    "{} pictures are not as many of each of {classes} classes",
                    protocol.count
                ));
            }
        }
        ensure!(
            protocol.kind == Kind::Reconstruction || args.lpips.networks.is_empty(),
            "--lpips compares pictures with their reconstructions; the protocol {name} has none"
        );
        let perceptual = perceptual(&args.lpips.networks, device)?;
        Ok(Self {
            args,
            name,
            protocol,
            model,
            extractor,
            reference,
            data,
            perceptual,
            departures,
            out,
        })
    }

    fn decoder(&self) -> DecoderArgs {
        DecoderArgs { decoder: self.protocol.decoder }
    }

    /// All that the numbers of the parts hang on.
    fn identity(&self, compute: &Compute) -> Result<Value> {
        let protocol = &self.protocol;
        let digest = |path: &Path| public::hash_of(path);
        let decoder = models::decoder_kind(&self.model.config.tokenizer, &self.decoder())?;
        let mut weights = json!({ "tokenizer": digest(&self.model.tokenizer_path())? });
        if protocol.kind == Kind::Generation {
            weights["generator"] = digest(&self.model.generator_path())?.into();
        }
        let mut identity = json!({
            "kind": protocol.kind,
            "count": protocol.count,
            "seed": protocol.seed,
            "model": weights,
            "decoder": decoder.name(),
            "computed": compute.name(),
            "extractor": rebuilding::extractor_digest(&self.extractor),
        });
        if let Some(sampling) = &protocol.sampling {
            identity["sampling"] = serde_json::to_value(sampling)?;
        }
        if let Some(data) = &self.data {
            let set = protocol.data.as_ref();
            identity["data"] = json!({
                "source": self.args.data.as_ref().or(set.and_then(|set| set.source.as_ref())),
                "per_class": set.and_then(|set| set.per_class),
                "first": data.name(0),
            });
            identity["perceptual"] = rebuilding::digests(&self.perceptual);
        }
        Ok(identity)
    }

    /// Does one shard. Then, if all of them are done, measures: an object, and the same in words.
    fn run(mut self, compute: &Compute, shard: Shard) -> Result<Option<(Value, String)>> {
        let parts = Parts::open(&self.out, &self.identity(compute)?, self.protocol.count)?;
        if !parts.missing().is_empty() {
            let mut progress = Progress::new("pictures", parts.pictures_of(shard) as u64);
            self.work(&parts, compute, shard, &mut progress)?;
            progress.finish();
        }
        let missing = parts.missing().len();
        if missing > 0 {
            progress::note(&format!(
                "{}: {missing} of {} parts are missing; the other shards make them, and the last \
                 one measures",
                self.out.display(),
                parts.len()
            ));
            return Ok(None);
        }
        let image = self.model.config.tokenizer.image;
        let reference = self
            .reference
            .take()
            .map(|reference| reference.see(&self.extractor, (image.width, image.height)));
        let reference = reference.transpose()?;
        let published = self.protocol.published;
        let (mut object, text) = match (self.protocol.kind, &reference) {
            (Kind::Generation, Some(reference)) => {
                let seen = sampling::seen(&parts, self.model.generator_config()?.classes)?;
                let mut report = Report::new(&self.extractor, published);
                comparison::compare(&seen, reference, &mut report)?;
                let mut object = report.object();
                object.insert("samples".into(), seen.count().into());
                object.insert("reference".into(), reference.count.into());
                let counts =
                    format!("{} samples, {} in the reference", seen.count(), reference.count);
                (object, format!("{counts}, {}{}", self.extractor.name(), report.table()))
            }
            _ => {
                let codes = self.model.config.tokenizer.codes;
                let mut sums = ReconstructionSums::new(codes, &self.perceptual);
                parts.each(|_, arrays| sums.add(&arrays))?;
                let (object, text) =
                    report(&sums, self.model, &self.extractor, reference.as_ref(), published)?;
                let counts = format!("{} pictures", self.protocol.count);
                (object, format!("{counts}, {}{text}", self.extractor.name()))
            }
        };
        object.insert("protocol".into(), self.name.into());
        object.insert("extractor".into(), self.extractor.name().into());
        object.insert("departures".into(), self.departures.into());
        let object = Value::Object(object);
        let path = self.out.join("result.json");
        let written = serde_json::to_string_pretty(&object)? + "\n";
        files::write_file(&path, |file| file.write_all(written.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Some((object, format!("{}: {text}", self.name))))
    }

    fn work(
        &self,
        parts: &Parts,
        compute: &Compute,
        shard: Shard,
        progress: &mut Progress,
    ) -> Result<()> {
        let decoder = self.decoder();
        let protocol = &self.protocol;
        let mut progress = |done: usize| progress.set(done as u64);
        if let Some(sampling) = &protocol.sampling {
            let sampler = Sampler::open(compute, self.model, &decoder, self.args.batch.batch)?;
            return parts.work(
                shard,
                |range, done| sampler.part(&self.extractor, sampling, protocol.seed, range, done),
                &mut progress,
            );
        }
        let (encoding, decoding) =
            (compute.encoding(self.model)?, compute.decoding(self.model, &decoder)?);
        let rebuilder = Rebuilder {
            data: self.data.as_deref().context("there are no pictures to reconstruct")?,
            encoding: &encoding,
            decoding: &decoding,
            extractor: &self.extractor,
            perceptual: &self.perceptual,
        };
        parts.work(shard, |range, done| rebuilder.part(range, done), &mut progress)
    }
}
