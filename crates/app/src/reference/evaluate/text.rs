//! `alitok evaluate text`

use std::path::Path;

use anyhow::{Result, ensure};
use evaluation::text::{CaptionResult, Captioned, Likelihoods, ShapesOptions, ShapesResult};
use model::tokenizer_digest;
use pipeline::{Device, cache::is_cache};
use pixels::shapes;
use serde::Serialize;
use token_cache::TokenCache;

use crate::{
    args::DraftsName, commands::evaluate::text::EvaluateTextArgs, models, progress,
    reference::watcher::Watcher, sources,
};

/// What was measured.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    captions: Option<CaptionResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shapes: Option<ShapesResult>,
}

pub(super) fn run(args: &EvaluateTextArgs, device: Option<Device>) -> Result<()> {
    ensure!(
        args.sampling.drafts == DraftsName::None,
        "models of prompts have no drafts; leave --drafts out"
    );
    let model = models::open(&args.model)?;
    let prompts = model.prompts()?;
    let sampling = pipeline::sampling(&model, &args.sampling.changes())?;
    let tests = match &args.shapes {
        None => None,
        Some(None) => Some(shapes::test_prompts(shapes::DEFAULT_HELD_OUT, 0)),
        Some(Some(path)) => Some(shapes::read_prompts(path)?),
    };
    let compute = args.compute.compute(device)?;
    let language = compute.language_model(&model, args.data.is_some())?;
    let watcher = &mut Watcher::default();
    let captions = match &args.data {
        None => None,
        Some(source) if is_cache(Path::new(source)) => {
            let cache = TokenCache::open(Path::new(source))?;
            cache.check_tokenizer(&tokenizer_digest(&model.tokenizer_tensors()?))?;
            let pictures = Captioned::Cache(&cache);
            Some(evaluation::text::captions(&language, &prompts, &pictures, args.count, watcher)?)
        }
        Some(source) => {
            let data = sources::open(source, false)?;
            let encoder = compute.encoder(&model)?;
            let pictures = Captioned::Data { data: &*data, encoder: &*encoder };
            Some(evaluation::text::captions(&language, &prompts, &pictures, args.count, watcher)?)
        }
    };
    let shapes = match tests {
        None => None,
        Some(tests) => {
            let encoder = compute.encoder(&model)?;
            let decoder = compute.decoder(&model, args.decoder.kind())?;
            let options = ShapesOptions {
                each: args.per_prompt as usize,
                seed: args.sampling.seed,
                sampling,
                batch: args.sampling.batch.batch as usize,
            };
            let tokenizer = (&*encoder, &*decoder);
            Some(evaluation::text::shapes(
                &language, &prompts, &tests, tokenizer, options, watcher,
            )?)
        }
    };
    let read = captions.as_ref().map_or(0, |captions| captions.all.pictures);
    let drawn = shapes.as_ref().map_or(0, |shapes| shapes.pictures);
    if args.json {
        progress::json(&Found { captions, shapes })?;
    } else {
        if let Some(captions) = &captions {
            progress::result(&table(captions))?;
        }
        if let Some(shapes) = &shapes {
            progress::result(&scores(shapes))?;
        }
    }
    progress::did("measured", read + drawn, "picture");
    Ok(())
}

fn table(captions: &CaptionResult) -> String {
    let CaptionResult { all, tokens, text_loss, cut, without_caption, unreadable, classes } =
        captions;
    let mut text = format!("{} pictures of {tokens} tokens", all.pictures);
    let left_out = [
        (*without_caption, "without caption left out"),
        (*unreadable, "unreadable left out"),
        (*cut, "captions cut at the end"),
    ];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {what}"));
    }
    let Likelihoods { conditional, unconditional, nats_from_words, nats_from_words_error, .. } =
        all;
    text.push_str(&format!("\n\n{:<34}{:>12}{:>12}", "", "caption", "none"));
    let rows = [
        ("nats a picture", conditional.nats_a_picture, unconditional.nats_a_picture, 2),
        ("nats a token", conditional.nats_a_token, unconditional.nats_a_token, 4),
        (
            "tokens guessed right, %",
            100.0 * conditional.accuracy,
            100.0 * unconditional.accuracy,
            2,
        ),
    ];
    for (title, with, without, decimals) in rows {
        text.push_str(&format!("\n{title:<34}{with:>12.decimals$}{without:>12.decimals$}"));
    }
    text.push_str(&format!(
        "\n{:<34}{nats_from_words:>12.2} ± {nats_from_words_error:.2}",
        "nats a picture from the words"
    ));
    text.push_str(&format!("\n{:<34}{:>12.1}", "likelier with its caption, %", 100.0 * all.helped));
    text.push_str(&format!("\n{:<34}{text_loss:>12.4}", "loss of captions, nats an id"));
    if !classes.is_empty() {
        text.push_str(&format!(
            "\n\n{:<34}{:>12}{:>12}{:>12}",
            "class", "pictures", "caption", "none"
        ));
    }
    for class in classes {
        let Likelihoods { pictures, conditional, unconditional, .. } = &class.of;
        let (with, without) = (conditional.nats_a_picture, unconditional.nats_a_picture);
        text.push_str(&format!("\n{:<34}{pictures:>12}{with:>12.2}{without:>12.2}", class.class));
    }
    text
}

fn scores(shapes: &ShapesResult) -> String {
    let ShapesResult { pictures, sampling, drawn, rebuilt } = shapes;
    format!(
        "\n{pictures} pictures of shapes, guidance {}, temperature {}\n\n{drawn}\n\nfaultless pictures \
         through the tokenizer\n\n{rebuilt}",
        sampling.guidance, sampling.temperature
    )
}
