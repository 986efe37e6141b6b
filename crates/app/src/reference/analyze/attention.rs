//! `alitok analyze attention`

use anyhow::{Result, bail};
use burn::tensor::Device;
use evaluation::analysis::attention::{self, AttentionOptions};
use serde_json::json;

use crate::{
    commands::analyze::attention::AnalyzeAttentionArgs, models, progress,
    reference::watcher::Watcher, sources,
};

pub(crate) fn run(args: &AnalyzeAttentionArgs, device: &Device) -> Result<()> {
    let data = sources::open(&args.data.data, false)?;
    let options = AttentionOptions {
        decoder: args.decoder.kind(),
        count: args.count as usize,
        picture: args.picture,
        patches: args.patches.iter().map(|text| patch(text)).collect::<Result<_>>()?,
        layer: args.layer,
    };
    let mut found = Vec::new();
    for name in &args.models {
        let (model, watcher) = (models::open(name)?, &mut Watcher::default());
        found.push(attention::measure(name, &model, &*data, &options, device, watcher)?);
    }
    attention::figure(&found).write(&args.out)?;
    if args.json {
        progress::json(&json!({ "models": found }))?;
        progress::wrote(1, "figure", &args.out);
        return Ok(());
    }
    for found in found {
        let row = |row: [f64; 3]| row.map(|weight| format!("{:7.3}", 100.0 * weight)).concat();
        progress::result(&format!(
            "{}, {} decoder, {} pictures: attention of a patch to those around it, %\n{}\n\
             {:.1} % of what goes to the eight neighbours goes to the four before the patch",
            found.model,
            found.decoder,
            found.pictures,
            found.local_pattern.map(row).join("\n"),
            100.0 * found.preceding_share.unwrap_or_default()
        ))?;
    }
    progress::wrote(1, "figure", &args.out);
    Ok(())
}

/// Row and column of a patch.
fn patch(text: &str) -> Result<(usize, usize)> {
    match text.split_once(',').map(|(row, column)| (row.parse(), column.parse())) {
        Some((Ok(row), Ok(column))) => Ok((row, column)),
        _ => bail!("--patch {text}: write ROW,COLUMN, counted from 0, like 3,5"),
    }
}
