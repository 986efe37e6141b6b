//! `alitok export`

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use files::{TensorMap, output};
use model::{Model, ModelContents, TextModelContents, tokenizer_digest};

use crate::{
    args::{DecoderArgs, ReplaceArgs, StorageName},
    models, progress,
};

/// Write a model's weights under the released names
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok export models/alitok-b --tokenizer tokenizer.pth --generator generator.bin
  alitok export runs/generator --folder models/mine --precision bf16
  alitok export runs/generator --folder models/mine --decoder-from runs/sharp --share 0.5")]
pub(crate) struct ExportArgs {
    /// `mini`, or a model folder, or a run.
    pub(crate) model: String,
    /// Write the tokenizer with one decoder here, as .pth or .safetensors.
    #[arg(long)]
    pub(crate) tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) decoder: DecoderArgs,
    /// Write the generator here, as .bin or .safetensors.
    #[arg(long)]
    pub(crate) generator: Option<PathBuf>,
    /// Write a model folder here, with weights stored as `--precision` says.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// How to store the weights of `--folder`.
    #[arg(long, value_enum, default_value_t = StorageName::F32)]
    pub(crate) precision: StorageName,
    /// Give `--folder` the bidirectional decoder of this model or run, which must have the same encoder
    /// and codebook.
    #[arg(long, value_name = "MODEL", requires = "folder")]
    pub(crate) decoder_from: Option<String>,
    /// How far to go from the model's own decoder, 0, to that of `--decoder-from`, 1.
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0, requires = "decoder_from")]
    pub(crate) share: f64,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    ensure!(
        args.tokenizer.is_some() || args.generator.is_some() || args.folder.is_some(),
        "nothing to write: name a file with --tokenizer or --generator, or a folder with --folder"
    );
    let model = models::open(&args.model)?;
    let inputs = [model.path().to_owned()];
    for file in [&args.tokenizer, &args.generator].into_iter().flatten() {
        ensure!(
            !output::is_bare_ending(file, &["pth", "pt", "bin", "safetensors"]),
            "{}: that is an ending without a name; write NAME{0}",
            file.display()
        );
    }
    if let Some(path) = &args.folder {
        models::check_out(path, args.replace, &inputs)?;
    }
    if args.generator.is_some() {
        model.generator_config()?;
    }
    if let Some(path) = &args.tokenizer {
        let kind = pipeline::decoder_kind(&model.config.tokenizer, args.decoder.kind())?;
        weights::export::export_tokenizer(&model, kind, path)?;
        progress::closing("a tokenizer", path);
    }
    if let Some(path) = &args.generator {
        weights::export::export_generator(&model, path)?;
        progress::closing("a generator", path);
    }
    if let Some(path) = &args.folder {
        let mut tokenizer = model.tokenizer_tensors()?;
        if let Some(other) = &args.decoder_from {
            mix_decoder(&model, &mut tokenizer, other, args.share)?;
        }
        if model.config.language.is_some() {
            let format = args.precision.into();
            TextModelContents {
                config: &model.config,
                tokenizer: (&tokenizer, format),
                language: (&model.language_tensors()?, format),
                image_side: &model.image_side_tensors()?,
                text_tokenizer: &model.text_tokenizer_json()?,
                readme: None,
            }
            .write(path)?;
            progress::wrote(1, "model", path);
            return Ok(());
        }
        let generator = match &model.config.generator {
            Some(_) => Some(model.generator_tensors()?),
            None => None,
        };
        ModelContents {
            config: &model.config,
            classes: &model.classes,
            tokenizer: &tokenizer,
            generator: generator.as_ref(),
            format: args.precision.into(),
            readme: None,
        }
        .write(path)?;
        progress::wrote(1, "model", path);
    }
    Ok(())
}

/// Moves a tokenizer's bidirectional decoder towards that of another model with the same tokens: `share` of the
/// way, each parameter by itself. Two decoders of which one goes on from the other lie in one valley
/// of the loss, and so does what is between them (Izmailov et al. 2018; Wortsman et al. 2022).
fn mix_decoder(own: &Model, tensors: &mut TensorMap, other: &str, share: f64) -> Result<()> {
    ensure!((0.0..=1.0).contains(&share), "--share {share} is not from 0 to 1");
    let theirs = models::open(other)?;
    let decoder = own.config.tokenizer.bidirectional_decoder;
    ensure!(
        decoder.is_some(),
        "the model has no bidirectional decoder that another's could replace"
    );
    ensure!(
        theirs.config.tokenizer.bidirectional_decoder == decoder,
        "the bidirectional decoder of {other} is of another architecture"
    );
    let their_tensors = theirs.tokenizer_tensors()?;
    ensure!(
        tokenizer_digest(&their_tensors) == tokenizer_digest(tensors),
        "{other} has another encoder or codebook, so its decoder reads other tokens"
    );
    for (name, tensor) in tensors {
        if !name.starts_with("bidirectional_decoder.") {
            continue;
        }
        let theirs = their_tensors.get(name).with_context(|| format!("{other} lacks {name}"))?;
        for (own, theirs) in tensor.values.iter_mut().zip(&theirs.values) {
            *own = (f64::from(*own) * (1.0 - share) + f64::from(*theirs) * share) as f32;
        }
    }
    Ok(())
}
