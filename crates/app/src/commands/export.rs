//! `alitok export`

use anyhow::{Result, ensure};
use weights::ModelContents;

use crate::{args::ExportArgs, model};

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    ensure!(
        args.tokenizer.is_some() || args.generator.is_some() || args.folder.is_some(),
        "nothing to write: name a file with --tokenizer or --generator, or a folder with --folder"
    );
    let model = model::open(&args.model)?;
    if args.generator.is_some() {
        model.generator_config()?;
    }
    if let Some(path) = &args.tokenizer {
        let kind = model::decoder_kind(&model.config.tokenizer, &args.decoder)?;
        weights::export::export_tokenizer(&model, kind, path)?;
    }
    if let Some(path) = &args.generator {
        weights::export::export_generator(&model, path)?;
    }
    if let Some(path) = &args.folder {
        let generator = match &model.config.generator {
            Some(_) => Some(model.generator_tensors()?),
            None => None,
        };
        ModelContents {
            config: &model.config,
            classes: &model.classes,
            tokenizer: &model.tokenizer_tensors()?,
            generator: generator.as_ref(),
            precision: args.precision.into(),
            readme: None,
        }
        .write(path)?;
    }
    Ok(())
}
