//! Making token caches: every picture of a data set encoded once, in all its views; or taken over
//! from a program that did so.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use model::{Model, ModelError, tokenizer_digest, write_tokenizer};
use pixels::{
    DataSet, Picture, PixelsError,
    augment::horizontal_flip,
    crop::{Crop, ten_crop},
    loader::{BadSample, Loader, LoaderOptions, OnBad},
};
use serde::{Deserialize, Serialize};
use token_cache::{
    CacheError, CacheHeader, CacheWriter, LeftOut, Shard, caption_checksum,
    exchange::{ExchangeError, TokenSource},
    order_checksum,
};
use tokenizer::ImageSize;
use tokens::CodebookIndex;

use crate::PipelineError;

/// Name of the tokenizer's model folder inside a token cache.
pub const TOKENIZER: &str = "tokenizer";

/// Whether a folder holds a token cache that [`build`] or [`import`] made: one with its tokenizer.
pub fn is_cache(folder: &Path) -> bool {
    folder.join(TOKENIZER).join("config.json").is_file()
}

/// Pictures after which records are brought to the disk: as many are encoded again, at most, by
/// the next call after a kill.
const FLUSH_EVERY: usize = 64;
/// Pictures that are decoded and cropped ahead of the encoder.
const AHEAD: usize = 16;

/// Why a token cache cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A picture or data set cannot be read.
    #[error(transparent)]
    Pixels(#[from] PixelsError),
    /// The model cannot be read, or the tokenizer beside the tokens not be written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A picture cannot be encoded.
    #[error(transparent)]
    Encode(#[from] PipelineError),
    /// The cache cannot be written, or holds something else.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Tokens that another program cached cannot be read.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Ten crops of what is no square.
    #[error("ten-crop needs a tokenizer of square pictures")]
    TenCrop,
    /// Somebody asked the work to end.
    #[error("stopped after {done} of {total} pictures; the same call goes on from there")]
    Stopped {
        /// Pictures done.
        done: usize,
        /// Pictures of the shard.
        total: usize,
    },
}

/// The views of a picture that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// The centre crop.
    Center,
    /// The centre crop and its mirror image.
    Mirrored,
    /// The corners and the centre at 1.1 times the size, then their mirror images (paper, 4.1).
    TenCrop,
}

impl Views {
    /// How many views of a picture are cached.
    pub const fn count(self) -> usize {
        match self {
            Self::Center => 1,
            Self::Mirrored => 2,
            Self::TenCrop => 10,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Center => "centre crop (ADM)",
            Self::Mirrored => "centre crop (ADM) and its mirror image",
            Self::TenCrop => "ten-crop of the centre crop (ADM) at 1.1 times the size",
        }
    }

    /// The views of a picture at a tokenizer's size. `name` stands in the error message.
    ///
    /// # Errors
    /// If the picture has another size and crops have not: they are square.
    pub fn of(
        self,
        picture: Picture,
        image: ImageSize,
        name: &str,
    ) -> Result<Vec<Picture>, PixelsError> {
        if self == Self::TenCrop {
            return ten_crop(&picture, image.width);
        }
        let mut views = vec![Crop::Center.fit(picture, image.width, image.height, name)?];
        if self == Self::Mirrored {
            views.push(horizontal_flip(&views[0]));
        }
        Ok(views)
    }
}

/// What to cache of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildOptions {
    /// The views of each picture.
    pub views: Views,
    /// Which part of the data set.
    pub shard: Shard,
    /// Whether a picture that cannot be read ends the work; otherwise the cache says that it was
    /// left out, and why.
    pub strict: bool,
}

