//! `alitok bench speculation`

use std::{sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use clap::Args;
use engine::{Drafts, Event, Generator, Precision, Scheduler, Weights};
use generator::{Condition, Request, SamplingConfig};
use serde_json::json;
use tokens::CodebookIndex;

use super::preset_config;
use crate::{
    args::{GeneratorPreset, ModelArgs, PrecisionName},
    models,
    progress::{self, Progress},
    tuning,
};

/// Draw pictures one at a time while later tokens are tried in the same pass (speculative decoding)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok bench speculation --model mini --guidance 1 5 11
  alitok bench speculation --preset b --precision bf16 --guidance 11 --pictures 1

Drafts are the step before's own choices (Jacobi decoding), those of the same model in int8, or those of
--drafter. The tokens must be those of a picture drawn without, or it fails. With random weights
(--preset) the noise decides nearly alone, so that nearly all drafts are right: then only the seconds
of a pass mean something, not the tokens that it makes.")]
pub(crate) struct BenchSpeculationArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Random weights in this size and the paper's layout, instead of a model.
    #[arg(long, value_enum, conflicts_with = "model")]
    pub(crate) preset: Option<GeneratorPreset>,
    /// A smaller model that drafts: of the same tokenizer and classes.
    #[arg(long, value_name = "MODEL", conflicts_with = "preset")]
    pub(crate) drafter: Option<String>,
    /// Number format of the computation.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub(crate) precision: PrecisionName,
    /// Strengths of guidance.
    #[arg(long, num_args = 1.., default_values_t = [1.0, 3.0, 5.0, 7.0, 11.0])]
    pub(crate) guidance: Vec<f64>,
    /// Tokens that are tried at a time, beside the next one.
    #[arg(long, num_args = 1.., default_values_t = [1, 3, 7], value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) window: Vec<u32>,
    /// Pictures, drawn one after the other.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pictures: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What was drawn one picture at a time, in how many passes over the weights, and how long it took.
struct Drawn {
    tokens: Vec<Vec<CodebookIndex>>,
    passes: usize,
    seconds: f64,
}

fn draw(
    generator: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    drafts: Drafts<&Generator>,
    window: usize,
) -> Result<Drawn> {
    let mut scheduler = Scheduler::new(generator, 1)?.with_drafts(drafts, window)?;
    let (mut tokens, mut passes, mut events) = (Vec::new(), 0, Vec::new());
    let started = Instant::now();
    for request in requests {
        scheduler.submit(request.clone(), *sampling)?;
        while !scheduler.is_idle() {
            scheduler.step(&mut events);
            passes += 1;
        }
        for event in events.drain(..) {
            match event {
                Event::Row { .. } => {}
                Event::Finished { tokens: drawn, .. } => tokens.push(drawn),
                Event::Failed { error, .. } => return Err(error.into()),
            }
        }
    }
    Ok(Drawn { tokens, passes, seconds: started.elapsed().as_secs_f64() })
}

pub(super) fn run(args: &BenchSpeculationArgs) -> Result<()> {
    let pool = tuning::pool();
    let model = args.preset.is_none().then(|| models::open(&args.model.model)).transpose()?;
    let config = match (&model, args.preset) {
        (Some(model), _) => model.generator_config()?.clone(),
        (None, preset) => {
            let tokenizer = tokenizer::presets::paper(256, 4096);
            let preset = preset.unwrap_or(GeneratorPreset::B);
            preset_config(preset, tokenizer.layout(), tokenizer.codes)
        }
    };
    let weights = match &model {
        Some(model) => model.generator_file()?.into(),
        None => Weights::Random,
    };
    let open = |precision| Generator::load(weights.clone(), &config, precision, Arc::clone(&pool));
    let precision = Precision::from(args.precision);
    let generator = open(precision)?;
    let mut drafters = Vec::new();
    if precision != Precision::Int8 {
        drafters.push(("int8".to_owned(), open(Precision::Int8)?));
    }
    if let Some(name) = &args.drafter {
        let folder = models::open(name)?;
        let small = folder.generator_config()?;
        let alike = (small.layout, small.codes, small.classes)
            == (config.layout, config.codes, config.classes);
        ensure!(
            alike,
            "{name}: a drafter has the tokens and classes of the model that it drafts for"
        );
        let file = folder.generator_file()?;
        drafters.push((name.clone(), Generator::load(file, small, precision, Arc::clone(&pool))?));
    }
    let mut ways: Vec<(&str, Drafts<&Generator>)> = vec![("own", Drafts::Own)];
    ways.extend(drafters.iter().map(|(name, drafter)| (name.as_str(), Drafts::Of(drafter))));

    let requests: Vec<Request> = (0..u64::from(args.pictures))
        .map(|index| Request {
            condition: Condition::Class(index as usize % config.classes),
            seed: 1,
            index,
            forced: Vec::new(),
        })
        .collect();
    let rounds = args.guidance.len() * (1 + ways.len() * args.window.len());
    let mut progress = Progress::new("rounds", rounds as u64);
    let (mut rows, mut done) = (Vec::new(), 0);
    for &guidance in &args.guidance {
        let defaults =
            model.as_ref().map_or_else(SamplingConfig::default, |model| model.config.sampling);
        let sampling = SamplingConfig { guidance, ..defaults };
        sampling.validate()?;
        // The first picture touches memory for the first time.
        draw(&generator, &requests[..1], &sampling, Drafts::None, 0)?;
        let plain = draw(&generator, &requests, &sampling, Drafts::None, 0)?;
        let decided = plain.tokens.iter().map(Vec::len).sum::<usize>() as f64;
        let mut row = |drafts: &str, window: usize, drawn: &Drawn| {
            rows.push(json!({
                "guidance": guidance,
                "drafts": drafts,
                "window": window,
                "tokens_per_pass": decided / drawn.passes as f64,
                "seconds_per_image": drawn.seconds / requests.len() as f64,
                "speedup": plain.seconds / drawn.seconds,
            }));
            done += 1;
            progress.set(done);
        };
        row("none", 0, &plain);
        for &(name, drafts) in &ways {
            for &window in &args.window {
                let drawn = draw(&generator, &requests, &sampling, drafts, window as usize)?;
                ensure!(drawn.tokens == plain.tokens, "drafts of {name} changed the tokens");
                row(name, window as usize, &drawn);
            }
        }
    }
    progress.finish();
    if args.json {
        let all = json!({
            "precision": precision.name(),
            "pictures": requests.len(),
            "instruction_set": generator.instruction_set(),
            "rows": rows,
        });
        return progress::result(&all.to_string());
    }
    let mut lines =
        vec!["guidance  drafts      window  tokens a pass  s an image  speed".to_owned()];
    for row in &rows {
        lines.push(format!(
            "{:>8}  {:<10}  {:>6}  {:>13.2}  {:>10.3}  {:>5.2}",
            row["guidance"],
            row["drafts"].as_str().unwrap_or_default(),
            row["window"],
            row["tokens_per_pass"].as_f64().unwrap_or_default(),
            row["seconds_per_image"].as_f64().unwrap_or_default(),
            row["speedup"].as_f64().unwrap_or_default(),
        ));
    }
    progress::result(&lines.join("\n"))
}
