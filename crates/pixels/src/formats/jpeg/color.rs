//! From samples to pixels: libjpeg's "fancy" upsampling (`jdsample.c`) and colour conversion
//! (`jdcolor.c`), and Pillow's way from CMYK to RGB.

use numerics::{Kernel, vectorized};

use super::{Component, Frame};

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    Grey,
    Rgb,
    YCbCr,
    /// As Adobe writes it: 255 is no ink.
    Cmyk,
    Ycck,
}

/// The pixels of a frame, `[height, width, 3]`.
pub(super) fn convert(frame: &Frame, conversion: Conversion) -> Vec<u8> {
    let mut rgb = vec![0; 3 * frame.width * frame.height];
    vectorized(Convert { frame, conversion, rgb: &mut rgb });
    rgb
}

struct Convert<'a> {
    frame: &'a Frame,
    conversion: Conversion,
    rgb: &'a mut [u8],
}

impl Kernel for Convert<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { frame, conversion, rgb } = self;
        let width = frame.width;
        let mut rows: Vec<Upsampled> =
            frame.components.iter().map(|component| Upsampled::new(frame, component)).collect();
        for (y, pixels) in rgb.chunks_exact_mut(3 * width).enumerate() {
            for (row, component) in rows.iter_mut().zip(&frame.components) {
                row.fill(component, y);
            }
            let plane = |index: usize| &rows[index].row[..width];
            let pixels = pixels.as_chunks_mut::<3>().0;
            match conversion {
                Conversion::YCbCr | Conversion::Ycck => {
                    ycc_row(plane(0), plane(1), plane(2), pixels);
                }
                Conversion::Rgb | Conversion::Cmyk => {
                    let values = plane(0).iter().zip(plane(1)).zip(plane(2));
                    for (pixel, ((&a, &b), &c)) in pixels.iter_mut().zip(values) {
                        *pixel = [a, b, c];
                    }
                }
                Conversion::Grey => {
                    for (pixel, &value) in pixels.iter_mut().zip(plane(0)) {
                        *pixel = [value; 3];
                    }
                }
            }
            match conversion {
                Conversion::Cmyk => take_ink(plane(3), pixels, 0),
                // What was converted is the light that the inks leave.
                Conversion::Ycck => take_ink(plane(3), pixels, 255),
                _ => {}
            }
        }
    }
}

/// BT.601 in fixed point of 16 bits.
#[inline(always)]
fn ycc_row(y: &[u8], cb: &[u8], cr: &[u8], pixels: &mut [[u8; 3]]) {
    const HALF: i32 = 1 << 15;
    for (pixel, ((&y, &cb), &cr)) in pixels.iter_mut().zip(y.iter().zip(cb).zip(cr)) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = y + ((91_881 * cr + HALF) >> 16);
        let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
        let blue = y + ((116_130 * cb + HALF) >> 16);
        *pixel = [to_byte(red), to_byte(green), to_byte(blue)];
    }
}

#[inline(always)]
fn to_byte(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// Pillow's conversion from CMYK to RGB of values that say, but for `inverted` bits, how much ink
/// is missing.
#[inline(always)]
fn take_ink(black: &[u8], pixels: &mut [[u8; 3]], inverted: u8) {
    for (pixel, &light) in pixels.iter_mut().zip(black) {
        for value in pixel {
            let ink = 255 - (*value ^ inverted);
            let product = u32::from(ink) * u32::from(light) + 128;
            *value = light.saturating_sub((((product >> 8) + product) >> 8) as u8);
        }
    }
}

/// How a component is brought to the size of the picture.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Full,
    /// Twice as wide, by a triangle filter.
    Wide,
    /// Twice as high, by a triangle filter.
    High,
    /// Both.
    WideAndHigh,
    /// Repeated so many times across and down.
    Repeated(usize, usize),
}

/// A component, row after row at the size of the picture.
struct Upsampled {
    kind: Kind,
    /// Sums of two rows, with the first and the last repeated.
    sums: Vec<u16>,
    row: Vec<u8>,
}

impl Upsampled {
    fn new(frame: &Frame, component: &Component) -> Self {
        let across = frame.horizontal / component.horizontal;
        let down = frame.vertical / component.vertical;
        // Very narrow components are not filtered across.
        let filtered = component.width > 2;
        let kind = match (across, down) {
            (1, 1) => Kind::Full,
            (2, 1) if filtered => Kind::Wide,
            (1, 2) => Kind::High,
            (2, 2) if filtered => Kind::WideAndHigh,
            _ => Kind::Repeated(across, down),
        };
        let sums = vec![0; component.width + 2];
        Self { kind, sums, row: vec![0; component.width * across] }
    }

    /// Makes row `y` of the picture.
    #[inline(always)]
    fn fill(&mut self, component: &Component, y: usize) {
        let stride = 8 * component.padded.0;
        let row = |y: usize| &component.samples[y * stride..][..component.width];
        // The nearer row, and the other one that this row lies between.
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { near + 1 };
        let far = far.min(component.height - 1);
        match self.kind {
            Kind::Full => self.row.copy_from_slice(row(y)),
            Kind::Repeated(across, down) => {
                for (out, &value) in self.row.chunks_exact_mut(across).zip(row(y / down)) {
                    out.fill(value);
                }
            }
            Kind::High => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                for ((out, &a), &b) in self.row.iter_mut().zip(row(near)).zip(row(far)) {
                    *out = ((3 * u16::from(a) + u16::from(b) + bias) >> 2) as u8;
                }
            }
            Kind::Wide => {
                let sums = &mut self.sums[1..component.width + 1];
                for (sum, &value) in sums.iter_mut().zip(row(y)) {
                    *sum = u16::from(value);
                }
                self.widen::<2>([1, 2]);
            }
            Kind::WideAndHigh => {
                let sums = &mut self.sums[1..component.width + 1];
                for ((sum, &a), &b) in sums.iter_mut().zip(row(near)).zip(row(far)) {
                    *sum = 3 * u16::from(a) + u16::from(b);
                }
                self.widen::<4>([8, 7]);
            }
        }
    }

    /// Two values for each sum: three parts of it and one of its neighbour.
    #[inline(always)]
    fn widen<const SHIFT: u32>(&mut self, bias: [u16; 2]) {
        let width = self.sums.len() - 2;
        self.sums[0] = self.sums[1];
        self.sums[width + 1] = self.sums[width];
        let (before, rest) = (&self.sums[..width], &self.sums[1..]);
        let (here, after) = (&rest[..width], &rest[1..]);
        let pairs = self.row.as_chunks_mut::<2>().0;
        for (((pair, &before), &here), &after) in pairs.iter_mut().zip(before).zip(here).zip(after)
        {
            *pair = [
                ((3 * here + before + bias[0]) >> SHIFT) as u8,
                ((3 * here + after + bias[1]) >> SHIFT) as u8,
            ];
        }
    }
}