/// Encodes one shard of a data set into the cache in `folder`, going on where an earlier call was
/// interrupted. The cache keeps the data set's captions. `encode` gives the tokens of a picture at
/// the size of the model's tokenizer, as its encoder does. `progress` is called with the pictures done
/// and their number; the work ends where it breaks.
/// Returns the pictures of the shard that could not be read, earlier calls included.
///
/// # Errors
/// If the model cannot be read, the cache holds something else, the encoder's device fails, a thousand
/// pictures in a row cannot be read, or a single one if that is asked for; [`BuildError::Stopped`] if
/// `progress` ended it.
pub fn build(
    data: &Arc<dyn DataSet>,
    model: &Model,
    mut encode: impl FnMut(&Picture) -> Result<Vec<CodebookIndex>, PipelineError>,
    folder: &Path,
    options: BuildOptions,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<LeftOut>, BuildError> {
    let BuildOptions { views, shard, strict } = options;
    let image = model.config.tokenizer.image;
    if views == Views::TenCrop && image.height != image.width {
        return Err(BuildError::TenCrop);
    }
    let picture = |index: usize| (data.label(index), data.name(index));
    let described = Described {
        classes: data.classes(),
        pictures: data.len(),
        views: views.count(),
        augmentation: views.description(),
    };
    let captions = |index: usize| data.captions(index);
    let Some(mut writer) = writer(model, described, picture, captions, folder, shard)? else {
        return Ok(Vec::new());
    };

    let range = shard.range(data.len());
    let total = range.len();
    let mut loader = Loader::start(
        Arc::clone(data),
        range.skip(writer.len()),
        LoaderOptions::of_this_machine(AHEAD),
        if strict { OnBad::Stop } else { OnBad::LeaveOut },
        move |data, index| views.of(data.picture(index)?, image, data.name(index)),
    );
    // In the data set's order, bad ones included.
    let leave_out = |bad: Vec<BadSample>, writer: &mut CacheWriter| {
        bad.into_iter().try_for_each(|BadSample { index, error }| {
            if error.is_of_the_system() {
                return Err(BuildError::from(error));
            }
            let (label, name, reason) = (data.label(index), data.name(index), error.to_string());
            // A cache without captions has none of any picture.
            Ok(writer.leave_out_captioned(label, name, data.captions(index), &reason)?)
        })
    };
    while let Some(item) = loader.next() {
        // First: a thousand bad ones in a row are the fault of the disk, and are not written down.
        let (index, pictures) = item?;
        leave_out(loader.take_bad(), &mut writer)?;
        let mut tokens = Vec::new();
        for picture in &pictures {
            tokens.extend(encode(picture)?);
        }
        let (label, name) = (data.label(index), data.name(index));
        writer.append_captioned(label, name, data.captions(index), &tokens)?;
        let stop = progress(writer.len(), total).is_break();
        if stop || writer.len() % FLUSH_EVERY == 0 {
            writer.flush()?;
        }
        if stop {
            return Err(BuildError::Stopped { done: writer.len(), total });
        }
    }
    leave_out(loader.take_bad(), &mut writer)?;
    let left_out = writer.left_out().to_vec();
    writer.finish()?;
    Ok(left_out)
}

/// Puts one shard of the tokens that another program cached into the cache in `folder`, going on
/// where an earlier call was interrupted. They are taken for those of the model's tokenizer; its
/// layout and codebook are checked. `progress` is called with the pictures done and their number; the
/// work ends where it breaks.
///
/// # Errors
/// If tokens cannot be read or are not of the model's layout and codebook, or the cache holds
/// something else; [`BuildError::Stopped`] if `progress` ended it.
pub fn import(
    source: &mut dyn TokenSource,
    model: &Model,
    folder: &Path,
    shard: Shard,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<(), BuildError> {
    let described = Described {
        classes: source.classes(),
        pictures: source.len(),
        views: source.views(),
        augmentation: "imported: as the program that cached them made them",
    };
    // Other programs' caches have no place for captions.
    let captions = |_: usize| -> &[String] { &[] };
    let picture = |index| source.picture(index);
    let writer = writer(model, described, picture, captions, folder, shard)?;
    let Some(mut writer) = writer else { return Ok(()) };
    let range = shard.range(source.len());
    let total = range.len();
    for index in range.skip(writer.len()) {
        let tokens = source.tokens(index)?;
        let (label, name) = source.picture(index);
        writer.append(label, name, &tokens)?;
        if progress(writer.len(), total).is_break() {
            writer.flush()?;
            return Err(BuildError::Stopped { done: writer.len(), total });
        }
    }
    Ok(writer.finish()?)
}

/// What a cache will hold, as far as the tokenizer does not tell.
struct Described<'a> {
    classes: &'a [String],
    pictures: usize,
    views: usize,
    augmentation: &'a str,
}

/// Begins or resumes a shard, with the tokenizer beside it; nothing if the shard is finished.
fn writer<'a>(
    model: &Model,
    described: Described<'_>,
    picture: impl Fn(usize) -> (usize, &'a str),
    captions: impl Fn(usize) -> &'a [String],
    folder: &Path,
    shard: Shard,
) -> Result<Option<CacheWriter>, BuildError> {
    let config = &model.config.tokenizer;
    let tensors = model.tokenizer_tensors()?;
    let Described { classes, pictures, views, augmentation } = described;
    let has_captions = (0..pictures).any(|picture| !captions(picture).is_empty());
    let header = CacheHeader {
        layout: config.layout(),
        codes: config.codes,
        classes: classes.to_vec(),
        views,
        augmentation: augmentation.to_owned(),
        tokenizer: tokenizer_digest(&tensors),
        pictures,
        order: order_checksum((0..pictures).map(&picture)),
        captions: has_captions.then(|| caption_checksum((0..pictures).map(&captions))),
    };
    let captions = |index: usize| captions(index).to_vec();
    let writer = CacheWriter::create_or_resume_captioned(folder, header, shard, picture, captions);
    let writer = match writer {
        // A job that is started again after its work was done.
        Err(CacheError::Complete { .. }) => return Ok(None),
        writer => writer?,
    };
    let tokenizer = folder.join(TOKENIZER);
    if !tokenizer.exists() {
        let written = write_tokenizer(config, &tensors, &tokenizer);
        // The job of another shard may have been first, with the same content.
        if !tokenizer.join("config.json").exists() {
            written?;
        }
    }
    Ok(Some(writer))
}
