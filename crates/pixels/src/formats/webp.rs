//! WebP.

use std::borrow::Cow;
use std::io::Cursor;

use super::{Decoded, Failure, MAX_BYTES, check_size, on_white, zeros};
use image_webp::{DecodingError, WebPDecoder};

/// The pixels of the picture, or of the first frame of an animation.
pub(super) fn decode(bytes: &[u8], most_pixels: usize) -> Result<Decoded, Failure> {
    let failed = |error| match error {
        DecodingError::MemoryLimitExceeded | DecodingError::ImageTooLarge => {
            Failure::TooLarge(format!("it needs more than {MAX_BYTES} bytes"))
        }
        other => Failure::damaged(other),
    };
    let bytes = with_true_flags(bytes);
    let mut decoder = WebPDecoder::new(Cursor::new(&bytes[..])).map_err(failed)?;
    decoder.set_memory_limit(MAX_BYTES);
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, most_pixels)?;
    // What cannot be read of it is as good as none: it turns the picture at most.
    let exif = decoder.exif_metadata().ok().flatten().map(|exif| {
        // The name of the segment in JPEG files, which some programs write here, too.
        exif.strip_prefix(b"Exif\0\0").map(<[u8]>::to_vec).unwrap_or(exif)
    });
    let alpha = decoder.has_alpha();
    let mut values = zeros(width * height * if alpha { 4 } else { 3 })?;
    decoder.read_image(&mut values).map_err(failed)?;
    let rgb = if alpha { on_white(&values)? } else { values };
    Ok(Decoded { width, height, rgb, exif })
}

/// Flags of the extended header.
mod flag {
    pub(super) const ANIMATION: u8 = 1 << 1;
    pub(super) const XMP: u8 = 1 << 2;
    pub(super) const EXIF: u8 = 1 << 3;
    pub(super) const ALPHA: u8 = 1 << 4;
    pub(super) const PROFILE: u8 = 1 << 5;
}

/// The file with an extended header that promises just the chunks that are there. libwebp does not
/// mind a promise that is not kept (programs that strip metadata leave such), and the decoder does.
fn with_true_flags(bytes: &[u8]) -> Cow<'_, [u8]> {
    const FLAGS: usize = 20;
    if bytes.get(12..16) != Some(b"VP8X") || bytes.len() <= FLAGS {
        return Cow::Borrowed(bytes);
    }
    let mut kinds = Vec::new();
    let mut position = 12;
    while let Some(&[a, b, c, d, l0, l1, l2, l3]) =
        bytes.get(position..).and_then(|rest| rest.first_chunk())
    {
        kinds.push([a, b, c, d]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(next) = position.checked_add(8 + length + length % 2) else { break };
        position = next;
    }
    let has = |kind: &[u8; 4]| kinds.contains(kind);
    let mut flags = bytes[FLAGS];
    for (flag, kind) in [(flag::XMP, b"XMP "), (flag::EXIF, b"EXIF"), (flag::PROFILE, b"ICCP")] {
        if !has(kind) {
            flags &= !flag;
        }
    }
    // Frames of an animation carry their alpha with them.
    if !has(b"ANMF") && (has(b"VP8 ") || has(b"VP8L")) {
        flags &= !flag::ANIMATION;
        if !has(b"ALPH") && !has(b"VP8L") {
            flags &= !flag::ALPHA;
        }
    }
    if flags == bytes[FLAGS] {
        return Cow::Borrowed(bytes);
    }
    let mut bytes = bytes.to_vec();
    bytes[FLAGS] = flags;
    Cow::Owned(bytes)
}
