//! Making token caches: every picture of a data set encoded once, in all its views.

use std::path::Path;

use pixels::{DataSet, Picture, crop::ten_crop};
use tokenizer::FrozenEncoder;
use tokens::cache::{CacheError, CacheHeader, CacheWriter, Shard};
use weights::{ModelFolder, tokenizer_digest};

use crate::{TrainingError, loader::fitted, stage_one::export_tokenizer};

/// Name of the tokenizer's model folder inside a token cache.
pub const TOKENIZER: &str = "tokenizer";

/// Pictures after which records are brought to the disk: as many are encoded again, at most, by
/// the next call after a kill.
const FLUSH_EVERY: usize = 64;

/// The views of a picture that are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// The centre crop.
    Center,
    /// The corners and the centre at 1.1 times the size, then their mirror images (paper, 4.1).
    TenCrop,
}

impl Views {
    const fn count(self) -> usize {
        match self {
            Self::Center => 1,
            Self::TenCrop => 10,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Center => "centre crop (ADM)",
            Self::TenCrop => "ten-crop of the centre crop (ADM) at 1.1 times the size",
        }
    }
}

/// Encodes one shard of a data set into the cache in `folder`, going on where an earlier call was
/// interrupted. `progress` is called with the pictures done and their number.
///
/// # Errors
/// If a picture or the model cannot be read, or the cache holds something else.
pub fn build(
    data: &dyn DataSet,
    model: &ModelFolder,
    encoder: &FrozenEncoder,
    views: Views,
    folder: &Path,
    shard: Shard,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), TrainingError> {
    let config = encoder.config();
    let image = config.image;
    if views == Views::TenCrop && image.height != image.width {
        return Err(TrainingError::Data("ten-crop needs a tokenizer of square pictures".into()));
    }
    let tensors = model.tokenizer_tensors()?;
    let header = CacheHeader {
        layout: config.layout(),
        codes: config.codes,
        classes: data.classes().to_vec(),
        views: views.count(),
        augmentation: views.description().to_owned(),
        tokenizer: tokenizer_digest(&tensors),
    };
    let mut writer = match CacheWriter::create_or_resume(folder, header, shard) {
        // A job that is started again after its work was done.
        Err(CacheError::Complete { .. }) => return Ok(()),
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

    let range = shard.range(data.len());
    let total = range.len();
    for index in range.skip(writer.len()) {
        let pictures: Vec<Picture> = match views {
            Views::Center => vec![fitted(data, index, image)?],
            Views::TenCrop => ten_crop(&data.picture(index)?, image.width)?,
        };
        let tokens: Vec<_> = pictures
            .iter()
            .flat_map(|picture| encoder.encode_picture(picture.to_unit_planes()))
            .collect();
        writer.append(data.label(index), data.name(index), &tokens)?;
        progress(writer.len(), total);
        if writer.len() % FLUSH_EVERY == 0 {
            writer.flush()?;
        }
    }
    Ok(writer.finish()?)
}
