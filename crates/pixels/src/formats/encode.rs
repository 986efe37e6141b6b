//! Writing formats beside PNG.

use jpeg_encoder::{ColorType, Encoder};

use crate::PixelsError;

fn too_large(width: usize, height: usize, format: &str, reason: String) -> PixelsError {
    PixelsError::TooLarge { name: format!("of {width} x {height} pixels as {format}"), reason }
}

/// The bytes of a JPEG file of this quality, 1 to 100.
///
/// # Errors
/// If a side is longer than 65,535 pixels.
pub(crate) fn jpeg(
    width: usize,
    height: usize,
    rgb: &[u8],
    quality: u8,
) -> Result<Vec<u8>, PixelsError> {
    let wrong = |reason| too_large(width, height, "JPEG", reason);
    let side = |side: usize| u16::try_from(side).map_err(|error| wrong(error.to_string()));
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, quality.clamp(1, 100))
        .encode(rgb, side(width)?, side(height)?, ColorType::Rgb)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(bytes)
}

/// The bytes of a lossless WebP file.
///
/// # Errors
/// If a side is longer than 16,384 pixels.
pub(crate) fn webp(width: usize, height: usize, rgb: &[u8]) -> Result<Vec<u8>, PixelsError> {
    let mut bytes = Vec::new();
    image_webp::WebPEncoder::new(&mut bytes)
        .encode(rgb, width as u32, height as u32, image_webp::ColorType::Rgb8)
        .map_err(|error| too_large(width, height, "WebP", error.to_string()))?;
    Ok(bytes)
}
