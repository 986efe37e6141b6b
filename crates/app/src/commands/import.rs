//! `alitok import`

use anyhow::Result;

use super::inspect;
use crate::args::ImportArgs;

pub(crate) fn run(args: &ImportArgs) -> Result<()> {
    let generator = args.generator.as_deref();
    let model = weights::import(&args.tokenizer, generator, &args.out, args.precision.into())?;
    inspect::describe(&model)
}
