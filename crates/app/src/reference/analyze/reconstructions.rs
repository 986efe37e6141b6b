//! `alitok analyze reconstructions`

use anyhow::Result;
use evaluation::analysis::reconstructions::{Comparison, Region};
use pipeline::Device;

use crate::{
    args::ComputeArgs,
    commands::analyze::reconstructions::{AnalyzeReconstructionsArgs, Square},
    images, models, progress,
};

pub(crate) fn run(args: &AnalyzeReconstructionsArgs, device: Option<Device>) -> Result<()> {
    let compute = ComputeArgs::default().compute(device)?;
    let open = |name: &String| Ok((name.clone(), models::open(name)?));
    let models = args.models.iter().map(open).collect::<Result<Vec<_>>>()?;
    let comparison = Comparison::open(&models, args.decoder.map(Into::into), &compute)?;
    let mut all = Vec::new();
    for path in &args.images {
        let original = images::read(path, comparison.image(), &args.crop)?;
        let region = args.region.map(|Square { left, top, side }| Region { left, top, side });
        let compared = comparison.compare(&original, region)?;
        let (name, Region { left, top, side }) = (path.display(), compared.region);
        progress::result(&format!("{name}: enlarged {side} x {side} pixels at {left},{top}"))?;
        all.push(compared);
    }
    comparison.figure(all).write(&args.out)?;
    progress::wrote(1, "figure", &args.out);
    Ok(())
}
