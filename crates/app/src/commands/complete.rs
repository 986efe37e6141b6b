//! `alitok complete`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use pipeline::{
    Device, class_requests, prompt_requests, requests_without_class, requests_without_prompt,
};

use super::generate::Outputs;
use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, ModelArgs, OutputArgs, SamplingArgs},
    images, models, progress,
};

/// Keep the top of a picture and draw the rest
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok complete cat.png --rows 4 --class 'Animals & Nature' --count 4 --out cats/
  alitok complete cat.png --rows 8 --model models/words --prompt 'a cat on a roof' --out cats/")]
pub(crate) struct CompleteArgs {
    /// A picture of any size.
    pub(crate) image: PathBuf,
    /// Rows of patches to keep, at least 1.
    #[arg(long)]
    pub(crate) rows: usize,
    /// Class, by name or number. Without one the rest is drawn as training draws where it leaves the
    /// class out: the given rows alone say what it becomes.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) class: Option<String>,
    /// What the picture shows, in words, of a model that reads prompts.
    #[arg(long, value_name = "TEXT", conflicts_with = "class")]
    pub(crate) prompt: Option<String>,
    /// Number of completions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) crop: CropArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

pub(crate) fn run(args: &CompleteArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let (count, seed) = (args.count as usize, args.sampling.seed);
    let reads_words =
        args.prompt.is_some() || args.class.is_none() && model.config.language.is_some();
    let mut requests = if reads_words {
        let prompts = model.prompts()?;
        match &args.prompt {
            Some(text) => prompt_requests(&prompts, std::slice::from_ref(text), count, seed)?,
            None => {
                progress::note("no --prompt: the rest is drawn without one");
                requests_without_prompt(&prompts, count, seed)
            }
        }
    } else {
        let generator = model.generator_config()?;
        match &args.class {
            Some(class) => class_requests(&[models::class(&model, class)?], count, seed),
            // A single class is no choice.
            None if generator.classes == 1 => class_requests(&[0], count, seed),
            None => {
                progress::note("no --class: the rest is drawn without one");
                requests_without_class(generator, count, seed)
            }
        }
    };
    let config = &model.config.tokenizer;
    let layout = config.layout();
    ensure!(
        (1..=layout.rows()).contains(&args.rows),
        "--rows {}: this model's pictures have {} rows of patches; keep 1 to {1}",
        args.rows,
        layout.rows(),
    );
    let picture = images::read(&args.image, config.image, &args.crop)?;
    let mut forced = args.compute.compute(device)?.encoder(&model)?.encode(&picture)?;
    forced.truncate(layout.len_of_rows(args.rows));
    for request in &mut requests {
        request.forced.clone_from(&forced);
    }
    let outputs = Outputs {
        model: &model,
        compute: args.compute,
        sampling: &args.sampling,
        decoder: &args.decoder,
        output: &args.output,
        columns: f64::from(args.count).sqrt().ceil() as usize,
        prompts: args.prompt.is_some().then_some(1),
    };
    outputs.draw(&requests, device)
}
