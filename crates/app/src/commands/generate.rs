//! `alitok generate`

use anyhow::Result;
use generator::{Request, SamplingConfig};
use weights::ModelFolder;

use crate::{
    args::{GenerateArgs, SamplingArgs},
    compute::{Compute, Decoding, Drawing},
    device::DeviceName,
    images::SampleWriter,
    model,
    progress::Progress,
};

/// The model's sampling defaults, changed by what the command line says.
pub(crate) fn sampling(model: &ModelFolder, args: &SamplingArgs) -> Result<SamplingConfig> {
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

/// Draws requests, `batch` at a time, and hands the tokens on.
pub(crate) fn draw(
    drawing: &Drawing,
    decoding: Option<&Decoding>,
    requests: &[Request],
    sampling: &SamplingConfig,
    batch: u32,
    samples: &mut SampleWriter,
) -> Result<()> {
    let length = drawing.config().layout.len();
    let mut progress = Progress::new("tokens", (requests.len() * length) as u64);
    drawing.draw(
        requests,
        sampling,
        batch as usize,
        |done| progress.set(done as u64),
        |request, tokens| samples.add(request.class, tokens, decoding),
    )?;
    progress.finish();
    Ok(())
}

pub(crate) fn run(args: &GenerateArgs, device: DeviceName) -> Result<()> {
    let model = model::open(&args.model.model)?;
    model.generator_config()?;
    let sampling = sampling(&model, &args.sampling)?;
    let classes: Vec<usize> =
        args.class.iter().map(|class| model.classes.resolve(class)).collect::<Result<_, _>>()?;
    let count = args.count as usize * classes.len();
    let requests: Vec<Request> = (0..count)
        .map(|index| Request {
            class: classes[index % classes.len()],
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
    let mut samples = SampleWriter::new(&args.out, count, columns)?;
    let compute = Compute::new(&args.compute, device)?;
    let drawing = compute.drawing(&model)?;
    let decoding =
        samples.needs_pictures().then(|| compute.decoding(&model, &args.decoder)).transpose()?;
    let decoding = decoding.as_ref();
    draw(&drawing, decoding, &requests, &sampling, args.sampling.batch, &mut samples)?;
    samples.finish(decoding)
}
