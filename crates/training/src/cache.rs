//! Making token caches: every picture of a data set encoded once, in all its views; or taken over
//! from a program that did so.

use std::path::Path;

use pixels::{DataSet, Picture, augment::horizontal_flip, crop::ten_crop};
use serde::{Deserialize, Serialize};
use tokens::{
    CodebookIndex,
    cache::{CacheError, CacheHeader, CacheWriter, Shard, exchange::TokenSource, order_checksum},
};
use weights::{ModelFolder, tokenizer_digest};

use crate::{TrainingError, loader::fitted, stage_one::export_tokenizer};

/// Name of the tokenizer's model folder inside a token cache.
pub const TOKENIZER: &str = "tokenizer";

/// Pictures after which records are brought to the disk: as many are encoded again, at most, by
/// the next call after a kill.
const FLUSH_EVERY: usize = 64;

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
    const fn count(self) -> usize {
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
}

/// Encodes one shard of a data set into the cache in `folder`, going on where an earlier call was
/// interrupted. `encode` gives the tokens of a picture at the size of the model's tokenizer, as its
/// encoder does. `progress` is called with the pictures done and their number.
///
/// # Errors
/// If a picture or the model cannot be read, or the cache holds something else.
pub fn build(
    data: &dyn DataSet,
    model: &ModelFolder,
    mut encode: impl FnMut(&Picture) -> Vec<CodebookIndex>,
    views: Views,
    folder: &Path,
    shard: Shard,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), TrainingError> {
    let image = model.config.tokenizer.image;
    if views == Views::TenCrop && image.height != image.width {
        return Err(TrainingError::Data("ten-crop needs a tokenizer of square pictures".into()));
    }
    let picture = |index: usize| (data.label(index), data.name(index));
    let described = Described {
        classes: data.classes(),
        pictures: data.len(),
        views: views.count(),
        augmentation: views.description(),
    };
    let Some(mut writer) = writer(model, described, picture, folder, shard)? else { return Ok(()) };

    let range = shard.range(data.len());
    let total = range.len();
    for index in range.skip(writer.len()) {
        let pictures: Vec<Picture> = match views {
            Views::Center => vec![fitted(data, index, image)?],
            Views::Mirrored => {
                let picture = fitted(data, index, image)?;
                let mirrored = horizontal_flip(&picture);
                vec![picture, mirrored]
            }
            Views::TenCrop => ten_crop(&data.picture(index)?, image.width)?,
        };
        let tokens: Vec<_> = pictures.iter().flat_map(&mut encode).collect();
        writer.append(data.label(index), data.name(index), &tokens)?;
        progress(writer.len(), total);
        if writer.len() % FLUSH_EVERY == 0 {
            writer.flush()?;
        }
    }
    Ok(writer.finish()?)
}

/// Puts one shard of the tokens that another program cached into the cache in `folder`, going on
/// where an earlier call was interrupted. They are taken for those of the model's tokenizer; its
/// layout and codebook are checked. `progress` is called with the pictures done and their number.
///
/// # Errors
/// If tokens cannot be read or are not of the model's layout and codebook, or the cache holds
/// something else.
pub fn import(
    source: &mut dyn TokenSource,
    model: &ModelFolder,
    folder: &Path,
    shard: Shard,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), TrainingError> {
    let described = Described {
        classes: source.classes(),
        pictures: source.len(),
        views: source.views(),
        augmentation: "imported: as the program that cached them made them",
    };
    let writer = writer(model, described, |index| source.picture(index), folder, shard)?;
    let Some(mut writer) = writer else { return Ok(()) };
    let range = shard.range(source.len());
    let total = range.len();
    for index in range.skip(writer.len()) {
        let tokens = source.tokens(index)?;
        let (label, name) = source.picture(index);
        writer.append(label, name, &tokens)?;
        progress(writer.len(), total);
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
    model: &ModelFolder,
    described: Described<'_>,
    picture: impl Fn(usize) -> (usize, &'a str),
    folder: &Path,
    shard: Shard,
) -> Result<Option<CacheWriter>, TrainingError> {
    let config = &model.config.tokenizer;
    let tensors = model.tokenizer_tensors()?;
    let Described { classes, pictures, views, augmentation } = described;
    let header = CacheHeader {
        layout: config.layout(),
        codes: config.codes,
        classes: classes.to_vec(),
        views,
        augmentation: augmentation.to_owned(),
        tokenizer: tokenizer_digest(&tensors),
        pictures,
        order: order_checksum((0..pictures).map(&picture)),
    };
    let writer = match CacheWriter::create_or_resume(folder, header, shard, picture) {
        // A job that is started again after its work was done.
        Err(CacheError::Complete { .. }) => return Ok(None),
        writer => writer?,
    };
    let tokenizer = folder.join(TOKENIZER);
    if !tokenizer.exists() {
        let written = export_tokenizer(config, &tensors, &tokenizer);
        // The job of another shard may have been first, with the same content.
        if !tokenizer.join("config.json").exists() {
            written?;
        }
    }
    Ok(Some(writer))
}
