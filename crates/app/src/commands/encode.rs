//! `alitok encode`

use anyhow::Result;
use burn::tensor::Device;

use crate::{args::EncodeArgs, images, model, progress::Progress, token_file};

pub(crate) fn run(args: &EncodeArgs, device: &Device) -> Result<()> {
    token_file::check_name(&args.out)?;
    let model = model::open(&args.model.model)?;
    let encoder = model.tokenizer(device)?.frozen_encoder();
    let mut progress = Progress::new("encoding", args.images.len() as u64);
    let mut tokens = Vec::new();
    for path in &args.images {
        let picture = images::read(path, encoder.config().image, &args.crop)?;
        tokens.push(images::encode(&encoder, &picture));
        progress.set(tokens.len() as u64);
    }
    progress.finish();
    token_file::write(&args.out, &tokens, None)
}
