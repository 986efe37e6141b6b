//! Colours that readers with any colour vision can tell apart.

/// Red, green, blue.
pub(crate) type Color = (u8, u8, u8);

pub(crate) const BLACK: Color = (0, 0, 0);
pub(crate) const WHITE: Color = (255, 255, 255);
/// Text.
pub(crate) const INK: Color = (40, 40, 40);
/// Frames.
pub(crate) const FRAME: Color = (150, 150, 150);
/// Lines behind curves.
pub(crate) const GRID: Color = (229, 229, 229);
/// Frames around parts of pictures.
pub(crate) const BOX: Color = (230, 30, 30);
/// Cells without a value.
pub(crate) const MISSING: Color = (238, 238, 238);

/// The palette of Okabe and Ito (2008) without its yellow, which is too light for lines on white;
/// a grey stands in its place.
const PALETTE: [Color; 8] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    BLACK,
    (127, 127, 127),
];

/// The colour of a series.
pub(crate) fn of_series(index: usize) -> Color {
    PALETTE[index % PALETTE.len()]
}

/// Ten colours of matplotlib's map viridis (in the public domain, CC0), evenly spaced.
const VIRIDIS: [Color; 10] = [
    (0x44, 0x01, 0x54),
    (0x48, 0x28, 0x78),
    (0x3e, 0x49, 0x89),
    (0x31, 0x68, 0x8e),
    (0x26, 0x82, 0x8e),
    (0x1f, 0x9e, 0x89),
    (0x35, 0xb7, 0x79),
    (0x6e, 0xce, 0x58),
    (0xb5, 0xde, 0x2b),
    (0xfd, 0xe7, 0x25),
];

/// The colour of a value in [0, 1]: dark for small ones, light for large ones.
pub(crate) fn of_value(value: f64) -> Color {
    let place = value.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (place as usize).min(VIRIDIS.len() - 2);
    let weight = place - below as f64;
    let (low, high) = (VIRIDIS[below], VIRIDIS[below + 1]);
    let mix = |low: u8, high: u8| {
        (f64::from(low) + (f64::from(high) - f64::from(low)) * weight).round() as u8
    };
    (mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

/// Black or white, whichever can be read on a colour.
pub(crate) fn on(background: Color) -> Color {
    let (red, green, blue) = background;
    // Luma as in ITU-R BT.601.
    let luma = 0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue);
    if luma > 140.0 { BLACK } else { WHITE }
}
