//! `alitok evaluate sweep`

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use charts::{Axis, Chart, Figure, Point as Dot, Series};
use clap::Args;
use files::safetensors::StorageFormat;
use generator::SamplingConfig;
use metrics::{
    FeatureExtractor, Moments, ScoreSplits, bootstrap_deviation, frechet_distance, inception_score,
    precision_recall,
};
use model::{Model, ModelContents};
use pipeline::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use token_cache::Shard;
use training::Checkpoint;
use weights::public;

use super::{
    comparison::{self, NEIGHBOURS, Reference, STAND_IN, SeenReference},
    sampling::{self, Sampler},
};
use crate::{
    args::{BatchArgs, ComputeArgs, DecoderArgs, ModelArgs},
    compute::Compute,
    extractor::{self, Extractor, Seen},
    models,
    parts::Parts,
    progress::{self, Progress},
    protocol::{Kind, Protocol},
    reconstruction::extractor_digest,
};

/// Look for the best guidance, power and temperature, or compare the checkpoints of a run
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok evaluate sweep --model mini --protocol mini --guidance 1,1.5,2,3,4 --count 180 --out sweeps/guidance
  alitok evaluate sweep --model mini --protocol mini --golden guidance=1:8 --evaluations 8 --count 180 --out sweeps/golden
  alitok evaluate sweep --run runs/generator --protocol mini --guidance 1,2 --count 180 --out sweeps/checkpoints

Points differ in the setting alone: all are of the same seed. Their spread over other samples is that of
the bootstrap. What stays the same over samples of one number, above all that few of them make the
distance too large, is not in it. Finished points are kept in points.jsonl; after an interruption give
the command again. With --run every checkpoint is a point (paper, Fig. 6).")]
pub(crate) struct EvaluateSweepArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A generator's run, instead of a model: each of its checkpoints.
    #[arg(long, conflicts_with = "model")]
    pub(crate) run: Option<PathBuf>,
    /// What is measured, and how, save what is swept.
    #[arg(long)]
    pub(crate) protocol: String,
    /// Change settings of the protocol, as key=value.
    #[arg(long = "set", num_args = 1.., value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Pictures of a point. Default: the protocol's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) count: Option<u32>,
    /// Values of guidance, with commas between them. Default: the protocol's, as below.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance: Vec<f64>,
    /// Values of the power of guidance's schedule.
    #[arg(long, value_delimiter = ',')]
    pub(crate) guidance_power: Vec<f64>,
    /// Values of the temperature.
    #[arg(long, value_delimiter = ',')]
    pub(crate) temperature: Vec<f64>,
    /// Narrow one setting down to the least distance by the golden section: guidance,
    /// guidance_power or temperature.
    #[arg(long, value_name = "KEY=LOW:HIGH")]
    pub(crate) golden: Option<String>,
    /// Points of the golden section.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) evaluations: u32,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) resamples: u32,
    /// What is compared with, where the protocol does not say where that is.
    #[arg(long)]
    pub(crate) reference: Option<String>,
    /// Another network than the protocol's: `lite`, `inception` or `inception=FILE`.
    #[arg(long)]
    pub(crate) extractor: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
    /// Folder for points and the figure.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Standard deviations to either side that 95 % of a normal distribution lie within.
const CONFIDENCE: f64 = 1.96;

/// How the pictures of a point are drawn, and by which model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    /// Of the checkpoint; none for a model.
    step: Option<u64>,
    guidance: f64,
    guidance_power: f64,
    temperature: f64,
}

impl Setting {
    fn folder(&self) -> String {
        let Self { step, guidance, guidance_power, temperature } = self;
        let step = step.map_or_else(String::new, |step| format!("step-{step:08}_"));
        format!("{step}guidance-{guidance}_power-{guidance_power}_temperature-{temperature}")
    }

    /// The setting of this name, as `--golden` has it.
    fn change(&mut self, key: &str, value: f64) -> Result<()> {
        *match key {
            "guidance" => &mut self.guidance,
            "guidance_power" => &mut self.guidance_power,
            "temperature" => &mut self.temperature,
            _ => bail!("--golden {key}: it takes guidance, guidance_power or temperature"),
        } = value;
        Ok(())
    }

