//! Random views of a picture. Each is a function of the picture and of the noise it is given, so
//! that a view depends on (seed, step, sample) alone.

use tokens::noise::Noise;

use crate::resample::{Filter, Window, resize};
use crate::{Picture, PixelsError};

/// The picture mirrored left to right.
pub fn horizontal_flip(picture: &Picture) -> Picture {
    let rows = picture.rgb().chunks_exact(3 * picture.width());
    let rgb = rows.flat_map(|row| row.rchunks_exact(3).flatten()).copied().collect();
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
