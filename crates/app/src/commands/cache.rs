//! `alitok cache`

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use tokens::cache::{Shard, TokenCache};
use training::cache::{Views, build};

use crate::{
    args::{CacheBuildArgs, CacheVerb},
    model, npz,
    progress::{self, Progress},
};

pub(crate) fn run(verb: &CacheVerb, device: &Device) -> Result<()> {
    match verb {
        CacheVerb::Build(args) => run_build(args, device),
        CacheVerb::Info { cache } => info(cache),
        CacheVerb::Export { cache, out } => export(cache, out),
    }
}

fn run_build(args: &CacheBuildArgs, device: &Device) -> Result<()> {
    let shard: Shard = args.shard.parse()?;
    let data = pixels::data::open(&args.data.data)?;
    let model = model::open(&args.model.model)?;
    let encoder = model.tokenizer(device)?.frozen_encoder();
    let views = if args.ten_crop { Views::TenCrop } else { Views::Center };
    let mut progress = Progress::new("caching", shard.range(data.len()).len() as u64);
    build(data.as_ref(), &model, &encoder, views, &args.out, shard, |done, _| {
        progress.set(done as u64);
    })?;
    progress.finish();
    Ok(())
}

fn info(path: &Path) -> Result<()> {
    let cache = TokenCache::open(path)?;
    let header = cache.header();
    let layout = header.layout;
    progress::result(&format!(
        "pictures      {}\nviews         {} ({})\ntokens        {} a view: {} prefix, {} × {} grid\n\
         codes         {}\nclasses       {}\nshards        {}\ntokenizer     {}",
        cache.len(),
        header.views,
        header.augmentation,
        layout.len(),
        layout.prefix(),
        layout.rows(),
        layout.columns(),
        header.codes,
        header.classes.len(),
        cache.shard_lens().len(),
        header.tokenizer,
    ))
}

fn export(path: &Path, out: &Path) -> Result<()> {
    let cache = TokenCache::open(path)?;
    let header = cache.header();
    let mut codes = Vec::with_capacity(cache.len() * header.views * header.layout.len());
    let mut labels = Vec::with_capacity(cache.len());
    for index in 0..cache.len() {
        let record = cache.record(index)?;
        labels.push(record.label as i64);
        codes.extend(record.views.into_iter().flatten());
    }
    let shape = [cache.len(), header.views, header.layout.len()].map(|extent| extent as u64);
    let names = cache.names()?;
    npz::write(out, |arrays| {
        arrays.add("codes", &shape, codes)?;
        arrays.add("labels", &[labels.len() as u64], labels)?;
        arrays.add_texts("names", &names)
    })
}
