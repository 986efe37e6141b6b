//! Looking for the best guidance, power and temperature, and comparing the checkpoints of a run.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use charts::{Axis, Chart, Figure, Point as Dot, Series};
use files::{Home, TensorMap, safetensors::StorageFormat};
use generator::SamplingConfig;
use metrics::{
    Moments, ScoreSplits, bootstrap_deviation, frechet_distance, inception_score, precision_recall,
};
use model::{Model, ModelContents};
use pipeline::Compute;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use token_cache::Shard;
use weights::public;

use crate::{
    EvaluationError, Observer,
    comparison::{NEIGHBOURS, SeenReference},
    extractor::{Extractor, FeatureKind, Measure, Naming, Quantity},
    generation::{self, Sampler},
    observer,
    parts::Parts,
    pictures::Seen,
    protocol::{Kind, Protocol},
    run::{open_reference, to_value},
};

/// Standard deviations to either side that 95 % of a normal distribution lie within.
const CONFIDENCE: f64 = 1.96;

/// How the pictures of a point are drawn, and by which model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Of the checkpoint; none for a model.
    pub step: Option<u64>,
    /// Strength of guidance.
    pub guidance: f64,
    /// Power of the guidance's schedule.
    pub guidance_power: f64,
    /// What the logits are divided by.
    pub temperature: f64,
}

/// A setting that can be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Strength of guidance.
    Guidance,
    /// Power of the guidance's schedule.
    GuidancePower,
    /// What the logits are divided by.
    Temperature,
}

impl Swept {
    const ALL: [Self; 3] = [Self::Guidance, Self::GuidancePower, Self::Temperature];

    /// Its name, as in a protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guidance => "guidance",
            Self::GuidancePower => "guidance_power",
            Self::Temperature => "temperature",
        }
    }
}

impl Setting {
    fn folder(&self) -> String {
        let Self { step, guidance, guidance_power, temperature } = self;
        let step = step.map_or_else(String::new, |step| format!("step-{step:08}_"));
        format!("{step}guidance-{guidance}_power-{guidance_power}_temperature-{temperature}")
    }

    fn change(&mut self, swept: Swept, value: f64) {
        *match swept {
            Swept::Guidance => &mut self.guidance,
            Swept::GuidancePower => &mut self.guidance_power,
            Swept::Temperature => &mut self.temperature,
        } = value;
    }

    fn values(&self) -> [(&'static str, f64); 4] {
        [
            ("step", self.step.unwrap_or_default() as f64),
            ("guidance", self.guidance),
            ("guidance power", self.guidance_power),
            ("temperature", self.temperature),
        ]
    }

    fn sampling(&self, base: &SamplingConfig) -> SamplingConfig {
        let &Self { guidance, guidance_power, temperature, .. } = self;
        SamplingConfig { guidance, guidance_power, temperature, ..*base }
    }
}

/// A measure with its standard deviation over other samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The measure.
    pub value: f64,
    /// Its standard deviation.
    pub deviation: f64,
}

impl Estimate {
    /// How far the interval that holds 95 % of values reaches to either side.
    pub fn reach(&self) -> f64 {
        CONFIDENCE * self.deviation
    }
}

/// A line of `points.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// How its pictures were drawn.
    pub setting: Setting,
    /// Everything else that the numbers depend on.
    pub of: Value,
    /// FID, or the distance of another network.
    pub distance: Estimate,
    /// Inception Score, or precision where the network has no such score and the reference has
    /// pictures.
    pub quality: Option<Estimate>,
}

/// Reads the parameters of a checkpoint's generator.
type ReadCheckpoint<'a> =
    Box<dyn Fn() -> Result<TensorMap, Box<dyn std::error::Error + Send + Sync>> + 'a>;

/// A generator that is measured: the model's own, or that of a checkpoint.
#[allow(missing_debug_implementations)] // a closure has nothing to show
pub struct Candidate<'a> {
    step: Option<u64>,
    checkpoint: Option<(PathBuf, ReadCheckpoint<'a>)>,
}

impl<'a> Candidate<'a> {
    /// The model's own generator.
    pub fn model() -> Self {
        Self { step: None, checkpoint: None }
    }

