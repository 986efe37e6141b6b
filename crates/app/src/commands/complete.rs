//! `alitok complete`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use pipeline::{Device, class_requests, requests_without_class};

use super::generate::Outputs;
use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, ModelArgs, OutputArgs, SamplingArgs},
    images, models, progress,
};

/// Keep the top of a picture and draw the rest
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok complete cat.png --rows 4 --class 'Animals & Nature' --count 4 --out cats/")]
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
    let generator = model.generator_config()?;
    let (count, seed) = (args.count as usize, args.sampling.seed);
    let mut requests = match &args.class {
        Some(class) => class_requests(&[models::class(&model, class)?], count, seed),
        // A single class is no choice.
        None if generator.classes == 1 => class_requests(&[0], count, seed),
        None => {
            progress::note("no --class: the rest is drawn without one");
            requests_without_class(generator, count, seed)
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
    };
    outputs.draw(&requests, device)
}
