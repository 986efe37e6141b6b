//! `alitok evaluate generation` and `evaluate statistics`

use anyhow::Result;
use burn::tensor::Device;
use evaluation::{comparison::Reference, generation, pictures::Pictures};
use metrics::Purpose;

use super::{open_extractor, table};
use crate::{
    commands::evaluate::generation::{EvaluateGenerationArgs, EvaluateStatisticsArgs, PurposeName},
    models, progress,
    reference::watcher::Watcher,
};

impl From<PurposeName> for Purpose {
    fn from(name: PurposeName) -> Self {
        match name {
            PurposeName::Generation => Self::Generation,
            PurposeName::Reconstruction => Self::Reconstruction,
        }
    }
}

pub(super) fn make_statistics(args: &EvaluateStatisticsArgs, device: &Device) -> Result<()> {
    let extractor = open_extractor(&args.extractor.extractor, device)?;
    let purpose = args.purpose.into();
    let watcher = &mut Watcher::default();
    let (statistics, count) = generation::statistics(
        &args.data,
        models::home(),
        args.size,
        purpose,
        &extractor,
        watcher,
    )?;
    statistics.write(&args.out)?;
    progress::result(&format!(
        "{count} pictures, {} features of {}",
        statistics.pool.width(),
        extractor.network()
    ))?;
    progress::closing(&format!("statistics of {count} pictures"), &args.out);
    Ok(())
}

pub(super) fn run(args: &EvaluateGenerationArgs, device: &Device) -> Result<()> {
    let samples = Pictures::open(&args.samples, models::home())?;
    let extractor = open_extractor(&args.extractor.extractor, device)?;
    let reference = Reference::open(&args.reference, models::home(), &extractor)?;
    let watcher = &mut Watcher::default();
    let found = generation::evaluate(&samples, reference, &extractor, args.protocol, watcher)?;
    match args.json {
        true => progress::json(&found)?,
        false => progress::result(&format!(
            "{} samples, {} in the reference, {}{}",
            found.samples,
            found.reference,
            found.extractor,
            table(&found.measures)
        ))?,
    }
    progress::did("measured", found.samples, "picture");
    Ok(())
}
