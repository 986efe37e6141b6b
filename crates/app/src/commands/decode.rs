//! `alitok decode`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use pipeline::{
    Device, decoder_kind,
    samples::{check_pictures, make_folder, numbered, write_folder},
    token_file::{self, TokenFile},
};
use tokens::Vocabulary;

use crate::{
    args::{ComputeArgs, DecoderArgs, ModelArgs, ReplaceArgs},
    images, models,
    progress::{self, Progress},
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
    /// Folder for the pictures, which have the names of those that were encoded, or numbers.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

pub(crate) fn run(args: &DecodeArgs, device: Option<Device>) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let config = &model.config.tokenizer;
    decoder_kind(config, args.decoder.kind())?;
    let vocabulary = Vocabulary::new(config.codes, 0);
    check_pictures(&args.out, args.replace.replace, std::slice::from_ref(&args.tokens))?;
    let TokenFile { tokens, names } =
        token_file::read_named(&args.tokens, config.layout().len(), vocabulary)?;
    let decoder = args.compute.compute(device)?.decoder(&model, args.decoder.kind())?;
    let mut progress = Progress::new("decoding", tokens.len() as u64);
    write_folder(&args.out, |folder| {
        for (index, sequence) in tokens.iter().enumerate() {
            let path = match &names {
                Some(names) => images::png(folder, Path::new(&names[index])),
                None => numbered(folder, index, tokens.len()),
            };
            make_folder(path.parent().unwrap_or(folder))?;
            decoder.decode(sequence)?.write_png(path)?;
            progress.set(index as u64 + 1);
        }
        Ok(())
    })?;
    progress.finish();
    progress::wrote(tokens.len(), "picture", &args.out);
    Ok(())
}
