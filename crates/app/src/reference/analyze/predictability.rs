//! `alitok analyze predictability`

use std::ops::Range;

use anyhow::Result;
use burn::tensor::Device;
use evaluation::analysis::predictability::{self, Sequences};
use token_cache::TokenCache;

use crate::{
    commands::analyze::predictability::AnalyzePredictabilityArgs, models, progress,
    reference::watcher::Watcher,
};

pub(crate) fn run(args: &AnalyzePredictabilityArgs, device: &Device) -> Result<()> {
    let model = models::open(&args.model.model)?;
    let sequences = match &args.cache {
        Some(cache) => Sequences::of_cache(TokenCache::open(cache)?, &model)?,
        None => {
            let data = args.data.as_deref().unwrap_or("bundled:heldout");
            Sequences::of_data(pixels::data::open(data, models::home())?, &model, device)?
        }
    };
    let (count, watcher) = (args.count.map(|count| count as usize), &mut Watcher::default());
    let unconditional = args.unconditional;
    let found = predictability::measure(&model, &sequences, count, unconditional, device, watcher)?;
    found.figure().write(&args.out)?;
    if args.json {
        progress::json(&found)?;
        progress::wrote(1, "figure", &args.out);
        return Ok(());
    }
    let layout = found.layout;
    let line = |what: &str, range: Range<usize>| {
        let (loss, accuracy) = found.means(range);
        format!("{what:<16}{loss:10.4}{:11.2}\n", 100.0 * accuracy)
    };
    let mut text = format!(
        "{} sequences        loss, nats  accuracy, %\n{}",
        found.sequences,
        line("all tokens", 0..layout.len())
    );
    if layout.prefix() > 0 {
        text.push_str(&line("prefix", layout.prefix_range()));
    }
    text.push_str(&line("first row", layout.row_range(0)));
    text.push_str(&line("other rows", layout.len_of_rows(1)..layout.len()));
    text.push_str(&format!("{:<16}{:10.4}", "a blind guess", (found.codes as f64).ln()));
    progress::result(&text)?;
    progress::wrote(1, "figure", &args.out);
    Ok(())
}
