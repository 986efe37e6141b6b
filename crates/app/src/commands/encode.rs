//! `alitok encode`

use anyhow::Result;

use crate::{
    args::EncodeArgs, compute::Compute, device::DeviceName, images, models, progress::Progress,
    token_file,
};

pub(crate) fn run(args: &EncodeArgs, device: DeviceName) -> Result<()> {
    token_file::check_name(&args.out)?;
    let model = models::open(&args.model.model)?;
    let encoding = Compute::new(&args.compute, device)?.encoding(&model)?;
    let mut progress = Progress::new("encoding", args.images.len() as u64);
    let mut tokens = Vec::new();
    for path in &args.images {
        let picture = images::read(path, encoding.config().image, &args.crop)?;
        tokens.push(encoding.tokens(&picture));
        progress.set(tokens.len() as u64);
    }
    progress.finish();
    token_file::write(&args.out, &tokens, None)
}