    /// The generator in the file `path`, after so many steps of training.
    pub fn checkpoint(
        step: u64,
        path: PathBuf,
        read: impl Fn() -> Result<TensorMap, Box<dyn std::error::Error + Send + Sync>> + 'a,
    ) -> Self {
        Self { step: Some(step), checkpoint: Some((path, Box::new(read))) }
    }
}

/// Narrows one setting down to the least distance by the golden section.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Golden {
    /// The setting.
    pub swept: Swept,
    /// Least value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Points, at least 2.
    pub evaluations: usize,
}

impl Golden {
    /// Reads `KEY=LOW:HIGH`.
    ///
    /// # Errors
    /// If the text is something else.
    pub fn parse(text: &str, evaluations: usize) -> Result<Self, EvaluationError> {
        let parse = || -> Option<(&str, f64, f64)> {
            let (key, range) = text.split_once('=')?;
            let (low, high) = range.split_once(':')?;
            let (low, high) = (low.parse().ok()?, high.parse().ok()?);
            (low < high && f64::is_finite(high - low)).then_some((key, low, high))
        };
        let (key, low, high) = parse().ok_or_else(|| {
            let problem = "write KEY=LOW:HIGH, for example guidance=1:12";
            EvaluationError::option(format!("--golden {text}"), problem)
        })?;
        let swept = Swept::ALL.into_iter().find(|swept| swept.name() == key).ok_or_else(|| {
            let names = Swept::ALL.map(Swept::name).join(" or ");
            EvaluationError::option(format!("--golden {key}"), format!("it takes {names}"))
        })?;
        Ok(Self { swept, low, high, evaluations })
    }

    /// Calls `evaluate` at places that close in on the least value of a function with one valley, by
    /// the golden section (Kiefer 1953): each evaluation but the first takes 0.618 of what the one
    /// before left. Places are rounded to four digits behind the point.
    ///
    /// # Errors
    /// What `evaluate` returns.
    fn section(
        &self,
        mut evaluate: impl FnMut(f64) -> Result<f64, EvaluationError>,
    ) -> Result<(), EvaluationError> {
        let ratio = (5_f64.sqrt() - 1.0) / 2.0;
        let round = |value: f64| (value * 1e4).round() / 1e4;
        let (mut low, mut high) = (self.low, self.high);
        let mut left = round(high - ratio * (high - low));
        let mut right = round(low + ratio * (high - low));
        let mut at_left = evaluate(left)?;
        let mut at_right = evaluate(right)?;
        for _ in 2..self.evaluations {
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
}

/// What is swept, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepOptions {
    /// The root of bundled things.
    pub home: Home,
    /// Name or path of the protocol.
    pub protocol: String,
    /// Changes to settings of the protocol, as `key=value`.
    pub overrides: Vec<String>,
    /// Pictures of a point, at least 2; the protocol's without it.
    pub count: Option<usize>,
    /// Values of guidance; the protocol's without any, as below.
    pub guidance: Vec<f64>,
    /// Values of the power of guidance's schedule.
    pub guidance_power: Vec<f64>,
    /// Values of the temperature.
    pub temperature: Vec<f64>,
    /// Narrows one setting down, instead of a list of its values.
    pub golden: Option<Golden>,
    /// Resamples of the bootstrap, at least 2.
    pub resamples: usize,
    /// What is compared with, where the protocol does not say where that is.
    pub reference: Option<String>,
    /// Pictures that are drawn side by side; changes memory and speed, not results.
    pub batch: usize,
    /// Folder for points.
    pub out: PathBuf,
}

impl SweepOptions {
    fn values(&self, swept: Swept) -> &[f64] {
        match swept {
            Swept::Guidance => &self.guidance,
            Swept::GuidancePower => &self.guidance_power,
            Swept::Temperature => &self.temperature,
        }
    }