    fn values(&self) -> [(&'static str, f64); 4] {
        [
            ("step", self.step.unwrap_or_default() as f64),
            ("guidance", self.guidance),
            ("guidance power", self.guidance_power),
            ("temperature", self.temperature),
        ]
    }
}

/// A measure with its standard deviation over other samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    value: f64,
    deviation: f64,
}

impl Estimate {
    fn reach(&self) -> f64 {
        CONFIDENCE * self.deviation
    }
}

/// A line of `points.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    setting: Setting,
    /// All that the numbers hang on beside the setting.
    of: Value,
    /// FID, or the distance of the bundled network.
    distance: Estimate,
    /// Inception Score, or with the bundled network precision, where the reference has pictures.
    quality: Option<Estimate>,
}

/// A model, and where it comes from.
struct Candidate {
    step: Option<u64>,
    checkpoint: Option<PathBuf>,
}

/// Narrows an interval down to the least value of a function with one valley, by the golden section
/// (Kiefer 1953): each evaluation but the first takes 0.618 of what the one before left. Places
/// are rounded to four digits behind the point.
fn golden_section(
    low: f64,
    high: f64,
    evaluations: usize,
    mut evaluate: impl FnMut(f64) -> Result<f64>,
) -> Result<()> {
    let ratio = (5_f64.sqrt() - 1.0) / 2.0;
    let round = |value: f64| (value * 1e4).round() / 1e4;
    let (mut low, mut high) = (low, high);
    let mut left = round(high - ratio * (high - low));
    let mut right = round(low + ratio * (high - low));
    let mut at_left = evaluate(left)?;
    let mut at_right = evaluate(right)?;
    for _ in 2..evaluations {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = round(high - ratio * (high - low));
            at_left = evaluate(left)?;
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = round(low + ratio * (high - low));
            at_right = evaluate(right)?;
        }
    }
    Ok(())
}

/// `KEY=LOW:HIGH`.
fn golden_range(text: &str) -> Result<(&str, f64, f64)> {
    let parse = || -> Option<(&str, f64, f64)> {
        let (key, range) = text.split_once('=')?;
        let (low, high) = range.split_once(':')?;
        let (low, high) = (low.parse().ok()?, high.parse().ok()?);
        (low < high && f64::is_finite(high - low)).then_some((key, low, high))
    };
    parse()
        .with_context(|| format!("--golden {text}: write KEY=LOW:HIGH, for example guidance=1:12"))
}

/// The points of an experiment, and where they are kept.
struct Points {
    path: PathBuf,
    /// All lines, those of other experiments too, as they stand in the file: reading a number and
    /// writing it again might change its last digit.
    lines: Vec<(String, Point)>,
}

impl Points {
    fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join("points.jsonl");
        if !path.exists() {
            return Ok(Self { path, lines: Vec::new() });
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text
            .lines()
            .enumerate()
            .map(|(line, text)| {
                let point = serde_json::from_str(text)
                    .with_context(|| format!("{}, line {}", path.display(), line + 1))?;
                Ok((text.to_owned(), point))
            })
            .collect::<Result<_>>()?;
        Ok(Self { path, lines })
    }

    fn find(&self, setting: &Setting, of: &Value) -> Option<&Point> {
        let mut points = self.lines.iter().map(|(_, point)| point);
        points.find(|point| point.setting == *setting && point.of == *of)
    }

