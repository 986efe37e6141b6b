//! `alitok cache`

use std::{collections::HashSet, io, ops::ControlFlow, path::Path, time::Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use files::{
    npz,
    output::{self, OutputError, check_folder},
};
use model::Model;
use pipeline::{
    Device, PipelineError,
    cache::{self, BuildOptions, Views, build, import},
};
use pixels::{DataSet, Picture, crop::Crop};
use token_cache::{
    LeftOut, Shard, TokenCache,
    exchange::{JsonLines, NpzFolder, TokenSource, export_json_lines, export_npz_folder},
};
use tokens::CodebookIndex;

use crate::{
    args::{ComputeArgs, ReplaceArgs},
    commands::cache::{CacheBuildArgs, CacheImportArgs, CacheVerb},
    models,
    progress::{self, Progress},
    sources,
};

/// Most bad pictures that are listed; all are counted.
const MOST_LISTED: usize = 10_000;

pub(crate) fn run(verb: &CacheVerb, device: Option<Device>) -> Result<()> {
    match verb {
        CacheVerb::Build(args) => run_build(args, device),
        CacheVerb::Info { cache } => info(cache),
        CacheVerb::Verify { cache } => verify(cache),
        CacheVerb::Export { cache, out, replace } => export(cache, out, *replace),
        CacheVerb::Import(args) => run_import(args),
    }
}

fn run_build(args: &CacheBuildArgs, device: Option<Device>) -> Result<()> {
    let shard = args.shard.shard;
    let data = sources::open(&args.data.data, args.strict)?;
    let model = models::open(&args.model.model)?;
    // What is cached are the tokenizer's tokens, not those of a rounded one.
    let encoder = ComputeArgs::default().compute(device)?.encoder(&model)?;
    let encode = |picture: &Picture| encoder.encode(picture);
    let views = match (args.ten_crop, args.mirrored) {
        (true, _) => Views::TenCrop,
        (_, true) => Views::Mirrored,
        _ => Views::Center,
    };
    let pictures = shard.range(data.len()).len();
    let count = views.count();
    let layout = model.config.tokenizer.layout();
    let bytes = (pictures * count * layout.len() * size_of::<CodebookIndex>()) as u64;
    let about = [
        format!("{} pictures in {} classes", data.len(), data.classes().len()),
        format!(
            "caches     {pictures} pictures in {count} views of {} tokens, {} on disk",
            layout.len(),
            machine::bytes(bytes)
        ),
    ];
    ensure!(
        machine::free_disk(&args.out).is_none_or(|free| bytes < free),
        "the cache takes {} and {} has not as much left; free some, or give another --out",
        machine::bytes(bytes),
        args.out.display()
    );
    if args.dry_run {
        about.iter().try_for_each(|line| progress::result(line))?;
        return progress::result(&time_of(&*data, &model, encode, pictures * count)?);
    }
    about.iter().for_each(|line| progress::note(line));
    let mut progress = Progress::new("caching", pictures as u64);
    let options = BuildOptions { views, shard, strict: args.strict };
    let bad = write_cache(&args.out, args.replace, shard, |folder| {
        let report = |done, _| reported(&mut progress, done);
        Ok(build(&data, &model, encode, folder, options, report)?)
    })?;
    progress.finish();
    for LeftOut { picture, reason } in bad.iter().take(MOST_LISTED) {
        progress::note(&format!("left out: {}: {reason}", data.name(*picture)));
    }
    if !bad.is_empty() {
        let count = bad.len();
        progress::note(&format!("{count} pictures of shard {shard} were left out of the cache"));
    }
    progress::wrote(pictures - bad.len(), "picture", &args.out);
    Ok(())
}

/// Caches the tokens of a data set's centre crops in `folder`, or goes on with it, or finds it done.
pub(crate) fn center(source: &str, model: &Model, folder: &Path, strict: bool) -> Result<()> {
    let data = sources::open(source, strict)?;
    let encoder = ComputeArgs::default().compute(None)?.encoder(model)?;
    let encode = |picture: &Picture| encoder.encode(picture);
    let options = BuildOptions { views: Views::Center, shard: Shard::WHOLE, strict };
    let mut progress = Progress::new("caching", data.len() as u64);
    build(&data, model, encode, folder, options, |done, _| reported(&mut progress, done))?;
    progress.finish();
    Ok(())
}

/// Shows what is done. Ctrl-C ends the process, and the same command goes on.
fn reported(progress: &mut Progress, done: usize) -> ControlFlow<()> {
    progress.set(done as u64);
    ControlFlow::Continue(())
}

/// How long it takes to encode so many views, from the first pictures that can be read.
fn time_of(
    data: &dyn DataSet,
    model: &Model,
    encode: impl Fn(&Picture) -> Result<Vec<CodebookIndex>, PipelineError>,
    views: usize,
) -> Result<String> {
    const TRIED: usize = 3;
    let image = model.config.tokenizer.image;
    let started = Instant::now();
    let mut encoded = 0;
    for index in 0..data.len().min(100) {
        let Ok(picture) = data.picture(index) else { continue };
        let picture = Crop::Center.fit(picture, image.width, image.height, data.name(index))?;
        encode(&picture)?;
        encoded += 1;
        if encoded == TRIED {
            break;
        }
    }
    ensure!(
        encoded > 0,
        "none of the first pictures can be read; `alitok data inspect` lists them"
    );
    let each = started.elapsed().as_secs_f64() / encoded as f64;
    Ok(format!(
        "time       about {}, {} s a view",
        progress::duration(each * views as f64),
        progress::three_digits(each)
    ))
}

/// Writes a cache to a folder: into it where nothing or a cache is, which the cache's own writer then
/// compares; in its place as a whole where it is to be replaced.
fn write_cache<T>(
    out: &Path,
    replace: ReplaceArgs,
    shard: Shard,
    write: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let is_own = |name: &Path, _: &Path| {
        let text = name.to_string_lossy();
        let is_part = ["tokens-", "names-", "captions-"].iter().any(|part| text.starts_with(part));
        let tokenizer = name.strip_prefix(cache::TOKENIZER).ok();
        let tokenizer = tokenizer.and_then(Path::to_str);
        is_part && name.components().count() == 1
            || tokenizer.is_some_and(|name| model::FILES.contains(&name))
    };
    if !replace.replace {
        // With the permission to replace nothing of a cache's own is foreign.
        if out.exists() {
            match check_folder(out, true, &is_own, &[]) {
                Ok(()) | Err(OutputError::Current { .. }) => {}
                Err(OutputError::Foreign { .. }) => check_folder(out, false, &is_own, &[])?,
                Err(error) => return Err(error.into()),
            }
        }
        return write(out);
    }
    ensure!(
        shard.count() == 1,
        "--replace puts a whole cache in the place of another, and shard {shard} is a part; remove \
         the old cache first, or name another folder"
    );
    check_folder(out, true, &is_own, &[])?;
    let mut written = None;
    files::replace_folder::<Error>(out, |folder| {
        written = Some(write(folder)?);
        Ok(())
    })?;
    written.context("nothing was written")
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
        progress::result(&format!("{pictures} pictures in {views} views, all sound"))?;
        progress::did("checked", pictures, "picture");
        return Ok(());
    }
    let damages: Vec<_> = damages.iter().map(ToString::to_string).collect();
    bail!("{}", damages.join("\n"))
}

