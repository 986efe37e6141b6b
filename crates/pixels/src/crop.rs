//! The crops of ADM and of ten-crop training, equal to the Pillow originals to the bit.

use crate::resample::{Filter, Window, resize};
use crate::{Picture, PixelsError, augment};

/// The longest side of a crop, in pixels.
pub const MOST_SIZE: usize = 16_384;

/// What to do with a picture that is not of the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Crop {
    /// Take the [`center_crop`].
    #[default]
    Center,
    /// Refuse it.
    Never,
}

impl Crop {
    /// The picture at `width` × `height` pixels: as it is if it has that size, else cropped where
    /// that is a square. `name` stands in the error message.
    ///
    /// # Errors
    /// [`PixelsError::WrongSize`] for a picture of another size under [`Crop::Never`], or if the
    /// wanted one is no square, and those of [`center_crop`].
    pub fn fit(
        self,
        picture: Picture,
        width: usize,
        height: usize,
        name: &str,
    ) -> Result<Picture, PixelsError> {
        if (picture.width(), picture.height()) == (width, height) {
            Ok(picture)
        } else if width == height && self == Self::Center {
            center_crop(&picture, width)
        } else {
            Err(PixelsError::WrongSize {
                name: name.to_owned(),
                width: picture.width(),
                height: picture.height(),
                wanted: (width, height),
            })
        }
    }
}

/// The centre crop of ADM (`center_crop_arr` of guided-diffusion): halved by box filter while the
/// shorter side is at least twice `size`, brought to `size` by bicubic filter, then cut in the middle.
///
/// # Errors
/// [`PixelsError::Values`] if `size` is zero, [`PixelsError::CropSize`] if it is beyond [`MOST_SIZE`].
pub fn center_crop(picture: &Picture, size: usize) -> Result<Picture, PixelsError> {
    if size > MOST_SIZE {
        return Err(PixelsError::CropSize { size, limit: MOST_SIZE });
    }
    let mut halved = None;
    if size > 0 {
        loop {
            let current = halved.as_ref().unwrap_or(picture);
            if current.width().min(current.height()) < 2 * size {
                break;
            }
            let (width, height) = (current.width() / 2, current.height() / 2);
            let all = Window { left: 0, top: 0, width, height };
            halved = Some(resize(current, (width, height), Filter::Box, all)?);
        }
    }
    let picture = halved.as_ref().unwrap_or(picture);

    let scale = size as f64 / picture.width().min(picture.height()) as f64;
    let scaled = |side: usize| (side as f64 * scale).round_ties_even() as usize;
    let (width, height) = (scaled(picture.width()), scaled(picture.height()));
    let window =
        Window { left: (width - size) / 2, top: (height - size) / 2, width: size, height: size };
    resize(picture, (width, height), Filter::Bicubic, window)
}

/// The ten views of a picture that the generator is trained on (paper, section 4.1): of its centre
/// crop at ⌊1.1 · `size`⌋ pixels the four corners (upper left, upper right, lower left, lower
/// right) and the centre, then the same five of the mirrored crop, in the order of torchvision's
/// `TenCrop`.
///
/// # Errors
/// [`PixelsError::Values`] if `size` is zero, [`PixelsError::CropSize`] if the crop that they are cut from
/// is larger than [`MOST_SIZE`].
pub fn ten_crop(picture: &Picture, size: usize) -> Result<Vec<Picture>, PixelsError> {
    let side = (size as f64 * 1.1) as usize; // cut, not rounded, by the released code
    let upright = center_crop(picture, side)?;
    let mirrored = augment::horizontal_flip(&upright);
    let far = side - size;
    let middle = (far as f64 / 2.0).round_ties_even() as usize;
    let corners = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)];
    [&upright, &mirrored]
        .into_iter()
        .flat_map(|picture| corners.map(|(left, top)| cut(picture, left, top, size, size)))
        .collect()
}

/// A part of a picture as it is.
pub(crate) fn cut(
    picture: &Picture,
    left: usize,
    top: usize,
    width: usize,
    height: usize,
) -> Result<Picture, PixelsError> {
    let rows = picture.rgb().chunks_exact(3 * picture.width()).skip(top).take(height);
    let mut rgb = Vec::with_capacity(3 * width * height);
    for row in rows {
        rgb.extend_from_slice(&row[3 * left..3 * (left + width)]);
    }
    Picture::new(width, height, rgb)
}
