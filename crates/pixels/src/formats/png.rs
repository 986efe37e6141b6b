//! PNG.

use std::io::Cursor;

use super::{Decoded, Failure, MAX_BYTES, check_size, on_white, zeros};
use png::{BitDepth, ColorType, DecodingError, Transformations};

/// The chunk that ends a file: no content, its name, its checksum.
const END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82];

/// The pixels of the file's still picture. Of 16 bits the upper 8 are kept, as Pillow does.
pub(super) fn decode(bytes: &[u8], most_pixels: usize) -> Result<Decoded, Failure> {
    let failed = |error| match error {
        DecodingError::LimitsExceeded => {
            Failure::TooLarge(format!("it needs more than {MAX_BYTES} bytes"))
        }
        other => Failure::damaged(other),
    };
    let whole = ended(bytes);
    let source = Cursor::new(whole.as_deref().unwrap_or(bytes));
    let mut decoder = png::Decoder::new_with_limits(source, png::Limits { bytes: MAX_BYTES });
    // Palettes become colours, few bits become eight, a transparent colour becomes alpha.
    decoder.set_transformations(Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height) = (header.width as usize, header.height as usize);
    check_size(width, height, most_pixels)?;

    let mut reader = decoder.read_info().map_err(failed)?;
    let exif = reader.info().exif_metadata.as_ref().map(|exif| exif.to_vec());
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| Failure::TooLarge("its pixels do not fit memory".to_owned()))?;
    let mut values = zeros(size)?;
    reader.next_frame(&mut values).map_err(failed)?;
    let (color, depth) = reader.output_color_type();
    if depth == BitDepth::Sixteen {
        for index in 0..values.len() / 2 {
            values[index] = values[2 * index];
        }
        values.truncate(values.len() / 2);
    }
    let rgb = match color {
        ColorType::Rgb => values,
        ColorType::Rgba => on_white(&values)?,
        ColorType::Grayscale => spread(&values, |&value| [value; 3])?,
        ColorType::GrayscaleAlpha => {
            let (pairs, _) = values.as_chunks::<2>();
            on_white(&spread(pairs, |&[value, alpha]| [value, value, value, alpha])?)?
        }
        ColorType::Indexed => return Err(Failure::damaged("it has indices and no palette")),
    };
    Ok(Decoded { width, height, rgb, exif })
}

/// Each of `values` as the `N` that `each` makes of it.
fn spread<T, const N: usize>(
    values: &[T],
    each: impl Fn(&T) -> [u8; N],
) -> Result<Vec<u8>, Failure> {
    let mut spread = zeros(N * values.len())?;
    for (to, from) in spread.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *to = each(from);
    }
    Ok(spread)
}

/// The file with the chunk that ends it, if only that is missing or cut. Whether all rows are
/// there is the decoder's to say.
fn ended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut position = 8;
    while let Some(head) = bytes.get(position..position + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let next = position.checked_add(length)?.checked_add(12)?;
        let kind = &head[4..];
        if kind == b"IEND" && next <= bytes.len() {
            return None;
        }
        // Pixels that are cut must stay so.
        if next > bytes.len() && kind != b"IEND" {
            return None;
        }
        if next > bytes.len() {
            break;
        }
        position = next;
    }
    Some([&bytes[..position.min(bytes.len())], &END].concat())
}

/// A PNG file of `rgb`, `[height, width, 3]`; the same pixels always give the same bytes.
pub(crate) fn encode(width: usize, height: usize, rgb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::Adaptive);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(rgb)?;
        writer.finish()
    });
    written.expect("a picture has the size it says, and memory takes every byte");
    bytes
}
