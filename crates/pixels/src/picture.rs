//! A picture in memory, read from and written to files.

use std::path::Path;

use crate::PixelsError;
use crate::formats::{self, Orientation};

/// A picture of 8-bit RGB pixels, stored row by row, three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of `width` × `height` pixels from `rgb`, `[height, width, 3]` in row-major order.
    ///
    /// # Errors
    /// [`PixelsError::Values`] if a side is zero or `rgb` has another length.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self, PixelsError> {
        check_values(width, height, rgb.len())?;
        Ok(Self { width, height, rgb })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The pixels, `[height, width, 3]` in row-major order.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The pixels, `[height, width, 3]` in row-major order.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// Reads a PNG, JPEG, WebP or GIF file; see [`decode`](Self::decode).
    ///
    /// # Errors
    /// [`PixelsError::Read`] for a missing or unreadable file, and those of `decode`.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PixelsError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(PixelsError::read(path))?;
        Self::decode(&bytes, &path.display().to_string())
    }

    /// Decodes a PNG, JPEG, WebP or GIF (its first frame), whatever its depth and colour type, to
    /// the bits of Pillow's `convert("RGB")`. Of 16 bits the upper 8 are kept. Transparency is
    /// composited on white. Orientation tags are ignored, as the released code does;
    /// [`decode_upright`](Self::decode_upright) follows them. What the file is, its content says
    /// and not its name. `source_name` stands in error messages.
    ///
    /// # Errors
    /// [`PixelsError::NotAPicture`], [`PixelsError::Damaged`] (also for a truncated file) or
    /// [`PixelsError::TooLarge`], which is found out before anything is decoded.
    pub fn decode(bytes: &[u8], source_name: &str) -> Result<Self, PixelsError> {
        Self::decode_within(bytes, source_name, formats::MAX_PIXELS)
    }

    /// [`decode`](Self::decode) of a file that may be anybody's: one of more than `most_pixels` is
    /// refused before anything is decoded.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode_within(
        bytes: &[u8],
        source_name: &str,
        most_pixels: usize,
    ) -> Result<Self, PixelsError> {
        formats::decode(bytes, source_name, most_pixels).map(|(picture, _)| picture)
    }

    /// [`decode`](Self::decode), then turned as the Exif orientation tag says, if there is one.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode_upright(bytes: &[u8], source_name: &str) -> Result<Self, PixelsError> {
        let (picture, exif) = formats::decode(bytes, source_name, formats::MAX_PIXELS)?;
        let Some(orientation) = exif.and_then(|exif| Orientation::from_exif(&exif)) else {
            return Ok(picture);
        };
        let (width, height, rgb) = orientation.apply(picture.width, picture.height, picture.rgb);
        Ok(Self { width, height, rgb })
    }

    /// The pixels as a model reads them: value / 255, in [0, 1].
    ///
    /// # Shapes
    /// `[3, height, width]`, row-major.
    pub fn to_unit_planes(&self) -> Vec<f32> {
        (0..3)
            .flat_map(|channel| self.rgb.iter().skip(channel).step_by(3))
            .map(|&value| f32::from(value) / 255.0)
            .collect()
    }

    /// A picture from a model's output, `[3, height, width]`: ⌊255 · clamp(x, 0, 1)⌋, as the
    /// released code rounds. What is not a number becomes 0.
    ///
    /// # Errors
    /// [`PixelsError::Values`] if a side is zero or `planes` has another length.
    pub fn from_unit_planes(
        width: usize,
        height: usize,
        planes: &[f32],
    ) -> Result<Self, PixelsError> {
        check_values(width, height, planes.len())?;
        let area = width * height;
        let rgb = (0..area)
            .flat_map(|pixel| [pixel, area + pixel, 2 * area + pixel])
            .map(|index| (255.0 * planes[index].clamp(0.0, 1.0)) as u8)
            .collect();
        Ok(Self { width, height, rgb })
    }

    /// The picture as the bytes of a PNG file; the same picture always gives the same bytes.
    pub fn encode_png(&self) -> Vec<u8> {
        formats::encode_png(self.width, self.height, &self.rgb)
    }

    /// The picture as the bytes of a JPEG file of this quality, from 1 to 100.
    ///
    /// # Errors
    /// [`PixelsError::TooLarge`] if a side is longer than the format allows.
    pub fn encode_jpeg(&self, quality: u8) -> Result<Vec<u8>, PixelsError> {
        formats::encode_jpeg(self.width, self.height, &self.rgb, quality)
    }

    /// The picture as the bytes of a lossless WebP file.
    ///
    /// # Errors
    /// [`PixelsError::TooLarge`] if a side is longer than the format allows.
    pub fn encode_webp(&self) -> Result<Vec<u8>, PixelsError> {
        formats::encode_webp(self.width, self.height, &self.rgb)
    }

    /// Writes a PNG file, whole or not at all.
    ///
    /// # Errors
    /// [`PixelsError::Write`].
    #[cfg(feature = "data")]
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), PixelsError> {
        let path = path.as_ref();
        let bytes = self.encode_png();
        files::write_file(path, |file| std::io::Write::write_all(file, &bytes))
            .map_err(PixelsError::write(path))
    }

    /// Pictures side by side, row after row of `columns`, with `gap` pixels of `background`
    /// between neighbours and around them all. Cells are as large as the largest picture;
    /// smaller ones stand in their upper left corner.
    ///
    /// # Errors
    /// [`PixelsError::EmptyGrid`] without a picture or a column.
    pub fn grid(
        pictures: &[Self],
        columns: usize,
        gap: usize,
        background: [u8; 3],
    ) -> Result<Self, PixelsError> {
        let columns = columns.min(pictures.len());
        if columns == 0 {
            return Err(PixelsError::EmptyGrid);
        }
        let largest = |side: fn(&Self) -> usize| pictures.iter().map(side).max().unwrap_or(0);
        let (cell_width, cell_height) = (largest(Self::width), largest(Self::height));
        let width = columns * (cell_width + gap) + gap;
        let height = pictures.len().div_ceil(columns) * (cell_height + gap) + gap;

        let mut rgb = background.repeat(width * height);
        for (index, picture) in pictures.iter().enumerate() {
            let left = gap + (index % columns) * (cell_width + gap);
            let top = gap + (index / columns) * (cell_height + gap);
            for (row, pixels) in picture.rgb.chunks_exact(3 * picture.width).enumerate() {
                let start = 3 * ((top + row) * width + left);
                rgb[start..start + pixels.len()].copy_from_slice(pixels);
            }
        }
        Self::new(width, height, rgb)
    }
}

fn check_values(width: usize, height: usize, got: usize) -> Result<(), PixelsError> {
    let expected = width.checked_mul(height).and_then(|area| area.checked_mul(3)).unwrap_or(0);
    if expected == 0 || expected != got {
        return Err(PixelsError::Values { width, height, expected, got });
    }
    Ok(())
}
