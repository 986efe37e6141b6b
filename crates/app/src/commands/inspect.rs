//! `alitok inspect`

use anyhow::Result;
use clap::Args;
use model::Model;
use tokenizer::DecoderKind;

use crate::{models, progress::result};

/// Describe a model folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok inspect mini")]
pub(crate) struct InspectArgs {
    /// `mini`, or a model folder.
    pub(crate) model: String,
    /// List the names and shapes of all tensors too.
    #[arg(long)]
    pub(crate) tensors: bool,
}

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let model = models::open(&args.model)?;
    // A file that is cut says so here, not when somebody draws.
    model.check_files()?;
    describe(&model)?;
    if args.tensors {
        let mut tensors = model.tokenizer_tensors()?;
        if model.config.generator.is_some() {
            tensors.extend(model.generator_tensors()?);
        }
        if model.config.language.is_some() {
            tensors.extend(model.language_tensors()?);
            tensors.extend(model.image_side_tensors()?);
        }
        for (name, tensor) in tensors {
            result(&format!("{name} {:?}", tensor.shape))?;
        }
    }
    Ok(())
}

/// Says what a model is.
pub(crate) fn describe(model: &Model) -> Result<()> {
    let config = &model.config.tokenizer;
    let layout = config.layout();
    result(&format!("{}", model.path().display()))?;
    result(&format!(
        "tokenizer   {} × {} pixels, patch {}, {} tokens ({} prefix, {} × {} grid), {} codes of \
         size {}",
        config.image.width,
        config.image.height,
        config.patch,
        layout.len(),
        layout.prefix(),
        layout.rows(),
        layout.columns(),
        config.codes,
        config.token_size,
    ))?;
    result(&format!(
        "  encoder   width {}, {} layers, {} heads, {} parameters with codebook",
        config.encoder.width,
        config.encoder.layers,
        config.encoder.heads,
        config.encoder_parameters() + config.codebook_parameters(),
    ))?;
    for kind in [DecoderKind::Causal, DecoderKind::Bidirectional] {
        if let Ok(decoder) = config.decoder(kind) {
            result(&format!(
                "  decoder   {kind}, width {}, {} layers, {} heads, {} leading tokens, {} parameters",
                decoder.transformer.width,
                decoder.transformer.layers,
                decoder.transformer.heads,
                decoder.leading,
                config.decoder_parameters(decoder),
            ))?;
        }
    }
    if let Some(language) = &model.config.language {
        result(&format!(
            "language    width {}, {} layers, {} heads, {} of keys and values, {} parameters",
            language.width,
            language.layers,
            language.heads,
            language.key_value_heads,
            language.language_parameters()
        ))?;
        result(&format!(
            "  codes     {} parameters of adaptor and head",
            language.image_side_parameters()
        ))?;
        result(&format!("  prompts   up to {} tokens", language.most_prompt_ids()))?;
        return describe_sampling(model);
    }
    let Some(generator) = &model.config.generator else {
        return result("generator   none");
    };
    result(&format!(
        "generator   width {}, {} layers, {} heads, {} parameters",
        generator.width,
        generator.layers,
        generator.heads,
        generator.parameter_count()
    ))?;
    describe_sampling(model)?;
    result(&format!("  classes   {}", generator.classes))?;
    let names = &model.classes;
    for (index, name) in names.iter().enumerate().take(20) {
        result(&format!("  {index:7}   {name}"))?;
    }
    if names.len() > 20 {
        result(&format!("  …         {} more in classes.json", names.len() - 20))?;
    }
    Ok(())
}

fn describe_sampling(model: &Model) -> Result<()> {
    let sampling = &model.config.sampling;
    result(&format!(
        "  sampling  guidance {}, power {}, temperature {}, top-k {}, top-p {}",
        sampling.guidance,
        sampling.guidance_power,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p
    ))
}
