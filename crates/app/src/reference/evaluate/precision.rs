//! `alitok evaluate precision`

use anyhow::Result;
use evaluation::precision;

use crate::{
    commands::evaluate::precision::EvaluatePrecisionArgs, models, progress,
    reference::watcher::Watcher, sources, tuning,
};

pub(super) fn run(args: &EvaluatePrecisionArgs) -> Result<()> {
    let data = sources::open(&args.data.data, false)?;
    let model = models::open(&args.model.model)?;
    let pictures = args.pictures.map(|count| count as usize);
    let reference = args.reference as usize;
    let (pool, watcher) = (tuning::pool(), &mut Watcher::default());
    let found = precision::evaluate(&model, &*data, pictures, reference, &pool, watcher)?;
    if args.json {
        progress::json(&found)?;
        progress::did("measured", found.pictures, "picture");
        return Ok(());
    }
    let mut lines = vec![format!("{} pictures, {} tokens", found.pictures, found.tokens)];
    let all = serde_json::to_value(&found)?;
    for format in ["f32", "bf16", "int8", "int4"] {
        lines.push(format.to_owned());
        for (name, value) in all[format].as_object().into_iter().flatten() {
            lines.push(format!("  {:<34} {value}", name.replace('_', " ")));
        }
    }
    progress::result(&lines.join("\n"))?;
    progress::did("measured", found.pictures, "picture");
    Ok(())
}
