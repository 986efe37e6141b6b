//! Pictures that a person names.

use std::path::Path;

use anyhow::Result;
use pixels::{Picture, crop::Crop};
use tokenizer::ImageSize;

use crate::args::CropArgs;

/// Reads a picture at a tokenizer's size.
pub(crate) fn read(path: &Path, image: ImageSize, crop: &CropArgs) -> Result<Picture> {
    let crop = if crop.no_crop { Crop::Never } else { Crop::Center };
    Ok(crop.fit(Picture::read(path)?, image.width, image.height, &path.display().to_string())?)
}
