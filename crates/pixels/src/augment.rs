//! Random views of a picture. Each is a function of the picture and of the noise it is given, so
//! that a view depends on (seed, step, sample) alone.

use serde::{Deserialize, Serialize};
use tokens::noise::Noise;

use crate::crop::{Crop, cut};
use crate::resample::{Filter, Window, resize};
use crate::{Picture, PixelsError};

/// How training draws its view of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Which part of the picture is shown.
    pub crop: TrainingCrop,
    /// Whether half of the views are mirrored left to right.
    pub flip: bool,
}

/// Which part of a picture training shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainingCrop {
    /// What encoding would see: [`Crop::Center`].
    Center,
    /// [`random_crop`], as the released tokenizer training.
    Random,
    /// [`random_resized_crop`] with at least this fraction of the picture's area.
    RandomResized {
        /// In (0, 1].
        smallest_area: f64,
    },
}

impl TrainingCrop {
    /// Whether its numbers are in range.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Center | Self::Random => true,
            Self::RandomResized { smallest_area } => smallest_area > 0.0 && smallest_area <= 1.0,
        }
    }
}

impl Augmentation {
    /// A view of `width` × `height` pixels. `name` stands in the error message.
    ///
    /// # Errors
    /// [`PixelsError::WrongSize`] if the view is no square where only squares can be cut, and
    /// those of the crops.
    pub fn view(
        &self,
        picture: Picture,
        (width, height): (usize, usize),
        name: &str,
        noise: &mut Noise,
    ) -> Result<Picture, PixelsError> {
        let view = match self.crop {
            TrainingCrop::Random if width == height => random_crop(&picture, width, noise)?,
            TrainingCrop::RandomResized { smallest_area } => {
                random_resized_crop(&picture, (width, height), smallest_area, noise)?
            }
            TrainingCrop::Center | TrainingCrop::Random => {
                Crop::Center.fit(picture, width, height, name)?
            }
        };
        Ok(if self.flip { random_flip(view, noise) } else { view })
    }
}

/// The picture mirrored left to right.
pub fn horizontal_flip(picture: &Picture) -> Picture {
    let stride = 3 * picture.width();
    let mut rgb = vec![0; picture.rgb().len()];
    for (row, mirrored) in picture.rgb().chunks_exact(stride).zip(rgb.chunks_exact_mut(stride)) {
        let pixels = row.as_chunks::<3>().0.iter().rev();
        for (mirrored, &pixel) in mirrored.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
            *mirrored = pixel;
        }
    }
    Picture::new(picture.width(), picture.height(), rgb).expect("a mirrored picture is as large")
}

/// The picture, mirrored in half of the cases.
pub fn random_flip(picture: Picture, noise: &mut Noise) -> Picture {
    if noise.below(2) == 1 { horizontal_flip(&picture) } else { picture }
}

/// A square of `size` pixels cut at random from the picture after its shorter side was brought to
/// `size` by Pillow's bilinear filter, as the released tokenizer training does.
///
/// # Errors
/// [`PixelsError::Values`] if `size` is zero.
pub fn random_crop(
    picture: &Picture,
    size: usize,
    noise: &mut Noise,
) -> Result<Picture, PixelsError> {
    let shorter = picture.width().min(picture.height());
    // torchvision's `Resize` cuts the longer side, it does not round.
    let (width, height) = (size * picture.width() / shorter, size * picture.height() / shorter);
    let (top, left) = (noise.below(height - size + 1), noise.below(width - size + 1));
    let window = Window { left, top, width: size, height: size };
    resize(picture, (width, height), Filter::Bilinear, window)
}

/// A part of the picture with a random area from `smallest_area` to all of it and a random ratio of
/// width to height from 3/4 to 4/3, brought to `width` × `height` by Pillow's bilinear filter: the
/// distribution of torchvision's `RandomResizedCrop`.
///
/// # Errors
/// [`PixelsError::Values`] if `width` or `height` is zero.
pub fn random_resized_crop(
    picture: &Picture,
    (width, height): (usize, usize),
    smallest_area: f64,
    noise: &mut Noise,
) -> Result<Picture, PixelsError> {
    const WIDEST: f64 = 4.0 / 3.0;
    const TRIES: usize = 10;
    let (full_width, full_height) = (picture.width() as f64, picture.height() as f64);
    let part = (0..TRIES).find_map(|_| {
        let area =
            full_width * full_height * (smallest_area + (1.0 - smallest_area) * noise.uniform());
        // Even in the logarithm, so that 3/4 is as likely as 4/3.
        let ratio = WIDEST.powf(2.0 * noise.uniform() - 1.0);
        let part_width = (area * ratio).sqrt().round_ties_even() as usize;
        let part_height = (area / ratio).sqrt().round_ties_even() as usize;
        let fits = (1..=picture.width()).contains(&part_width)
            && (1..=picture.height()).contains(&part_height);
        fits.then(|| {
            let top = noise.below(picture.height() - part_height + 1);
            let left = noise.below(picture.width() - part_width + 1);
            (left, top, part_width, part_height)
        })
    });
    let (left, top, part_width, part_height) = part.unwrap_or_else(|| {
        // No part fitted: the largest one in the middle whose ratio is allowed.
        let ratio = (full_width / full_height).clamp(1.0 / WIDEST, WIDEST);
        let part_width = full_width.min((full_height * ratio).round_ties_even()) as usize;
        let part_height = full_height.min((full_width / ratio).round_ties_even()) as usize;
        let middle = |full: usize, part: usize| (full - part) / 2;
        (
            middle(picture.width(), part_width),
            middle(picture.height(), part_height),
            part_width,
            part_height,
        )
    });
    let part = cut(picture, left, top, part_width, part_height)?;
    resize(&part, (width, height), Filter::Bilinear, Window { left: 0, top: 0, width, height })
}