    /// The grid of settings; one value of each where none is given, that of the protocol.
    fn settings(&self, sampling: &SamplingConfig) -> Result<Vec<Setting>, EvaluationError> {
        if let Some(golden) = &self.golden {
            let option = || format!("--golden {}", golden.swept.name());
            if !self.values(golden.swept).is_empty() {
                let problem = "leave out the list of its values";
                return Err(EvaluationError::option(option(), problem));
            }
            if golden.evaluations < 2 {
                let problem = "it takes at least 2 --evaluations";
                return Err(EvaluationError::option(option(), problem));
            }
        }
        let values = |swept: Swept, default: f64| -> Vec<f64> {
            let given = self.values(swept);
            if given.is_empty() { vec![default] } else { given.to_vec() }
        };
        let mut found = Vec::new();
        for &guidance in &values(Swept::Guidance, sampling.guidance) {
            for &guidance_power in &values(Swept::GuidancePower, sampling.guidance_power) {
                for &temperature in &values(Swept::Temperature, sampling.temperature) {
                    let setting = Setting { step: None, guidance, guidance_power, temperature };
                    setting.sampling(sampling).validate()?;
                    found.push(setting);
                }
            }
        }
        Ok(found)
    }
}

/// The points of an experiment, and where they are kept.
#[derive(Debug)]
struct Points {
    path: PathBuf,
    /// All lines, those of other experiments too, as they stand in the file: reading a number and
    /// writing it again might change its last digit.
    lines: Vec<(String, Point)>,
}

impl Points {
    fn open(folder: &Path) -> Result<Self, EvaluationError> {
        fs::create_dir_all(folder).map_err(EvaluationError::file("make the folder", folder))?;
        let path = folder.join("points.jsonl");
        if !path.exists() {
            return Ok(Self { path, lines: Vec::new() });
        }
        let text = fs::read_to_string(&path).map_err(EvaluationError::file("read", &path))?;
        let lines = text
            .lines()
            .enumerate()
            .map(|(line, text)| match serde_json::from_str(text) {
                Ok(point) => Ok((text.to_owned(), point)),
                Err(error) => {
                    let (path, line) = (path.clone(), Some(line + 1));
                    let problem = format!("is no point: {error}; remove it");
                    Err(EvaluationError::Content { path, line, problem })
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { path, lines })
    }

    fn find(&self, setting: &Setting, of: &Value) -> Option<&Point> {
        let mut points = self.lines.iter().map(|(_, point)| point);
        points.find(|point| point.setting == *setting && point.of == *of)
    }

    fn add(&mut self, point: Point) -> Result<(), EvaluationError> {
        let line = serde_json::to_string(&point).map_err(|error| {
            EvaluationError::content(&self.path, format!("cannot take a point: {error}"))
        })?;
        self.lines.push((line, point));
        let text: String = self.lines.iter().map(|(line, _)| format!("{line}\n")).collect();
        files::write_file(&self.path, |file| file.write_all(text.as_bytes()))
            .map_err(EvaluationError::file("write", &self.path))
    }
}

/// What is measured, and with what.
struct Sweep<'a> {
    options: &'a SweepOptions,
    protocol: Protocol,
    base: &'a Model,
    compute: &'a Compute,
    extractor: &'a Extractor,
    reference: SeenReference,
    points: Points,
    /// Settings measured in this call, in order.
    visited: Vec<(Setting, Value)>,
    /// The models that are open, with the step of their checkpoint.
    sampler: Option<(Option<u64>, String, Sampler)>,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepResult {
    /// The points of this call, in the order of the settings.
    pub points: Vec<SweepPoint>,
    /// The setting of the least distance.
    pub least: Setting,
    /// The network that compared, as files of statistics name it.
    pub extractor: &'static str,
    /// Samples of a point.
    pub samples: usize,
    /// What the distance is called in a figure.
    #[serde(skip)]
    pub distance_title: String,
    /// What the quality is called in a figure.
    #[serde(skip)]
    pub quality_title: String,
}

/// A point beside the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// Whether its distance cannot be told apart from the least one.
    pub as_good_as_the_least: bool,
}

/// Prepares what a sweep measures by, before anything long begins: the protocol, with its changes.
///
/// # Errors
/// If the protocol is of another model, or draws nothing.
fn protocol(options: &SweepOptions, base: &Model) -> Result<Protocol, EvaluationError> {
    let mut protocol = Protocol::read(&options.protocol, &options.overrides, base, 0)?;
    if protocol.kind != Kind::Generation {
        return Err(EvaluationError::Impossible(format!(
            "the protocol {} draws nothing; a sweep needs one of generation",
            options.protocol
        )));
    }
    if let Some(count) = options.count {
        protocol.count = count;
    }
    if protocol.count < 2 {
        return Err(EvaluationError::option("--count", "one picture has no covariance"));
    }
    Ok(protocol)
}

/// Measures candidates at settings. Finished points are kept in `points.jsonl` and not measured again.
/// `open` opens the network that the protocol compares by, given its name as `--extractor` takes it.
///
/// # Errors
/// If options contradict each other, the protocol is of another model, or pictures cannot be made.
pub fn evaluate(
    options: &SweepOptions,
    base: &Model,
    candidates: &[Candidate<'_>],
    compute: &Compute,
    open: impl FnOnce(&str) -> Result<Extractor, EvaluationError>,
    observer: &mut dyn Observer,
) -> Result<SweepResult, EvaluationError> {
    let protocol = protocol(options, base)?;
    let settings = options.settings(&protocol.sampling.unwrap_or_default())?;
    let extractor = open(protocol.extractor.name())?;
    let given = options.reference.as_deref();
    let reference = open_reference(&options.protocol, &protocol, given, &options.home, &extractor)?;
    if let Some(unfit) = reference.unfit_for_generation() {
        let problem = format!("this is no sweep of gFID: {unfit}");
        return Err(EvaluationError::Impossible(problem));
    }
    let mut notes = vec![format!(
        "each point is of {} samples: its distance compares with those of as many, not with one \
         of 50000",
        protocol.count
    )];
    notes.extend(extractor.description().caveat.map(str::to_owned));
    observer::tell(observer, &notes);
    base.generator_config()?;
    let points = Points::open(&options.out)?;
    let image = base.config.tokenizer.image;
    let reference = reference.see(&extractor, (image.width, image.height), observer)?;
    let mut sweep = Sweep {
        options,
        protocol,
        base,
        compute,
        extractor: &extractor,
        reference,
        points,
        visited: Vec::new(),
        sampler: None,
    };
    for candidate in candidates {
        for &setting in &settings {
            let mut setting = Setting { step: candidate.step, ..setting };
            match &options.golden {
                None => {
                    sweep.measure(candidate, setting, observer)?;
                }
                Some(golden) => golden.section(|value| {
                    setting.change(golden.swept, value);
                    sweep.measure(candidate, setting, observer)
                })?,
            }
        }
    }
    sweep.result()
}

impl Sweep<'_> {
    /// The value to minimize at a setting, measured now or before.
    fn measure(
        &mut self,
        candidate: &Candidate<'_>,
        setting: Setting,
        observer: &mut dyn Observer,
    ) -> Result<f64, EvaluationError> {
        let digest = self.digest(candidate)?;
        let of = json!({
            "count": self.protocol.count,
            "seed": self.protocol.seed,
            "model": digest,
            "computed": self.compute.name(),
            "extractor": self.extractor.identity(),
            "reference": [self.reference.count, self.reference.checksum()],
            "resamples": self.options.resamples,
        });
        if !self.visited.iter().any(|(visited, _)| *visited == setting) {
            self.visited.push((setting, of.clone()));
        }
        if let Some(point) = self.points.find(&setting, &of) {
            return Ok(point.distance.value);
        }
        let folder = self.options.out.join("points").join(setting.folder());
        let mut identity = of.clone();
        identity["setting"] = to_value(&setting);
        let parts = Parts::open(&folder, &identity, self.protocol.count)?;
        if !parts.missing().is_empty() {
            self.draw(candidate, &digest, setting, &parts, observer)?;
        }
        let classes = self.base.generator_config()?.classes;
        let seen = generation::seen(&parts, self.extractor, classes)?;
        let (distance, quality) = self.estimate(&seen, observer)?;
        self.points.add(Point { setting, of, distance, quality })?;
        fs::remove_dir_all(&folder).map_err(EvaluationError::file("remove", &folder))?;
        Ok(distance.value)
    }

    /// What a candidate's weights are known by.
    fn digest(&self, candidate: &Candidate<'_>) -> Result<String, EvaluationError> {
        if let Some((step, digest, _)) = &self.sampler
            && *step == candidate.step
        {
            return Ok(digest.clone());
        }
        let generator = match &candidate.checkpoint {
            Some((path, _)) => path.clone(),
            None => self.base.generator_file()?.path().to_owned(),
        };
        let tokenizer = public::hash_of(self.base.tokenizer_file()?.path())?;
        Ok(format!("{tokenizer} {}", public::hash_of(&generator)?))
    }

    fn draw(
        &mut self,
        candidate: &Candidate<'_>,
        digest: &str,
        setting: Setting,
        parts: &Parts,
        observer: &mut dyn Observer,
    ) -> Result<(), EvaluationError> {
        let (seed, total) = (self.protocol.seed, self.protocol.count as u64);
        let sampling = setting.sampling(&self.protocol.sampling.unwrap_or_default());
        let (_, _, sampler) = match self.sampler.take() {
            Some(open) if open.0 == candidate.step => self.sampler.insert(open),
            _ => {
                let sampler = self.open(candidate)?;
                self.sampler.insert((candidate.step, digest.to_owned(), sampler))
            }
        };
        let mut progress = |done: usize| observer.progress("pictures", done as u64, total);
        progress(0);
        parts.work(
            Shard::WHOLE,
            |range, done| sampler.part(self.extractor, &sampling, seed, range, done),
            progress,
        )
    }

    /// Opens a model, or a checkpoint as the model folder that the run exported then.
    fn open(&self, candidate: &Candidate<'_>) -> Result<Sampler, EvaluationError> {
        let open = |model: &Model| {
            Sampler::open(self.compute, model, self.protocol.decoder, self.options.batch)
        };
        let Some((path, read)) = &candidate.checkpoint else { return open(self.base) };
        let generator = read()
            .map_err(|source| EvaluationError::At { place: path.display().to_string(), source })?;
        let out = &self.options.out;
        let folder = tempfile::tempdir_in(out).map_err(EvaluationError::file("write to", out))?;
        let contents = ModelContents {
            config: &self.base.config,
            classes: &self.base.classes,
            tokenizer: &self.base.tokenizer_tensors()?,
            generator: Some(&generator),
            format: StorageFormat::F32,
            readme: None,
        };
        let model = contents.write(folder.path().join("model"))?;
        open(&model).map_err(EvaluationError::at(format!(
            "{} is no checkpoint of the generator of {}",
            path.display(),
            self.base.path().display()
        )))
    }

    /// The distance and the quality of samples, with their deviations by the bootstrap.
    fn estimate(
        &self,
        seen: &Seen,
        observer: &mut dyn Observer,
    ) -> Result<(Estimate, Option<Estimate>), EvaluationError> {
        let theirs = &self.reference.statistics.pool;
        let pool = seen.rows(FeatureKind::Pool);
        let pool = pool.ok_or_else(|| EvaluationError::impossible("there are no pictures"))?;
        let (count, resamples) = (pool.rows(), self.options.resamples);
        let seed = self.protocol.seed;
        let mut done = 0;
        let mut resampled = || {
            observer.progress("resamples", done, resamples as u64);
            done += 1;
        };
        resampled();
        let deviation = bootstrap_deviation(count, resamples, seed, |chosen| {
            let mut moments = Moments::new(pool.width());
            moments.add(0, &pool.select(chosen))?;
            resampled();
            frechet_distance(&moments.gaussian()?, theirs)
        })?;
        let value = frechet_distance(&seen.pool_gaussian()?, theirs)?;
        let distance = Estimate { value, deviation };
        let description = self.extractor.description();
        let logits = description.features_for(Measure::Score).and_then(|kind| seen.rows(kind));
        if let Some(logits) = logits {
            let splits = ScoreSplits::GUIDED_DIFFUSION;
            let deviation = bootstrap_deviation(count, resamples, seed, |chosen| {
                Ok::<_, metrics::MetricsError>(
                    inception_score(&logits.select(chosen), splits)?.mean,
                )
            })?;
            let value = inception_score(logits, splits)?.mean;
            return Ok((distance, Some(Estimate { value, deviation })));
        }
        let Some(kind) = description.features_for(Measure::PrecisionRecall) else {
            return Ok((distance, None));
        };
        let (Some(ours), Some(theirs)) =
            (seen.rows(kind), self.reference.rows(kind).filter(|rows| rows.rows() > NEIGHBOURS))
        else {
            return Ok((distance, None));
        };
        let value = precision_recall(theirs, ours, NEIGHBOURS)?.precision;
        // A fraction of samples: what the bootstrap tends to is known.
        let deviation = (value * (1.0 - value) / count as f64).sqrt();
        Ok((distance, Some(Estimate { value, deviation })))
    }

    fn result(self) -> Result<SweepResult, EvaluationError> {
        let mut points: Vec<&Point> =
            self.visited.iter().filter_map(|(setting, of)| self.points.find(setting, of)).collect();
        points.sort_by(|one, other| {
            let [one, other] = [one, other].map(|point| point.setting.values().map(|(_, v)| v));
            let pairs = one.iter().zip(&other);
            pairs.fold(Ordering::Equal, |order, (a, b)| order.then(a.total_cmp(b)))
        });
        let least = points
            .iter()
            .min_by(|one, other| one.distance.value.total_cmp(&other.distance.value))
            .copied()
            .ok_or_else(|| EvaluationError::impossible("there are no points"))?;
        // Differences of independent estimates. Points share noise, so this is cautious.
        let undecided = |point: &Point| {
            let apart = point.distance.value - least.distance.value;
            let deviation = point.distance.deviation.hypot(least.distance.deviation);
            apart < CONFIDENCE * deviation
        };
        let (distance_title, quality_title) = titles(self.extractor);
        Ok(SweepResult {
            points: points
                .iter()
                .map(|&point| SweepPoint {
                    point: point.clone(),
                    as_good_as_the_least: undecided(point),
                })
                .collect(),
            least: least.setting,
            extractor: self.extractor.network(),
            samples: self.protocol.count,
            distance_title,
            quality_title,
        })
    }
}

/// What distance and quality are called in figures.
fn titles(extractor: &Extractor) -> (String, String) {
    let description = extractor.description();
    let distance = match description.naming {
        Naming::Fid => Quantity::Distance,
        // The shorter one.
        Naming::Own { .. } => Quantity::ReconstructionDistance,
    };
    let quality = match description.features_for(Measure::Score) {
        Some(_) => Quantity::Score,
        None => Quantity::Precision,
    };
    let title = |quantity| description.naming.name(quantity).title;
    (title(distance), title(quality))
}

impl SweepResult {
    /// The distance over what was swept most finely, and over quality: a line for all else.
    pub fn figure(&self) -> Figure {
        let different = |index: usize| -> usize {
            let points = self.points.iter();
            let values = points.map(|SweepPoint { point, .. }| point.setting.values()[index].1);
            values.map(f64::to_bits).collect::<BTreeSet<_>>().len()
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
        let points: Vec<&Point> =
            self.points.iter().map(|SweepPoint { point, .. }| point).collect();
        let mut names: Vec<String> = Vec::new();
        for point in &points {
            let name = others(point);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let chart = |x: &str, dot: &dyn Fn(&Point) -> Option<Dot>| Chart {
            title: format!("{} by {x}", self.distance_title),
            x: Axis::new(x),
            y: Axis::new(self.distance_title.as_str()),
            is_map: false,
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
        let by_quality = chart(&self.quality_title, &|point| {
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
        Figure::new(panels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(low: f64, high: f64, evaluations: usize) -> Golden {
        Golden { swept: Swept::Guidance, low, high, evaluations }
    }

    #[test]
    fn should_close_in_on_the_least_value() {
        let mut places = Vec::new();
        golden(1.0, 12.0, 10)
            .section(|x| {
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
        golden(0.0, 1.0, 12)
            .section(|x| {
                last = x;
                Ok(x)
            })
            .unwrap();
        assert!(last < 0.01, "{last}");
        let fails = |_| Err(EvaluationError::impossible("no"));
        assert!(golden(0.0, 1.0, 5).section(fails).is_err());
    }

    #[test]
    fn should_read_ranges() {
        let expected = golden(1.0, 12.5, 8);
        assert_eq!(Golden::parse("guidance=1:12.5", 8).unwrap(), expected);
        for wrong in ["guidance", "guidance=1", "guidance=3:1", "guidance=a:b", "guidance=1:inf"] {
            let told = Golden::parse(wrong, 8).unwrap_err().to_string();
            assert!(told.contains("KEY=LOW:HIGH"), "{told}");
        }
        let told = Golden::parse("top_k=1:2", 8).unwrap_err().to_string();
        assert!(told.contains("guidance_power"), "{told}");
    }
}
