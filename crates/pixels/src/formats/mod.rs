//! The file formats of pictures: what a file is, and its pixels.

mod encode;
mod exif;
mod gif;
mod jpeg;
mod png;
mod webp;

pub(crate) use encode::{jpeg as encode_jpeg, webp as encode_webp};
pub(crate) use exif::Orientation;
pub(crate) use png::encode as encode_png;

use crate::PixelsError;

/// Longest side that is decoded, in pixels.
const MAX_SIDE: usize = 1 << 15;
/// Most pixels that are decoded: what a large camera makes. A progressive JPEG of four components
/// takes 15 bytes a pixel while it is decoded, the most of all kinds.
pub(crate) const MAX_PIXELS: usize = 150_000_000;
/// Most bytes a decoder may ask for.
const MAX_BYTES: usize = 8 * MAX_PIXELS;

/// What a decoder makes of a file.
struct Decoded {
    width: usize,
    height: usize,
    /// `[height, width, 3]`
    rgb: Vec<u8>,
    /// The Exif data, from the byte order on.
    exif: Option<Vec<u8>>,
}

/// Why a decoder gives up; [`decode`] adds the name of the file.
#[derive(Debug)]
enum Failure {
    Damaged(String),
    TooLarge(String),
}

impl Failure {
    fn damaged(reason: impl ToString) -> Self {
        Self::Damaged(reason.to_string())
    }
}

/// Refuses sizes beyond the limits, before anything is allocated for them.
fn check_size(width: usize, height: usize, most_pixels: usize) -> Result<(), Failure> {
    let most_pixels = most_pixels.min(MAX_PIXELS);
    if width.max(height) <= MAX_SIDE && width * height <= most_pixels {
        return Ok(());
    }
    Err(Failure::TooLarge(format!(
        "{width} x {height} pixels; the limit is {MAX_SIDE} a side and {most_pixels} in all"
    )))
}

/// `length` zeros, or an error where memory does not hold them.
fn zeros(length: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| {
        Failure::TooLarge(format!("{length} bytes are needed, and memory has not as many"))
    })?;
    bytes.resize(length, 0);
    Ok(bytes)
}

/// Width, height and pixels (`[height, width, 3]`) of a file of any format that is read, and its
/// Exif data where there are any. One of more than `most_pixels` is refused.
pub(crate) fn decode(
    bytes: &[u8],
    name: &str,
    most_pixels: usize,
) -> Result<(crate::Picture, Option<Vec<u8>>), PixelsError> {
    let decoder: fn(&[u8], usize) -> Result<Decoded, Failure> = match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => png::decode,
        [0xFF, 0xD8, 0xFF, ..] => jpeg::decode,
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::decode,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::decode,
        _ => {
            return Err(PixelsError::NotAPicture {
                name: name.to_owned(),
                kind: what_it_is(bytes),
            });
        }
    };
    let name = || name.to_owned();
    let decoded = decoder(bytes, most_pixels).map_err(|failure| match failure {
        Failure::Damaged(reason) => PixelsError::Damaged { name: name(), reason },
        Failure::TooLarge(reason) => PixelsError::TooLarge { name: name(), reason },
    })?;
    let Decoded { width, height, rgb, exif } = decoded;
    let picture = crate::Picture::new(width, height, rgb)
        .map_err(|error| PixelsError::Damaged { name: name(), reason: error.to_string() })?;
    Ok((picture, exif))
}

/// What bytes are that are no picture of a format that is read, as far as their beginning says.
fn what_it_is(bytes: &[u8]) -> &'static str {
    let text = |start: &str| {
        let trimmed = bytes.trim_ascii_start();
        trimmed.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
    };
    match bytes {
        [] => "an empty file",
        [b'B', b'M', ..] if bytes.len() > 26 => "a BMP picture",
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            "a TIFF or camera raw picture"
        }
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => {
            "an AVIF picture"
        }
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', ..] => "a HEIC picture or a video",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "a video",
        [0xFF, 0x0A, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "a JPEG XL picture",
        [0xFF, 0x4F, 0xFF, 0x51, ..] | [0, 0, 0, 12, b'j', b'P', ..] => "a JPEG 2000 picture",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop file",
        [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] => "a Netpbm picture",
        [0x00, 0x00, 0x01, 0x00, ..] => "an icon",
        [b'%', b'P', b'D', b'F', ..] => "a PDF file",
        [b'R', b'I', b'F', b'F', ..] => "a RIFF file that is no WebP picture",
        [0x1F, 0x8B, ..] => "a gzip file",
        [b'P', b'K', 3, 4, ..] => "a zip file",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet file",
        _ if bytes.get(257..262) == Some(b"ustar") => "a tar file",
        _ if text("version https://git-lfs") => {
            "a pointer of Git LFS; `git lfs pull` gets the file itself"
        }
        _ if text("<!doctype html") || text("<html") => {
            "a page of HTML, as a failed download leaves it"
        }
        _ if text("<svg") || text("<?xml") => "an SVG drawing or other XML",
        _ if bytes.iter().all(|&byte| byte == 0) => "nothing but zeros",
        _ if bytes
            .iter()
            .take(512)
            .all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            "text"
        }
        _ => "a file of another kind",
    }
}

/// Puts pixels of red, green, blue and alpha on a white page.
fn on_white(rgba: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut rgb = zeros(rgba.len() / 4 * 3)?;
    for (to, from) in rgb.chunks_exact_mut(3).zip(rgba.chunks_exact(4)) {
        let alpha = u32::from(from[3]);
        for channel in 0..3 {
            let value = u32::from(from[channel]) * alpha + 255 * (255 - alpha);
            to[channel] = ((value + 127) / 255) as u8;
        }
    }
    Ok(rgb)
}
