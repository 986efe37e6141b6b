//! `alitok bench`

mod speculation;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use engine::{
    Decoder, Encoder, Generator, LanguageModel, Pool, Weights, language_model::LanguageWeights,
    measure,
};
use generator::{GeneratorConfig, presets};
use pipeline::Device;
use serde_json::{Map, Value, json};
use tokenizer::TokenizerConfig;
use tokens::TokenLayout;

use crate::{
    args::{GeneratorPreset, PrecisionName},
    commands::bench::speculation::BenchSpeculationArgs,
    progress::{self, Progress},
    tuning,
};

/// Measure how fast the packed engine is on this machine
#[derive(Debug, Subcommand)]
pub(crate) enum BenchVerb {
    Generator(BenchGeneratorArgs),
    Language(BenchLanguageArgs),
    Tokenizer(BenchTokenizerArgs),
    Speculation(BenchSpeculationArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Number format of the computation.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub(crate) precision: PrecisionName,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// A peer's figures on this machine, a JSON object with some of the same keys, to be placed
    /// beside.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) against: Option<PathBuf>,
}

/// Draw guided pictures with random weights (paper, Tables 11 and 12)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok bench generator --preset b --precision bf16 --batch 1 --json
  alitok bench generator --preset xl --size 512 --steps 20
  alitok bench generator --preset b --no-cache --steps 8")]
pub(crate) struct BenchGeneratorArgs {
    /// Size of the generator.
    #[arg(long, value_enum, default_value_t = GeneratorPreset::B)]
    pub(crate) preset: GeneratorPreset,
    /// Layout of the tokens.
    #[arg(long, value_enum, default_value_t = TokenizerPreset::Paper)]
    pub(crate) layout: TokenizerPreset,
    /// Side of the pictures in pixels, in the paper's layout.
    #[arg(long, default_value_t = 256, value_parser = side)]
    pub(crate) size: usize,
    /// Leave the prefix out.
    #[arg(long)]
    pub(crate) no_prefix: bool,
    /// Compute all positions so far again in every step.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Pictures that are drawn side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Time only this many steps, evenly spread over the sequence. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

/// Draw guided pictures of prompts with random weights, of LLaVA-OneVision-0.5B's size (paper, A.4)
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok bench language --precision int8 --prompt-tokens 64 --steps 20")]
pub(crate) struct BenchLanguageArgs {
    /// Side of the pictures in pixels.
    #[arg(long, default_value_t = 512, value_parser = side)]
    pub(crate) size: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) prompt_tokens: u32,
    /// Pictures that are drawn side by side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// Time only this many steps, evenly spread over the sequence. Default: all.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

/// Encode and decode pictures with random weights
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok bench tokenizer --preset paper --precision bf16 --json")]
pub(crate) struct BenchTokenizerArgs {
    /// Architecture.
    #[arg(long, value_enum, default_value_t = TokenizerPreset::Paper)]
    pub(crate) preset: TokenizerPreset,
    /// Pictures a timing, one after the other: the halves take one picture at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) batch: u32,
    /// How often each half is timed; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: u32,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

/// A tokenizer's architecture, and with it the layout of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenizerPreset {
    /// The paper's.
    Paper,
    /// The authors' released one: one prefix token more.
    Released,
    /// The bundled model's, at 64 pixels.
    Mini,
}

fn side(text: &str) -> Result<usize, String> {
    match text {
        "256" => Ok(256),
        "512" => Ok(512),
        _ => Err("the paper's pictures have 256 or 512 pixels a side".to_owned()),
    }
}

pub(crate) fn run(verb: &BenchVerb, device: Option<Device>) -> Result<()> {
    ensure!(
        matches!(device, None | Some(Device::Cpu)),
        "bench measures the engine for the CPU; write --device cpu, or leave --device out"
    );
    match verb {
        BenchVerb::Generator(args) => generator(args),
        BenchVerb::Language(args) => language(args),
        BenchVerb::Tokenizer(args) => tokenizer(args),
        BenchVerb::Speculation(args) => speculation::run(args),
    }
}

fn architecture(preset: TokenizerPreset, side: usize) -> TokenizerConfig {
    match preset {
        TokenizerPreset::Paper => tokenizer::presets::paper(side, 4096),
        TokenizerPreset::Released => tokenizer::presets::released(),
        TokenizerPreset::Mini => tokenizer::presets::mini(),
    }
}

fn preset_config(preset: GeneratorPreset, layout: TokenLayout, codes: usize) -> GeneratorConfig {
    let preset = match preset {
        GeneratorPreset::Mini => presets::mini,
        GeneratorPreset::B => presets::b,
        GeneratorPreset::L => presets::l,
        GeneratorPreset::Xl => presets::xl,
    };
    preset(layout, codes, 1000)
}

fn generator_config(args: &BenchGeneratorArgs) -> GeneratorConfig {
    let tokenizer = architecture(args.layout, args.size);
    let layout = tokenizer.layout();
    let layout = match args.no_prefix {
        true => TokenLayout::new(0, layout.rows(), layout.columns()),
        false => layout,
    };
    preset_config(args.preset, layout, tokenizer.codes)
}

fn generator(args: &BenchGeneratorArgs) -> Result<()> {
    let config = generator_config(args);
    let precision = args.bench.precision.into();
    let pool = tuning::pool();
    let limits = measure::limits(&pool, precision)?;
    let generator = Generator::load(Weights::Random, &config, precision, Arc::clone(&pool))?;
    let (length, batch) = (config.layout.len(), args.batch as usize);
    let positions = positions(length, args.steps);
    let steps = measure::steps(&generator, 1, batch, &positions, !args.no_cache)?;
    let mean = |of: &dyn Fn(&measure::StepTime) -> f64| {
        steps.iter().map(of).sum::<f64>() / steps.len() as f64
    };
    let seconds = mean(&|step| step.seconds);
    let least = mean(&|step| measure::least_seconds(&limits, step.bytes, step.products));
    let half = steps.len().div_ceil(2);
    let part = |steps: &[measure::StepTime]| {
        1e3 * steps.iter().map(|step| step.seconds).sum::<f64>() / steps.len() as f64
    };
    let per_image = seconds * length as f64 / batch as f64;
    let figures = json!({
        "parameters": config.parameter_count(),
        "tokens": length,
        "batch": batch,
        "steps_timed": steps.len(),
        "seconds_per_image": per_image,
        "images_per_second": 1.0 / per_image,
        "ms_per_step": 1e3 * seconds,
        "ms_per_step_first_half": part(&steps[..half]),
        "ms_per_step_second_half": part(&steps[steps.len() - half..]),
        "bytes_per_step": mean(&|step| step.bytes),
        "products_per_step": mean(&|step| step.products),
        "percent_of_limit": 100.0 * least / seconds,
        "weight_bytes": generator.weight_bytes(),
        "cache_bytes": 2 * batch * length * generator.position_bytes(),
        "instruction_set": generator.instruction_set(),
    });
    report(figures, &limits, &pool, &args.bench)
}

/// So many tokens of a picture, evenly spread; all by default.
fn positions(length: usize, steps: Option<u32>) -> Vec<usize> {
    let count = steps.map_or(length, |steps| (steps as usize).min(length));
    (0..count).map(|step| (2 * step + 1) * length / (2 * count)).collect()
}

fn language(args: &BenchLanguageArgs) -> Result<()> {
    let tokenizer = architecture(TokenizerPreset::Paper, args.size);
    let (codes, size) = (tokenizer.codes, tokenizer.token_size);
    let config = language::presets::qwen2_half_billion(tokenizer.layout(), codes, size);
    let precision = args.bench.precision.into();
    let pool = tuning::pool();
    let limits = measure::limits(&pool, precision)?;
    let model =
        LanguageModel::load(&LanguageWeights::random(), &config, precision, Arc::clone(&pool))?;
    let (prompt, batch) = (args.prompt_tokens as usize, args.batch as usize);
    let length = config.layout.len();
    let prefill = measure::prefill(&model, prompt, 1)?;
    let steps = measure::steps(&model, prompt, batch, &positions(length, args.steps), true)?;
    let mean = |of: &dyn Fn(&measure::StepTime) -> f64| {
        steps.iter().map(of).sum::<f64>() / steps.len() as f64
    };
    let seconds = mean(&|step| step.seconds);
    let least = mean(&|step| measure::least_seconds(&limits, step.bytes, step.products));
    let read = limits.read_bytes_per_second.max(limits.copy_bytes_per_second);
    // Both halves of guidance read a prompt.
    let per_image = seconds * length as f64 / batch as f64 + 2.0 * prefill.seconds;
    let figures = json!({
        "parameters": config.language_parameters() + config.image_side_parameters(),
        "tokens": length,
        "prompt_tokens": prompt,
        "batch": batch,
        "steps_timed": steps.len(),
        "seconds_per_image": per_image,
        "images_per_second": 1.0 / per_image,
        "ms_per_step": 1e3 * seconds,
        "bytes_per_step": mean(&|step| step.bytes),
        "products_per_step": mean(&|step| step.products),
        "percent_of_limit": 100.0 * least / seconds,
        "percent_of_bandwidth": 100.0 * mean(&|step| step.bytes) / read / seconds,
        "prefill_ms": 1e3 * prefill.seconds,
        "prefill_percent_of_product_limit":
            100.0 * prefill.products / limits.products_per_second / prefill.seconds,
        "weight_bytes": model.weight_bytes(),
        "cache_bytes": 2 * batch * (prompt + length) * model.position_bytes(),
        "instruction_set": model.instruction_set(),
    });
    report(figures, &limits, &pool, &args.bench)
}

fn tokenizer(args: &BenchTokenizerArgs) -> Result<()> {
    let config = architecture(args.preset, 256);
    let precision = args.bench.precision.into();
    let pool = tuning::pool();
    let limits = measure::limits(&pool, precision)?;
    let mut progress = Progress::new("rounds", u64::from(2 * args.steps));
    let mut rounds = 0;
    let mut median = |work: &mut dyn FnMut()| {
        // The first one touches memory for the first time.
        work();
        let mut times: Vec<f64> = (0..args.steps)
            .map(|_| {
                let started = Instant::now();
                (0..args.batch).for_each(|_| work());
                rounds += 1;
                progress.set(rounds);
                started.elapsed().as_secs_f64() / f64::from(args.batch)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let encoder = Encoder::load(Weights::Random, &config, precision, Arc::clone(&pool))?;
    let mut work = encoder.workspace();
    let planes = vec![0.5; 3 * config.image.height * config.image.width];
    let encode = median(&mut || drop(encoder.encode(&planes, &mut work)));
    let kind = config.best_decoder().context("the tokenizer has no decoder")?;
    let decoder = Decoder::load(Weights::Random, &config, kind, precision, Arc::clone(&pool))?;
    let mut work = decoder.workspace();
    let tokens = vec![1; config.layout().len()];
    let decode = median(&mut || drop(decoder.decode(&tokens, &mut work)));
    progress.finish();
    let percent = |products: usize, bytes: usize, seconds: f64| {
        100.0 * measure::least_seconds(&limits, bytes as f64, products as f64) / seconds
    };
    let encode_percent = percent(encoder.multiplications(), encoder.weight_bytes(), encode);
    let decode_percent = percent(decoder.multiplications(), decoder.weight_bytes(), decode);
    let figures = json!({
        "batch": args.batch,
        "encode_seconds_per_image": encode,
        "decode_seconds_per_image": decode,
        "images_per_second": 1.0 / (encode + decode),
        "encode_percent_of_limit": encode_percent,
        "decode_percent_of_limit": decode_percent,
        "percent_of_limit": (encode_percent * encode + decode_percent * decode) / (encode + decode),
        "decoder": kind.name(),
    });
    report(figures, &limits, &pool, &args.bench)
}

/// Adds what all measurements have, and prints.
fn report(figures: Value, limits: &measure::Limits, pool: &Pool, args: &BenchArgs) -> Result<()> {
    let common = json!({
        "precision": engine::Precision::from(args.precision).name(),
        "threads": pool.threads(),
        "copy_bytes_per_second": limits.copy_bytes_per_second,
        "read_bytes_per_second": limits.read_bytes_per_second,
        "product_limit_per_second": limits.products_per_second,
        "peak_bytes": peak_bytes(),
    });
    let mut all = Map::new();
    for object in [figures, common] {
        if let Value::Object(object) = object {
            all.extend(object);
        }
    }
    if let Some(path) = &args.against {
        all.insert("against".to_owned(), against(path)?);
    }
    if args.json {
        return progress::result(&Value::Object(all).to_string());
    }
    let peer = all.remove("against").unwrap_or_default();
    let lines: Vec<String> = all
        .iter()
        .map(|(name, value)| {
            let beside = peer.get(name).map_or(String::new(), |peer| format!("  {}", shown(peer)));
            format!("{name:<26} {}{beside}", shown(value))
        })
        .collect();
    progress::result(&lines.join("\n"))
}

fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:>14.4}"),
        Some(number) => format!("{number:>14}"),
        None => format!("{:>14}", value.as_str().unwrap_or("–")),
    }
}

fn against(path: &Path) -> Result<Value> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
    anyhow::ensure!(value.is_object(), "{name}: expected one object of figures");
    Ok(value)
}

/// The most memory that this process has had, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}
