//! `alitok generate`

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use generator::{Condition, Request, SamplingConfig};
use model::Model;
use pipeline::Device;

use crate::{
    args::{ComputeArgs, DecoderArgs, DecoderName, ModelArgs, OutputArgs, SamplingArgs},
    compute::{Compute, Decoding, Drawing},
    images::{Previews, SampleWriter},
    models,
    progress::Progress,
};

/// Draw pictures of classes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok generate --class 'Food & Drink' --count 16 --seed 1 --out food.png
  alitok generate --model models/alitok-b --class 207 --class 'red fox' --count 4 --out samples/
  alitok generate --class 0 1 2 --count 100 --out samples.npz")]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    /// Classes, by name or number; `alitok inspect MODEL` lists them.
    #[arg(long, required = true, num_args = 1.., value_name = "NAME_OR_ID")]
    pub(crate) class: Vec<String>,
    /// Pictures of each class; picture i has class i mod C.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The model's sampling defaults, changed by what the command line says.
pub(crate) fn sampling(model: &Model, args: &SamplingArgs) -> Result<SamplingConfig> {
    let defaults = model.config.sampling;
    let sampling = SamplingConfig {
        guidance: args.guidance.unwrap_or(defaults.guidance),
        guidance_power: args.guidance_power.unwrap_or(defaults.guidance_power),
        temperature: args.temperature.unwrap_or(defaults.temperature),
        top_k: args.top_k.unwrap_or(defaults.top_k),
        top_p: args.top_p.unwrap_or(defaults.top_p),
    };
    sampling.validate()?;
    Ok(sampling)
}

/// What becomes of the pictures that are drawn.
pub(crate) struct Outputs {
    pub(crate) samples: SampleWriter,
    pub(crate) decoding: Option<Decoding>,
    pub(crate) previews: Option<Previews>,
}

impl Outputs {
    /// Prepares them, before anything is drawn.
    pub(crate) fn new(
        samples: SampleWriter,
        compute: &Compute,
        model: &Model,
        decoder: &DecoderArgs,
        previews: Option<&Path>,
    ) -> Result<Self> {
        let decoding =
            samples.needs_pictures().then(|| compute.decoding(model, decoder)).transpose()?;
        let previews = match (previews, compute) {
            (None, _) => None,
            (Some(folder), Compute::Engine { .. }) => {
                let causal = DecoderArgs { decoder: Some(DecoderName::Causal) };
                let layout = model.config.tokenizer.layout();
                Some(Previews::new(folder, compute.decoding(model, &causal)?, layout)?)
            }
            (Some(_), Compute::Burn { .. }) => {
                bail!("--previews need the device `cpu`; leave out --device")
            }
        };
        Ok(Self { samples, decoding, previews })
    }

    /// Draws requests, `batch` at a time, and writes them.
    pub(crate) fn draw(
        self,
        drawing: &Drawing,
        requests: &[Request],
        sampling: &SamplingConfig,
        batch: u32,
    ) -> Result<()> {
        let length = drawing.config().layout.len();
        let mut progress = Progress::new("tokens", (requests.len() * length) as u64);
        self.samples.write(self.decoding.as_ref(), self.previews.as_ref(), |tell| {
            let batch = batch as usize;
            let progress = |done: usize| progress.set(done as u64);
            drawing.draw_and_tell(requests, sampling, batch, progress, tell)
        })?;
        progress.finish();
        Ok(())
    }
}

pub(crate) fn run(args: &GenerateArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    model.generator_config()?;
    let sampling = sampling(&model, &args.sampling)?;
    let classes: Vec<usize> =
        args.class.iter().map(|class| model.classes.resolve(class)).collect::<Result<_, _>>()?;
    let count = args.count as usize * classes.len();
    let requests: Vec<Request> = (0..count)
        .map(|index| Request {
            condition: Condition::Class(classes[index % classes.len()]),
            seed: args.sampling.seed,
            index: index as u64,
            forced: Vec::new(),
        })
        .collect();
    // One column a class, or a square of a single one.
    let columns = match classes.len() {
        1 => (count as f64).sqrt().ceil() as usize,
        several => several,
    };
    let labels = requests.iter().filter_map(|request| request.condition.label()).collect();
    let samples = SampleWriter::new(&args.output.out, labels, columns)?;
    let compute = Compute::new(&args.compute, device)?;
    let drawing = compute.drafting(&model, args.sampling.drafts)?;
    let outputs =
        Outputs::new(samples, &compute, &model, &args.decoder, args.output.previews.as_deref())?;
    outputs.draw(&drawing, &requests, &sampling, args.sampling.batch.batch)
}
