//! `alitok complete`

use anyhow::{Result, ensure};
use generator::{Condition, Request};

use super::generate::{Outputs, sampling};
use crate::{
    args::CompleteArgs,
    compute::Compute,
    device::DeviceName,
    images::{self, SampleWriter},
    models,
};

pub(crate) fn run(args: &CompleteArgs, device: DeviceName) -> Result<()> {
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
    let samples = SampleWriter::new(&args.out, vec![class; count], columns)?;
    let drawing = compute.drafting(&model, args.sampling.drafts)?;
    let outputs = Outputs::new(samples, &compute, &model, &args.decoder, args.previews.as_deref())?;
    outputs.draw(&drawing, &requests, &sampling, args.sampling.batch)
}
