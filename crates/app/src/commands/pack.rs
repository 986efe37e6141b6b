//! `alitok pack`

use anyhow::Result;
use engine::PackedModel;

use crate::{args::PackArgs, compute::with_files, models};

pub(crate) fn run(args: &PackArgs) -> Result<()> {
    let model = models::open(&args.model)?;
    with_files(&model, |files| PackedModel::write(&args.out, files, args.precision.into()))?;
    Ok(())
}
