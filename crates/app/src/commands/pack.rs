//! `alitok pack`

use anyhow::Result;
use engine::PackedModel;

use crate::{args::PackArgs, compute::with_files, model};

pub(crate) fn run(args: &PackArgs) -> Result<()> {
    let model = model::open(&args.model)?;
    with_files(&model, |files| PackedModel::write(&args.out, files, args.precision.into()))?;
    Ok(())
}
