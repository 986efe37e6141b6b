//! `alitok complete`

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use generator::{Condition, Request};
use pipeline::Device;

use super::generate::{Outputs, sampling};
use crate::{
    args::{ComputeArgs, CropArgs, DecoderArgs, ModelArgs, OutputArgs, SamplingArgs},
    compute::Compute,
    images::{self, SampleWriter},
    models,
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
    /// Class, by name or number.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) class: String,
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
    model.generator_config()?;
    let sampling = sampling(&model, &args.sampling)?;
    let class = model.classes.resolve(&args.class)?;
    let config = &model.config.tokenizer;
    let layout = config.layout();
    ensure!(
        (1..=layout.rows()).contains(&args.rows),
        "--rows {}: this model's pictures have {} rows of patches; keep 1 to {1}",
        args.rows,
        layout.rows(),
    );
    let picture = images::read(&args.image, config.image, &args.crop)?;
    let compute = Compute::new(&args.compute, device)?;
    let mut forced = compute.encoding(&model)?.tokens(&picture);
    forced.truncate(layout.len_of_rows(args.rows));
    let count = args.count as usize;
    let requests: Vec<Request> = (0..count as u64)
        .map(|index| Request {
            condition: Condition::Class(class),
            seed: args.sampling.seed,
            index,
            forced: forced.clone(),
        })
        .collect();
    let columns = (count as f64).sqrt().ceil() as usize;
    let samples = SampleWriter::new(&args.output.out, vec![class; count], columns)?;
    let drawing = compute.drafting(&model, args.sampling.drafts)?;
    let outputs =
        Outputs::new(samples, &compute, &model, &args.decoder, args.output.previews.as_deref())?;
    outputs.draw(&drawing, &requests, &sampling, args.sampling.batch.batch)
}
