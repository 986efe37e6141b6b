//! A picture in memory, read from and written to files.

use std::io::Cursor;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageBuffer, ImageDecoder, ImageEncoder, ImageError,
    ImageFormat, ImageReader, Limits, Pixel, RgbImage,
};

use crate::{PixelsError, jpeg};

/// Longest side that is decoded, in pixels.
const MAX_SIDE: usize = 1 << 15;
/// Most pixels that are decoded: what a large camera makes. A progressive JPEG of four components
/// takes 15 bytes a pixel while it is decoded, the most of all kinds.
const MAX_PIXELS: usize = 150_000_000;
/// Most bytes a decoder may ask for.
const MAX_BYTES: u64 = 8 * MAX_PIXELS as u64;

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
        Self::decode_with_exif(bytes, source_name).map(|(picture, _)| picture)
    }

    /// [`decode`](Self::decode), then turned as the Exif orientation tag says, if there is one.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn decode_upright(bytes: &[u8], source_name: &str) -> Result<Self, PixelsError> {
        let (picture, exif) = Self::decode_with_exif(bytes, source_name)?;
        let orientation = exif.and_then(|exif| Orientation::from_exif_chunk(&exif));
        Ok(picture.oriented(orientation.unwrap_or(Orientation::NoTransforms)))
    }

    fn oriented(self, orientation: Orientation) -> Self {
        let Self { width, height, rgb } = self;
        let Some(buffer) = RgbImage::from_raw(width as u32, height as u32, rgb) else {
            unreachable!("a picture has the size it says");
        };
        let mut image = DynamicImage::ImageRgb8(buffer);
        image.apply_orientation(orientation);
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, rgb: image.into_rgb8().into_raw() }
    }

    /// The picture, and its Exif data where there are any.
    fn decode_with_exif(
        bytes: &[u8],
        source_name: &str,
    ) -> Result<(Self, Option<Vec<u8>>), PixelsError> {
        let name = || source_name.to_owned();
        let damaged = |reason: String| PixelsError::Damaged { name: name(), reason };
        let failed = |error: ImageError| match error {
            ImageError::Limits(limit) => {
                PixelsError::TooLarge { name: name(), reason: limit.to_string() }
            }
            other => damaged(other.to_string()),
        };
        let check_size = |width: usize, height: usize| {
            if width.max(height) <= MAX_SIDE && width * height <= MAX_PIXELS {
                return Ok(());
            }
            let reason = format!(
                "{width} x {height} pixels; the limit is {MAX_SIDE} a side and {MAX_PIXELS} in all"
            );
            Err(PixelsError::TooLarge { name: name(), reason })
        };
        let format = match image::guess_format(bytes) {
            Ok(
                format @ (ImageFormat::Png
                | ImageFormat::Jpeg
                | ImageFormat::WebP
                | ImageFormat::Gif),
            ) => format,
            _ => return Err(PixelsError::NotAPicture { name: name() }),
        };
        if format == ImageFormat::Jpeg {
            let decoder = jpeg::Decoder::new(bytes).map_err(|reason| damaged(reason.to_owned()))?;
            let (width, height) = decoder.size();
            check_size(width, height)?;
            let exif = decoder.exif().map(<[u8]>::to_vec);
            let rgb = decoder.decode().map_err(|reason| damaged(reason.to_owned()))?;
            return Ok((Self { width, height, rgb }, exif));
        }

        let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_BYTES);
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(failed)?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        check_size(width, height)?;
        let exif = decoder.exif_metadata().unwrap_or_default();
        let decoded = DynamicImage::from_decoder(decoder).map_err(failed)?;
        let picture = Self::new(width, height, composite_on_white(decoded))
            .map_err(|error| damaged(error.to_string()))?;
        Ok((picture, exif))
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
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Default, FilterType::Adaptive)
            .write_image(&self.rgb, self.width as u32, self.height as u32, ExtendedColorType::Rgb8)
            .expect("a picture has the size it says, and memory takes every byte");
        bytes
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

/// The RGB bytes of a decoded picture over a white page.
fn composite_on_white(decoded: DynamicImage) -> Vec<u8> {
    let decoded = upper_bytes(decoded);
    if !decoded.color().has_alpha() {
        return decoded.into_rgb8().into_raw();
    }
    let rgba = decoded.into_rgba8().into_raw();
    rgba.chunks_exact(4)
        .flat_map(|pixel| {
            let alpha = u32::from(pixel[3]);
            [pixel[0], pixel[1], pixel[2]]
                .map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
        })
        .collect()
}

/// The picture at 8 bits: the upper half of 16, as Pillow takes it.
fn upper_bytes(decoded: DynamicImage) -> DynamicImage {
    fn halved<P, Q>(image: &ImageBuffer<P, Vec<u16>>) -> ImageBuffer<Q, Vec<u8>>
    where
        P: Pixel<Subpixel = u16>,
        Q: Pixel<Subpixel = u8>,
    {
        let values = image.as_raw().iter().map(|value| (value >> 8) as u8).collect();
        ImageBuffer::from_raw(image.width(), image.height(), values)
            .expect("as many values of as many channels")
    }
    match &decoded {
        DynamicImage::ImageLuma16(image) => DynamicImage::ImageLuma8(halved(image)),
        DynamicImage::ImageLumaA16(image) => DynamicImage::ImageLumaA8(halved(image)),
        DynamicImage::ImageRgb16(image) => DynamicImage::ImageRgb8(halved(image)),
        DynamicImage::ImageRgba16(image) => DynamicImage::ImageRgba8(halved(image)),
        _ => decoded,
    }
}