fn run_import(args: &CacheImportArgs) -> Result<()> {
    let shard = args.shard.shard;
    let model = models::open(&args.model.model)?;
    let path = &args.source;
    let mut source: Box<dyn TokenSource> = if path.is_dir() {
        Box::new(NpzFolder::open(path)?)
    } else {
        Box::new(JsonLines::open(path, args.views.into(), &model.classes)?)
    };
    let mut progress = Progress::new("importing", shard.range(source.len()).len() as u64);
    write_cache(&args.out, args.replace, shard, |folder| {
        let report = |done, _| reported(&mut progress, done);
        Ok(import(source.as_mut(), &model, folder, shard, report)?)
    })?;
    progress.finish();
    progress::wrote(shard.range(source.len()).len(), "picture", &args.out);
    Ok(())
}

fn export(path: &Path, out: &Path, replace: ReplaceArgs) -> Result<()> {
    let cache = TokenCache::open(path)?;
    ensure!(
        !output::is_bare_ending(out, &["npz", "jsonl"]),
        "{}: that is an ending without a name; write NAME{0}",
        out.display()
    );
    let mut progress = Progress::new("exporting", cache.len() as u64);
    let ending = out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("npz") => export_arrays(&cache, out)?,
        Some("jsonl") => export_json_lines(&cache, out, |done| progress.set(done as u64))?,
        _ => {
            let is_own = |name: &Path, _: &Path| output::ending(name) == "npz";
            check_folder(out, replace.replace, &is_own, &[path.to_owned()])?;
            export_npz_folder(&cache, out, |done| progress.set(done as u64))?;
        }
    }
    progress.finish();
    progress::wrote(cache.len() - cache.left_out()?.len(), "picture", out);
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