    fn add(&mut self, point: Point) -> Result<()> {
        self.lines.push((serde_json::to_string(&point)?, point));
        let text: String = self.lines.iter().map(|(line, _)| format!("{line}\n")).collect();
        files::write_file(&self.path, |file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// What is measured, and with what.
struct Sweep<'a> {
    args: &'a EvaluateSweepArgs,
    protocol: Protocol,
    base: Model,
    compute: Compute,
    extractor: Extractor,
    reference: SeenReference,
    points: Points,
    /// Settings measured in this call, in order.
    visited: Vec<(Setting, Value)>,
    /// The models that are open, with the step of their checkpoint.
    sampler: Option<(Option<u64>, String, Sampler)>,
}

pub(super) fn run(args: &EvaluateSweepArgs, device: Option<Device>) -> Result<()> {
    let name = args.run.as_ref().map_or(args.model.model.clone(), |run| run.display().to_string());
    let base = models::open(&name)?;
    let mut protocol = Protocol::read(&args.protocol, &args.overrides, &base)?;
    ensure!(
        protocol.kind == Kind::Generation,
        "the protocol {} draws nothing; a sweep needs one of generation",
        args.protocol
    );
    if let Some(count) = args.count {
        protocol.count = count as usize;
    }
    ensure!(protocol.count > 1, "--count: one picture has no covariance");
    let golden = args.golden.as_deref().map(golden_range).transpose()?;
    let settings = settings(args, &protocol, golden)?;
    let wanted = protocol.extractor.name();
    let extractor = extractor::open(
        args.extractor.as_deref().unwrap_or(wanted),
        &crate::reference::networks(device)?,
    )?;
    let set = &protocol.reference;
    let source = args.reference.as_ref().or(set.source.as_ref()).with_context(|| {
        format!("the protocol {} compares with {}: --reference names it", args.protocol, set.what)
    })?;
    let reference = Reference::open(source, &extractor)?.balanced(set.per_class, protocol.seed)?;
    if let Some(unfit) = reference.unfit_for_generation() {
        bail!("this is no sweep of gFID: {unfit}");
    }
    let mut notes = vec![format!(
        "each point is of {} samples: its distance compares with those of as many, not with one \
         of 50000",
        protocol.count
    )];
    if !extractor.is_inception() {
        notes.push(STAND_IN.to_owned());
    }
    comparison::note(&notes);
    base.generator_config()?;
    let candidates = candidates(args)?;
    let points = Points::open(&args.out)?;
    let compute = Compute::new(&args.compute, device)?;
    let image = base.config.tokenizer.image;
    let reference = reference.see(&extractor, (image.width, image.height))?;
    let mut sweep = Sweep {
        args,
        protocol,
        base,
        compute,
        extractor,
        reference,
        points,
        visited: Vec::new(),
        sampler: None,
    };
    for candidate in &candidates {
        for &setting in &settings {
            let mut setting = Setting { step: candidate.step, ..setting };
            match golden {
                None => {
                    sweep.measure(candidate, setting)?;
                }
                Some((key, low, high)) => {
                    golden_section(low, high, args.evaluations as usize, |value| {
                        setting.change(key, value)?;
                        sweep.measure(candidate, setting)
                    })?;
                }
            }
        }
    }
    sweep.tell()
}

/// The grid of settings; one value of each where none is given, that of the protocol.
fn settings(
    args: &EvaluateSweepArgs,
    protocol: &Protocol,
    golden: Option<(&str, f64, f64)>,
) -> Result<Vec<Setting>> {
    let sampling = protocol.sampling.unwrap_or_default();
    let values = |given: &[f64], default: f64| -> Vec<f64> {
        if given.is_empty() { vec![default] } else { given.to_vec() }
    };
    let swept = [&args.guidance, &args.guidance_power, &args.temperature];
    if let Some((key, ..)) = golden {
        let keys = ["guidance", "guidance_power", "temperature"];
        let position = keys.iter().position(|known| *known == key);
        let position =
            position.with_context(|| format!("--golden {key}: it takes {}", keys.join(" or ")))?;
        ensure!(swept[position].is_empty(), "--golden {key}: leave out the list of its values");
        ensure!(args.evaluations > 1, "--golden takes at least 2 --evaluations");
    }
    let mut found = Vec::new();
    for &guidance in &values(&args.guidance, sampling.guidance) {
        for &guidance_power in &values(&args.guidance_power, sampling.guidance_power) {
            for &temperature in &values(&args.temperature, sampling.temperature) {
                let setting = Setting { step: None, guidance, guidance_power, temperature };
                config(&sampling, &setting).validate()?;
                found.push(setting);
            }
        }
    }
    Ok(found)
}

fn config(base: &SamplingConfig, setting: &Setting) -> SamplingConfig {
    let &Setting { guidance, guidance_power, temperature, .. } = setting;
    SamplingConfig { guidance, guidance_power, temperature, ..*base }
}

/// The model, or each checkpoint of the run.
fn candidates(args: &EvaluateSweepArgs) -> Result<Vec<Candidate>> {
    let Some(run) = &args.run else {
        return Ok(vec![Candidate { step: None, checkpoint: None }]);
    };
    let checkpoints = Checkpoint::of_run(run)?;
    ensure!(
        !checkpoints.is_empty(),
        "{} has no checkpoints; a recipe's `keep_checkpoints` says how many are kept",
        run.display()
    );
    let candidate = |(step, path)| Candidate { step: Some(step), checkpoint: Some(path) };
    Ok(checkpoints.into_iter().map(candidate).collect())
}

impl Sweep<'_> {
    /// The value to minimize at a setting, measured now or before.
    fn measure(&mut self, candidate: &Candidate, setting: Setting) -> Result<f64> {
        let digest = self.digest(candidate)?;
        let of = json!({
            "count": self.protocol.count,
            "seed": self.protocol.seed,
            "model": digest,
            "computed": self.compute.name(),
            "extractor": extractor_digest(&self.extractor),
            "reference": [self.reference.count, self.reference.checksum()],
            "resamples": self.args.resamples,
        });
        if !self.visited.iter().any(|(visited, _)| *visited == setting) {
            self.visited.push((setting, of.clone()));
        }
        if let Some(point) = self.points.find(&setting, &of) {
            return Ok(point.distance.value);
        }
        let folder = self.args.out.join("points").join(setting.folder());
        let mut identity = of.clone();
        identity["setting"] = serde_json::to_value(setting)?;
        let parts = Parts::open(&folder, &identity, self.protocol.count)?;
        if !parts.missing().is_empty() {
            self.draw(candidate, &digest, setting, &parts)?;
        }
        let classes = self.base.generator_config()?.classes;
        let seen = sampling::seen(&parts, classes)?;
        let (distance, quality) = self.estimate(&seen)?;
        self.points.add(Point { setting, of, distance, quality })?;
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(distance.value)
    }

    /// What a candidate's weights are known by.
    fn digest(&self, candidate: &Candidate) -> Result<String> {
        if let Some((step, digest, _)) = &self.sampler
            && *step == candidate.step
        {
            return Ok(digest.clone());
        }
        let generator = match &candidate.checkpoint {
            Some(path) => path.clone(),
            None => self.base.generator_path(),
        };
        let tokenizer = public::hash_of(&self.base.tokenizer_path())?;
        Ok(format!("{tokenizer} {}", public::hash_of(&generator)?))
    }

    fn draw(
        &mut self,
        candidate: &Candidate,
        digest: &str,
        setting: Setting,
        parts: &Parts,
    ) -> Result<()> {
        if self.sampler.as_ref().is_none_or(|(step, ..)| *step != candidate.step) {
            let sampler = self.open(candidate)?;
            self.sampler = Some((candidate.step, digest.to_owned(), sampler));
        }
        let (_, _, sampler) = self.sampler.as_ref().context("the model is open")?;
        let mut progress = Progress::new("pictures", self.protocol.count as u64);
        let sampling = config(&self.protocol.sampling.unwrap_or_default(), &setting);
        let seed = self.protocol.seed;
        parts.work(
            Shard::WHOLE,
            |range, done| sampler.part(&self.extractor, &sampling, seed, range, done),
            |done| progress.set(done as u64),
        )?;
        progress.finish();
        Ok(())
    }

    /// Opens a model, or a checkpoint as the model folder that the run exported then.
    fn open(&self, candidate: &Candidate) -> Result<Sampler> {
        let decoder = DecoderArgs { decoder: self.protocol.decoder };
        let open =
            |model: &Model| Sampler::open(&self.compute, model, &decoder, self.args.batch.batch);
        let Some(path) = &candidate.checkpoint else { return open(&self.base) };
        let generator = Checkpoint::exported(path)?;
        let folder = tempfile::tempdir_in(&self.args.out)
            .with_context(|| format!("cannot write to {}", self.args.out.display()))?;
        let contents = ModelContents {
            config: &self.base.config,
            classes: &self.base.classes,
            tokenizer: &self.base.tokenizer_tensors()?,
            generator: Some(&generator),
            format: StorageFormat::F32,
            readme: None,
        };
        let model = contents.write(folder.path().join("model"))?;
        open(&model).with_context(|| {
            format!(
                "{} is no checkpoint of the generator of {}",
                path.display(),
                self.base.path().display()
            )
        })
    }

    /// The distance and the quality of samples, with their deviations by the bootstrap.
    fn estimate(&self, seen: &Seen) -> Result<(Estimate, Option<Estimate>)> {
        let theirs = &self.reference.statistics.pool;
        let pool = seen.pool().context("there are no pictures")?;
        let (count, resamples) = (pool.rows(), self.args.resamples as usize);
        let seed = self.protocol.seed;
        let mut progress = Progress::new("resamples", u64::from(self.args.resamples));
        let mut done = 0;
        let deviation = bootstrap_deviation(count, resamples, seed, |chosen| {
            let mut moments = Moments::new(pool.width());
            moments.add(0, &pool.select(chosen))?;
            done += 1;
            progress.set(done);
            frechet_distance(&moments.gaussian()?, theirs)
        })?;
        progress.finish();
        let value = frechet_distance(&seen.pool_gaussian()?, theirs)?;
        let distance = Estimate { value, deviation };
        if let Some(logits) = seen.logits() {
            let splits = ScoreSplits::GUIDED_DIFFUSION;
            let deviation = bootstrap_deviation(count, resamples, seed, |chosen| {
                Ok::<_, metrics::MetricsError>(
                    inception_score(&logits.select(chosen), splits)?.mean,
                )
            })?;
            let value = inception_score(logits, splits)?.mean;
            return Ok((distance, Some(Estimate { value, deviation })));
        }
        let Some(compared) = self.reference.pool().filter(|rows| rows.rows() > NEIGHBOURS) else {
            return Ok((distance, None));
        };
        let value = precision_recall(compared, pool, NEIGHBOURS)?.precision;
        // A fraction of samples: what the bootstrap tends to is known.
        let deviation = (value * (1.0 - value) / count as f64).sqrt();
        Ok((distance, Some(Estimate { value, deviation })))
    }

    /// The points of this call, in the order of the settings.
    fn table(&self) -> Vec<&Point> {
        let mut found: Vec<&Point> =
            self.visited.iter().filter_map(|(setting, of)| self.points.find(setting, of)).collect();
        found.sort_by(|one, other| {
            let [one, other] = [one, other].map(|point| point.setting.values().map(|(_, v)| v));
            let pairs = one.iter().zip(&other);
            pairs.fold(std::cmp::Ordering::Equal, |order, (a, b)| order.then(a.total_cmp(b)))
        });
        found
    }

    fn tell(&self) -> Result<()> {
        let points = self.table();
        let best = points
            .iter()
            .min_by(|one, other| one.distance.value.total_cmp(&other.distance.value))
            .context("there are no points")?;
        let (distance, quality) = match self.extractor.is_inception() {
            true => ("FID", "Inception Score"),
            false => ("distance (Lite0, no FID)", "precision (Lite0)"),
        };
        self.draw_figures(&points, distance, quality)?;
        // Differences of independent estimates; with common noise it is cautious.
        let undecided = |point: &Point| {
            let apart = point.distance.value - best.distance.value;
            let deviation = point.distance.deviation.hypot(best.distance.deviation);
            apart < CONFIDENCE * deviation
        };
        if self.args.json {
            let all = points
                .iter()
                .map(|point| {
                    let mut object = serde_json::to_value(point)?;
                    object["as_good_as_the_least"] = undecided(point).into();
                    Ok(object)
                })
                .collect::<Result<Vec<Value>>>()?;
            let object = json!({
                "points": all,
                "least": best.setting,
                "extractor": self.extractor.name(),
                "samples": self.protocol.count,
            });
            return progress::result(&object.to_string());
        }
        let estimate =
            |estimate: &Estimate| format!("{:>12.4} ± {:<9.4}", estimate.value, estimate.reach());
        let mut text = format!(
            "{:>8} {:>9} {:>7} {:>12} {distance:>24} {quality:>24}",
            "step", "guidance", "power", "temperature"
        );
        for point in &points {
            let Setting { step, guidance, guidance_power, temperature } = point.setting;
            let step = step.map_or_else(|| "–".to_owned(), |step| step.to_string());
            let quality = point.quality.as_ref().map_or_else(String::new, estimate);
            let mark = if point == best {
                "  least"
            } else if undecided(point) {
                "  not told apart from it"
            } else {
                ""
            };
            text.push_str(&format!(
                "\n{step:>8} {guidance:>9} {guidance_power:>7} {temperature:>12} {} {quality}{mark}",
                estimate(&point.distance)
            ));
        }
        text.push_str(&format!(
            "\n± is 1.96 standard deviations over {} bootstrap resamples of the samples",
            self.args.resamples
        ));
        progress::result(&text)
    }

    /// The distance over what was swept most finely, and over quality: a line for all else.
    fn draw_figures(&self, points: &[&Point], distance: &str, quality: &str) -> Result<()> {
        let different = |index: usize| -> usize {
            let values = points.iter().map(|point| point.setting.values()[index].1.to_bits());
            values.collect::<BTreeSet<_>>().len()
        };
        let counts: Vec<usize> = (0..4).map(different).collect();
        // The first of the finest: a run's steps, then guidance.
        let swept = (0..4).rev().max_by_key(|&index| counts[index]).unwrap_or_default();
        let others = |point: &Point| -> String {
            let values = point.setting.values();
            let named = values
                .iter()
                .enumerate()
                .filter(|&(index, _)| index != swept && counts[index] > 1)
                .map(|(_, (name, value))| format!("{name} {value}"));
            named.collect::<Vec<_>>().join(", ")
        };
        let mut names: Vec<String> = Vec::new();
        for point in points {
            let name = others(point);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let chart = |x: &str, dot: &dyn Fn(&Point) -> Option<Dot>| Chart {
            title: String::new(),
            x: Axis::new(x),
            y: Axis::new(distance),
            series: names
                .iter()
                .enumerate()
                .flat_map(|(color, name)| {
                    let dots: Vec<Dot> = points
                        .iter()
                        .filter(|point| others(point) == *name)
                        .filter_map(|point| dot(point))
                        .collect();
                    [
                        Series::line(name.clone(), dots.clone()).with_color(color),
                        Series::dots("", dots).with_color(color),
                    ]
                })
                .collect(),
        };
        let label = points.first().map_or("", |point| point.setting.values()[swept].0);
        let by_setting = chart(label, &|point| {
            Some(Dot {
                x: point.setting.values()[swept].1,
                y: point.distance.value,
                y_error: Some(point.distance.reach()),
                ..Dot::default()
            })
        });
        let by_quality = chart(quality, &|point| {
            let quality = point.quality?;
            Some(Dot {
                x: quality.value,
                y: point.distance.value,
                x_error: Some(quality.reach()),
                y_error: Some(point.distance.reach()),
                label: point.setting.values()[swept].1.to_string(),
            })
        });
        let mut panels = vec![by_setting];
        if points.iter().any(|point| point.quality.is_some()) {
            panels.push(by_quality);
        }
        let figure = Figure::new(panels);
        for name in ["sweep.svg", "sweep.png"] {
            figure.write(&self.args.out.join(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_close_in_on_the_least_value() {
        let mut places = Vec::new();
        golden_section(1.0, 12.0, 10, |x| {
            places.push(x);
            Ok((x - 4.2).powi(2) + 1.0)
        })
        .unwrap();
        assert_eq!(places.len(), 10);
        // 11 · 0.618⁹ is the interval that is left.
        let nearest = places.iter().map(|x| (x - 4.2).abs()).fold(f64::INFINITY, f64::min);
        assert!(nearest < 11.0 * 0.618_f64.powi(9), "{places:?}");
        assert!((places[9] - 4.2).abs() < 11.0 * 0.618_f64.powi(8), "{places:?}");
        // The least value at an end.
        let mut last = 0.0;
        golden_section(0.0, 1.0, 12, |x| {
            last = x;
            Ok(x)
        })
        .unwrap();
        assert!(last < 0.01, "{last}");
        assert!(golden_section(0.0, 1.0, 5, |_| bail!("no")).is_err());
    }

    #[test]
    fn should_read_ranges() {
        assert_eq!(golden_range("guidance=1:12.5").unwrap(), ("guidance", 1.0, 12.5));
        for wrong in ["guidance", "guidance=1", "guidance=3:1", "guidance=a:b", "guidance=1:inf"] {
            assert!(golden_range(wrong).unwrap_err().to_string().contains("KEY=LOW:HIGH"));
        }
    }
}
