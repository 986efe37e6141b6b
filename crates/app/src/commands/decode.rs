//! `alitok decode`

use anyhow::Result;
use tokens::Vocabulary;

use crate::{
    args::DecodeArgs, compute::Compute, device::DeviceName, images, models, progress::Progress,
    token_file,
};

pub(crate) fn run(args: &DecodeArgs, device: DeviceName) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let config = &model.config.tokenizer;
    models::decoder_kind(config, &args.decoder)?;
    let vocabulary = Vocabulary::new(config.codes, 0);
    let tokens = token_file::read(&args.tokens, config.layout().len(), vocabulary)?;
    let decoding = Compute::new(&args.compute, device)?.decoding(&model, &args.decoder)?;
    images::make_folder(&args.out)?;
    let mut progress = Progress::new("decoding", tokens.len() as u64);
    for (index, sequence) in tokens.iter().enumerate() {
        let path = images::numbered(&args.out, index, tokens.len());
        decoding.picture(sequence)?.write_png(path)?;
        progress.set(index as u64 + 1);
    }
    progress.finish();
    Ok(())
}
