//! `alitok analyze codes`

use anyhow::Result;
use evaluation::analysis::codes::{self, CodesOptions};
use pipeline::Device;

use crate::{
    args::ComputeArgs, commands::analyze::codes::AnalyzeCodesArgs, models, progress,
    reference::watcher::Watcher, sources,
};

pub(crate) fn run(args: &AnalyzeCodesArgs, device: Option<Device>) -> Result<()> {
    let data = sources::open(&args.data.data, false)?;
    let options = CodesOptions {
        class: args.class.clone(),
        count: args.count as usize,
        perplexity: args.perplexity,
        seed: args.seed,
    };
    let compute = ComputeArgs::default().compute(device)?;
    let mut all = Vec::new();
    for name in &args.models {
        let (model, watcher) = (models::open(name)?, &mut Watcher::default());
        let found = codes::measure(name, &model, &*data, &options, &compute, watcher)?;
        let codes::UsedCodes { model, pictures, used, codes, .. } = &found;
        progress::result(&format!("{model}: {pictures} pictures use {used} of {codes} codes"))?;
        all.push(found);
    }
    codes::figure(all).write(&args.out)?;
    progress::wrote(1, "figure", &args.out);
    Ok(())
}
