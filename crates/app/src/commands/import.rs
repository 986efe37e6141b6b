//! `alitok import`

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use files::safetensors::{StorageFormat, TensorFile, TensorView};
use language::{HuggingFaceFolder, ImageSide};
use model::{ModelConfig, TextModelContents};
use weights::{ImportOptions, Imported, WeightsChoice};

use super::inspect;
use crate::{
    args::{ReplaceArgs, StorageName, WeightsName},
    models, progress,
};

/// Make a model folder from the authors' released weights, or from a language model
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  alitok import AliTok.pth alitok_b.bin --out models/alitok-b
  alitok import --language Qwen2-0.5B --tokenizer models/alitok-512 --out models/words")]
pub(crate) struct ImportArgs {
    /// The tokenizer: .pth, .bin, .pt or .safetensors.
    #[arg(value_name = "TOKENIZER", required_unless_present = "language")]
    pub(crate) released_tokenizer: Option<PathBuf>,
    /// The generator.
    pub(crate) generator: Option<PathBuf>,
    /// A language model that is to read prompts: a folder of Hugging Face's with a Qwen2, or a
    /// LLaVA-OneVision on one.
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with_all = ["released_tokenizer", "generator", "weights"],
        requires = "tokenizer"
    )]
    pub(crate) language: Option<PathBuf>,
    /// The model whose picture tokenizer the language model writes for: `mini`, or a folder.
    #[arg(long, value_name = "MODEL", requires = "language")]
    pub(crate) tokenizer: Option<String>,
    /// Adaptor and head for codes, a .safetensors in Janus' names. Without them both begin fresh and
    /// have yet to learn.
    #[arg(long, value_name = "FILE", requires = "language")]
    pub(crate) image_side: Option<PathBuf>,
    /// How to store the weights. Default: f32; those of a language model as they are stored.
    #[arg(long, value_enum)]
    pub(crate) precision: Option<StorageName>,
    /// Which weights to take where a file holds them and their moving average. Default: raw, which is
    /// said.
    #[arg(long, value_enum)]
    pub(crate) weights: Option<WeightsName>,
    /// The model folder to make.
    #[arg(long)]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) replace: ReplaceArgs,
}

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    if let (Some(folder), Some(tokenizer)) = (&args.language, &args.tokenizer) {
        return import_language(args, folder, tokenizer);
    }
    models::check_out(&args.out, args.replace, &[])?;
    let tokenizer = args.released_tokenizer.as_deref().context("the tokenizer is missing")?;
    let options = ImportOptions {
        format: args.precision.map_or(StorageFormat::F32, StorageFormat::from),
        weights: args.weights.map(WeightsChoice::from),
    };
    let Imported { model, notes } =
        weights::import(tokenizer, args.generator.as_deref(), &args.out, options)?;
    for note in notes {
        progress::note(&note);
    }
    inspect::describe(&model)?;
    progress::wrote(1, "model", &args.out);
    Ok(())
}

/// Makes a model of prompts from a language model and the picture tokenizer of another model.
fn import_language(args: &ImportArgs, folder: &PathBuf, tokenizer: &str) -> Result<()> {
    let of = models::open(tokenizer)?;
    models::check_out(&args.out, args.replace, &[folder.clone(), of.path().to_owned()])?;
    let mut folder = HuggingFaceFolder::open(folder)?;
    let side = args.image_side.as_ref().map(ImageSide::open).transpose()?;
    let codes = [of.config.tokenizer.codes, of.config.tokenizer.token_size];
    let layout = of.config.tokenizer.layout();
    let config = folder.language_config(layout, codes, side.as_ref())?;
    let needed = 4 * (config.language_parameters() + config.image_side_parameters()) as u64;
    if let Some(available) = ::machine::available_memory() {
        ensure!(
            needed <= available,
            "reading this language model takes {}, and {} are available; use a machine with more memory",
            ::machine::bytes(needed),
            ::machine::bytes(available)
        );
    }
    let tokenizer = of.tokenizer_tensors()?;
    let codebook = tokenizer
        .get("quantizer.codebook")
        .with_context(|| format!("{} has no codebook", of.path().display()))?;
    // Before what takes long.
    let image_side = match &side {
        Some(side) => side.tensors(&config, codebook)?,
        None => ImageSide::fresh(&config, 0),
    };
    let language = folder.tensors(&config)?;
    if !folder.left_out().is_empty() {
        progress::note(&format!("left out: {}", folder.left_out().join(", ")));
    }
    if side.is_none() {
        progress::note("no --image-side: adaptor and head have learned nothing yet");
    }
    if folder.tokenizer.added_token("<|vision_start|>").is_none() {
        progress::note(&format!(
            "its tokenizer has no <|vision_start|>; a picture begins with the free id {}",
            config.control.picture_start
        ));
    }
    let stored = |is_bf16: bool| match args.precision {
        Some(precision) => precision.into(),
        None if is_bf16 => StorageFormat::Bf16,
        None => StorageFormat::F32,
    };
    let model = TextModelContents {
        config: &ModelConfig::of_prompts(of.config.tokenizer.clone(), config),
        tokenizer: (&tokenizer, stored(is_bf16(&of.tokenizer_file()?)?)),
        language: (&language, stored(folder.is_bf16()?)),
        image_side: &image_side,
        text_tokenizer: &folder.tokenizer_json,
        readme: None,
    }
    .write(&args.out)?;
    inspect::describe(&model)?;
    progress::wrote(1, "model", &args.out);
    Ok(())
}

/// Whether all of a file's tensors are stored in bf16.
fn is_bf16(file: &TensorFile) -> Result<bool> {
    Ok(file.views()?.values().all(TensorView::is_bf16))
}
