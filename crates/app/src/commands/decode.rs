//! `alitok decode`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use pipeline::{
    Device, decoder_kind,
    samples::{make_folder, numbered},
    token_file,
};
use tokens::Vocabulary;

use crate::{
    args::{ComputeArgs, DecoderArgs, ModelArgs},
    models,
    progress::Progress,
};

/// Turn tokens into pictures
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok decode tokens.safetensors --out pictures/")]
pub(crate) struct DecodeArgs {
    /// A .safetensors file with `tokens [N, L]`.
    pub(crate) tokens: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Folder for the pictures.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &DecodeArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let config = &model.config.tokenizer;
    decoder_kind(config, args.decoder.kind())?;
    let vocabulary = Vocabulary::new(config.codes, 0);
    let tokens = token_file::read(&args.tokens, config.layout().len(), vocabulary)?;
    let decoder = args.compute.compute(device)?.decoder(&model, args.decoder.kind())?;
    make_folder(&args.out)?;
    let mut progress = Progress::new("decoding", tokens.len() as u64);
    for (index, sequence) in tokens.iter().enumerate() {
        let path = numbered(&args.out, index, tokens.len());
        decoder.decode(sequence)?.write_png(path)?;
        progress.set(index as u64 + 1);
    }
    progress.finish();
    Ok(())
}
