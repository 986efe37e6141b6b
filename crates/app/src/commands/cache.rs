//! `alitok cache`

use std::{collections::HashSet, io, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use files::npz;
use pixels::{DataSet, Picture};
use token_cache::{
    LeftOut, Shard, TokenCache,
    exchange::{JsonLines, NpzFolder, TokenSource, export_json_lines, export_npz_folder},
};
use training::{
    cache::{BuildOptions, Views, build, import},
    telemetry::BadPicture,
};

use crate::{
    args::{CacheBuildArgs, CacheImportArgs, CacheVerb, ComputeArgs},
    compute::Compute,
    device::DeviceName,
    models,
    progress::{self, Progress},
};

/// Most bad pictures that are listed; all are counted.
const MOST_LISTED: usize = 10_000;

pub(crate) fn run(verb: &CacheVerb, device: DeviceName) -> Result<()> {
    match verb {
        CacheVerb::Build(args) => run_build(args, device),
        CacheVerb::Info { cache } => info(cache),
        CacheVerb::Verify { cache } => verify(cache),
        CacheVerb::Export { cache, out } => export(cache, out),
        CacheVerb::Import(args) => run_import(args),
    }
}

fn run_build(args: &CacheBuildArgs, device: DeviceName) -> Result<()> {
    let shard: Shard = args.shard.parse()?;
    let data: Arc<dyn DataSet> = pixels::data::open(&args.data.data, models::home())?.into();
    let model = models::open(&args.model.model)?;
    // What is cached are the tokenizer's tokens, not those of a rounded one.
    let compute = ComputeArgs { engine: args.engine, ..ComputeArgs::default() };
    let encoding = Compute::new(&compute, device)?.encoding(&model)?;
    let encode = |picture: &Picture| encoding.tokens(picture);
    let views = match (args.ten_crop, args.mirrored) {
        (true, _) => Views::TenCrop,
        (_, true) => Views::Mirrored,
        _ => Views::Center,
    };
    let mut progress = Progress::new("caching", shard.range(data.len()).len() as u64);
    let options = BuildOptions { views, shard, strict: args.strict };
    let bad = build(&data, &model, encode, &args.out, options, |done, _| {
        progress.set(done as u64);
    })?;
    progress.finish();
    for BadPicture { name, reason } in bad.iter().take(MOST_LISTED) {
        progress::note(&format!("left out: {name}: {reason}"));
    }
    if !bad.is_empty() {
        let count = bad.len();
        progress::note(&format!("{count} pictures of shard {shard} were left out of the cache"));
    }
    Ok(())
}

fn info(path: &Path) -> Result<()> {
    let cache = TokenCache::open(path)?;
    let header = cache.header();
    let layout = header.layout;
    progress::result(&format!(
        "pictures      {}\nviews         {} ({}); an epoch takes one of each picture\ntokens        {} a view: {} prefix, {} × {} grid\n\
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

fn verify(path: &Path) -> Result<()> {
    let cache = TokenCache::open(path)?;
    let damages = cache.verify();
    if damages.is_empty() {
        let left_out = cache.left_out()?;
        if !left_out.is_empty() {
            let names = cache.names()?;
            for LeftOut { picture, reason } in left_out.iter().take(MOST_LISTED) {
                progress::result(&format!("left out: {}: {reason}", names[*picture]))?;
            }
            progress::result(&format!("{} pictures were left out", left_out.len()))?;
        }
        let (pictures, views) = (cache.len() - left_out.len(), cache.header().views);
        return progress::result(&format!("{pictures} pictures in {views} views, all sound"));
    }
    let damages: Vec<_> = damages.iter().map(ToString::to_string).collect();
    bail!("{}", damages.join("\n"))
}

fn run_import(args: &CacheImportArgs) -> Result<()> {
    let shard: Shard = args.shard.parse()?;
    let model = models::open(&args.model.model)?;
    let path = &args.source;
    let mut source: Box<dyn TokenSource> = if path.is_dir() {
        Box::new(NpzFolder::open(path)?)
    } else {
        Box::new(JsonLines::open(path, args.views.into(), &model.classes)?)
    };
    let mut progress = Progress::new("importing", shard.range(source.len()).len() as u64);
    import(source.as_mut(), &model, &args.out, shard, |done, _| progress.set(done as u64))?;
    progress.finish();
    Ok(())
}

fn export(path: &Path, out: &Path) -> Result<()> {
    let cache = TokenCache::open(path)?;
    let mut progress = Progress::new("exporting", cache.len() as u64);
    let ending = out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("npz") => export_arrays(&cache, out)?,
        Some("jsonl") => export_json_lines(&cache, out, |done| progress.set(done as u64))?,
        _ => export_npz_folder(&cache, out, |done| progress.set(done as u64))?,
    }
    progress.finish();
    Ok(())
}

fn export_arrays(cache: &TokenCache, out: &Path) -> Result<()> {
    let header = cache.header();
    let left_out: HashSet<usize> =
        cache.left_out()?.into_iter().map(|LeftOut { picture, .. }| picture).collect();
    let pictures: Vec<usize> =
        (0..cache.len()).filter(|picture| !left_out.contains(picture)).collect();
    let shape = [pictures.len(), header.views, header.layout.len()].map(|extent| extent as u64);
    let labels = pictures
        .iter()
        .map(|&picture| Ok(cache.label(picture)? as i64))
        .collect::<Result<Vec<_>>>()?;
    let mut names = cache.names()?;
    let mut place = 0..;
    names.retain(|_| place.next().is_some_and(|picture| !left_out.contains(&picture)));
    npz::write(out, |arrays| {
        let records = pictures
            .iter()
            .flat_map(|&picture| (0..header.views).map(move |view| (picture, view)))
            .map(|(picture, view)| {
                cache.record(picture, view).map(|record| record.tokens()).map_err(io::Error::other)
            });
        arrays.add_pieces("codes", &shape, records)?;
        arrays.add("labels", &[labels.len() as u64], labels)?;
        arrays.add_texts("names", &names)
    })
    .with_context(|| format!("cannot write {}", out.display()))
}
