//! `alitok complete`

use anyhow::{Result, ensure};
use burn::tensor::Device;
use generator::Request;

use super::generate::{draw, sampling};
use crate::{
    args::CompleteArgs,
    images::{self, SampleWriter},
    model,
};

pub(crate) fn run(args: &CompleteArgs, device: &Device) -> Result<()> {
    let model = model::open(&args.model.model)?;
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
    let decoding = model::decoding(&model, &args.decoder, device)?;
    let mut forced = images::encode(&decoding.tokenizer.frozen_encoder(), &picture);
    forced.truncate(layout.len_of_rows(args.rows));
    let count = args.count as usize;
    let requests: Vec<Request> = (0..count as u64)
        .map(|index| Request { class, seed: args.sampling.seed, index, forced: forced.clone() })
        .collect();
    let columns = (count as f64).sqrt().ceil() as usize;
    let mut samples = SampleWriter::new(&args.out, count, columns)?;
    let generator = model.generator(device)?;
    let decoding = Some(&decoding);
    draw(&generator, decoding, &requests, &sampling, args.sampling.batch, &mut samples)?;
    samples.finish(decoding)
}
