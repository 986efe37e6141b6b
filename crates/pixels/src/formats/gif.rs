//! GIF.

use std::io::{Cursor, Read};

use super::{Decoded, Failure, check_size, on_white, zeros};
use gif::{ColorOutput, DecodeOptions, MemoryLimit};

/// Bytes before the global palette: signature, size, flags, background and aspect.
const HEADER: usize = 13;
const FLAGS: usize = 10;

/// The first frame on its screen, as Pillow shows it: where the frame has no pixels, its
/// transparent colour stands, else the first of the palette; an index beyond the palette is black;
/// a frame that reaches beyond the screen makes the screen larger; without any palette the indices
/// are grey values.
pub(super) fn decode(bytes: &[u8], most_pixels: usize) -> Result<Decoded, Failure> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited); // sizes are checked below
    let header = bytes.get(..HEADER).ok_or_else(|| Failure::damaged("it ends in its header"))?;
    // The decoder wants a palette of every file. A frame's own one goes before this.
    let mut head = header.to_vec();
    if head[FLAGS] & 0x80 == 0 {
        head[FLAGS] |= 0x87;
        head.extend((0..=255).flat_map(|value: u8| [value; 3]));
    }
    let source = Cursor::new(head).chain(&bytes[HEADER..]);
    let mut decoder = options.read_info(source).map_err(Failure::damaged)?;
    let frame = decoder.next_frame_info().map_err(Failure::damaged)?;
    let frame = frame.ok_or_else(|| Failure::damaged("it has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    let transparent = frame.transparent;
    let own = frame.palette.clone();
    let width = usize::from(decoder.width()).max(left + across);
    let height = usize::from(decoder.height()).max(top + down);
    check_size(width, height, most_pixels)?;
    if across == 0 || down == 0 {
        return Err(Failure::damaged("its first frame has no pixels"));
    }

    let palette = own.or_else(|| decoder.global_palette().map(<[u8]>::to_vec)).unwrap_or_default();
    let mut colours = [[0, 0, 0, 255]; 256];
    for (colour, rgb) in colours.iter_mut().zip(palette.chunks_exact(3)) {
        colour[..3].copy_from_slice(rgb);
    }
    if let Some(index) = transparent {
        colours[usize::from(index)][3] = 0;
    }

    let mut indices = zeros(across * down)?;
    decoder.read_into_buffer(&mut indices).map_err(Failure::damaged)?;
    let mut rgba = zeros(4 * width * height)?;
    let (pixels, _) = rgba.as_chunks_mut::<4>();
    pixels.fill(colours[usize::from(transparent.unwrap_or(0))]);
    for (row, indices) in indices.chunks_exact(across).enumerate() {
        let start = (top + row) * width + left;
        for (pixel, &index) in pixels[start..start + across].iter_mut().zip(indices) {
            *pixel = colours[usize::from(index)];
        }
    }
    Ok(Decoded { width, height, rgb: on_white(&rgba)?, exif: None })
}
