//! `alitok generate`

use anyhow::{Context, Result};
use clap::Args;
use generator::Request;
use model::Model;
use pipeline::{Device, Drawing, PreviewWriter, SampleWriter, class_requests};
use tokenizer::DecoderKind;

use crate::{
    args::{ComputeArgs, DecoderArgs, DraftsName, ModelArgs, OutputArgs, SamplingArgs},
    models,
    progress::{self, Progress},
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
    /// Classes, by name or number, or `all`; `alitok inspect MODEL` lists them.
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

/// What becomes of pictures that are drawn.
pub(crate) struct Outputs<'a> {
    pub(crate) model: &'a Model,
    pub(crate) compute: ComputeArgs,
    pub(crate) sampling: &'a SamplingArgs,
    pub(crate) decoder: &'a DecoderArgs,
    pub(crate) output: &'a OutputArgs,
    /// Columns of a grid.
    pub(crate) columns: usize,
}

impl Outputs<'_> {
    /// Draws requests and writes them. Whatever can be refused is refused before anything is drawn.
    pub(crate) fn draw(&self, requests: &[Request], device: Option<Device>) -> Result<()> {
        let Self { model, compute, sampling: args, decoder, output, columns } = self;
        let sampling = pipeline::sampling(model, &args.changes())?;
        let labels = requests.iter().map(|request| request.condition.label()).collect();
        let (count, replace) = (requests.len(), output.replace.replace);
        let samples = SampleWriter::new(&output.out, count, labels, *columns, replace)?;
        if let Some(previews) = &output.previews {
            samples.check_previews(previews)?;
        }
        let compute = compute.compute(device)?;
        let drawer = match args.drafts {
            DraftsName::None => compute.drawer(model)?,
            drafts => compute.drawer_with_drafts(model, drafts.into()).context("--drafts")?,
        };
        let decoder =
            samples.needs_pictures().then(|| compute.decoder(model, decoder.kind())).transpose()?;
        let causal =
            output.previews.as_ref().map(|_| compute.decoder(model, Some(DecoderKind::Causal)));
        let causal = causal.transpose()?;
        let previews = match (&output.previews, &causal) {
            (Some(folder), Some(causal)) => {
                Some(PreviewWriter::new(folder, &**causal, replace).context("--previews")?)
            }
            _ => None,
        };
        let batch = args.batch.batch as usize;
        let mut drawing = Drawing::of(&*drawer, requests, &sampling, batch)?.in_order();
        let length = drawer.config().layout.len();
        let mut progress = Progress::new("tokens", (requests.len() * length) as u64);
        let drawn = std::iter::from_fn(|| {
            let event = drawing.next();
            progress.set(drawing.decided() as u64);
            event
        });
        samples.write(decoder.as_deref(), previews.as_ref(), drawn)?;
        progress.finish();
        progress::wrote(count, "picture", &output.out);
        Ok(())
    }
}

/// The classes of these names or numbers; `all` stands for every one, unless a class is called so.
fn classes(model: &Model, names: &[String]) -> Result<Vec<usize>> {
    let all =
        names.len() == 1 && names[0] == "all" && !model.classes.iter().any(|name| name == "all");
    if all {
        return Ok((0..model.generator_config()?.classes).collect());
    }
    names.iter().map(|class| models::class(model, class)).collect()
}

pub(crate) fn run(args: &GenerateArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    model.generator_config()?;
    let classes = classes(&model, &args.class)?;
    pipeline::check_count(classes.len(), args.count as usize)?;
    let requests = class_requests(&classes, args.count as usize, args.sampling.seed);
    // One column a class, or a square of a single one.
    let columns = match classes.len() {
        1 => (requests.len() as f64).sqrt().ceil() as usize,
        several => several,
    };
    let outputs = Outputs {
        model: &model,
        compute: args.compute,
        sampling: &args.sampling,
        decoder: &args.decoder,
        output: &args.output,
        columns,
    };
    outputs.draw(&requests, device)
}
