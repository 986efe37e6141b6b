//! Resizing 8-bit pictures exactly as Pillow does.
//!
//! Behaviour after Pillow's `Resample.c`: a horizontal and a vertical pass, each rounded to 8 bits,
//! with weights in fixed point of 22 fractional bits. Crates that resize round differently and do not
//! give the same bytes. Whole numbers are added, so any order gives the same sum.

use std::ops::Range;

use crate::vectorized::{Kernel, vectorized};
use crate::{Picture, PixelsError};

/// Fractional bits of a weight.
const FRACTION_BITS: u32 = 22;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Pillow's `BOX`: the mean of the source pixels under the target pixel.
    Box,
    /// Pillow's `BILINEAR`.
    Bilinear,
    /// Pillow's `BICUBIC`, with a = −0.5.
    Bicubic,
}

impl Filter {
    /// How far from its centre the filter reaches, in source pixels when it does not shrink.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, offset: f64) -> f64 {
        const A: f64 = -0.5;
        let x = offset.abs();
        match self {
            Self::Box if offset > -0.5 && offset <= 0.5 => 1.0,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// The part of a picture that starts at `left`, `top`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The `window` of `picture` resized to `width` × `height`. Only what the window shows is
/// computed, so a very long picture costs no more than the window.
///
/// # Errors
/// [`PixelsError::Values`] for a window of no pixels.
///
/// # Panics
/// If the window reaches beyond the resized picture.
pub(crate) fn resize(
    picture: &Picture,
    (width, height): (usize, usize),
    filter: Filter,
    window: Window,
) -> Result<Picture, PixelsError> {
    assert!(window.left + window.width <= width && window.top + window.height <= height);
    if window.width == 0 || window.height == 0 {
        return Picture::new(window.width, window.height, Vec::new());
    }
    let columns = taps(picture.width(), width, filter, window.left..window.left + window.width);
    let rows = taps(picture.height(), height, filter, window.top..window.top + window.height);
    let source_stride = 3 * picture.width();
    let rgb = if vertical_first((picture.width(), picture.height()), (width, height)) {
        let low = resize_rows(picture.rgb(), source_stride, &rows, 0);
        resize_columns(&low, source_stride, &columns)
    } else {
        let first = rows.first().map_or(0, |row| row.start);
        let end = rows.iter().map(|row| row.start + row.weights.len()).max().unwrap_or(0);
        let needed = &picture.rgb()[first * source_stride..end * source_stride];
        let narrow = resize_columns(needed, source_stride, &columns);
        resize_rows(&narrow, 3 * window.width, &rows, first)
    };
    Picture::new(window.width, window.height, rgb)
}

/// Which pass comes first decides the rounding in between. Pillow went horizontally first until
/// version 12; since 13 (its pull request 9549) a picture that loses more than twice as many rows
/// as columns goes vertically first.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    to.1 < from.1 && lost(from.1, to.1) > 2 * lost(from.0, to.0)
}

/// Rows that the horizontal pass works on at a time.
const ROWS: usize = 4;
/// Sums that are kept at a time: four for a pixel of [`ROWS`] rows, as many as fit the widest
/// registers.
const LANES: usize = 4 * ROWS;

/// The horizontal pass over rows of `stride` bytes.
fn resize_columns(rgb: &[u8], stride: usize, columns: &[Taps]) -> Vec<u8> {
    let mut resized = vec![0; rgb.len() / stride * 3 * columns.len()];
    vectorized(HorizontalPass { rgb, stride, columns, resized: &mut resized });
    resized
}

struct HorizontalPass<'a> {
    rgb: &'a [u8],
    stride: usize,
    columns: &'a [Taps],
    resized: &'a mut [u8],
}

impl Kernel for HorizontalPass<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { rgb, stride, columns, resized } = self;
        let width = 3 * columns.len();
        // The pixels of four rows side by side, each with a fourth byte that nobody reads.
        let mut woven = vec![[0u8; LANES]; stride / 3];
        for (group, resized) in rgb.chunks(ROWS * stride).zip(resized.chunks_mut(ROWS * width)) {
            for (row, bytes) in group.chunks_exact(stride).enumerate() {
                for (lanes, pixel) in woven.iter_mut().zip(bytes.as_chunks::<3>().0) {
                    let [red, green, blue] = *pixel;
                    lanes[4 * row..4 * row + 4].copy_from_slice(&[red, green, blue, 0]);
                }
            }
            for (column, Taps { start, weights }) in columns.iter().enumerate() {
                let mut sums = [HALF; LANES];
                for (lanes, &weight) in woven[*start..].iter().zip(weights) {
                    for lane in 0..LANES {
                        sums[lane] += weight * i32::from(lanes[lane]);
                    }
                }
                let bytes = to_bytes(&sums);
                for (row, pixel) in resized.chunks_exact_mut(width).zip(bytes.as_chunks::<4>().0) {
                    row[3 * column..3 * column + 3].copy_from_slice(&pixel[..3]);
                }
            }
        }
    }
}

/// The vertical pass over rows of `stride` bytes, the first of which is row `first`.
fn resize_rows(rgb: &[u8], stride: usize, rows: &[Taps], first: usize) -> Vec<u8> {
    let mut resized = vec![0; stride * rows.len()];
    vectorized(VerticalPass { rgb, stride, rows, first, resized: &mut resized });
    resized
}

struct VerticalPass<'a> {
    rgb: &'a [u8],
    stride: usize,
    rows: &'a [Taps],
    first: usize,
    resized: &'a mut [u8],
}

impl Kernel for VerticalPass<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { rgb, stride, rows, first, resized } = self;
        const WIDE: usize = 4 * LANES;
        for (Taps { start, weights }, resized) in rows.iter().zip(resized.chunks_exact_mut(stride))
        {
            let source = &rgb[(start - first) * stride..];
            let (blocks, tail) = resized.as_chunks_mut::<WIDE>();
            for (index, block) in blocks.iter_mut().enumerate() {
                let mut sums = [HALF; WIDE];
                for (row, &weight) in weights.iter().enumerate() {
                    let values: &[u8; WIDE] = source[row * stride + index * WIDE..]
                        .first_chunk()
                        .expect("blocks lie within a row");
                    for lane in 0..WIDE {
                        sums[lane] += weight * i32::from(values[lane]);
                    }
                }
                *block = to_bytes(&sums);
            }
            let done = stride - tail.len();
            for (index, byte) in tail.iter_mut().enumerate() {
                let mut sum = HALF;
                for (row, &weight) in weights.iter().enumerate() {
                    sum += weight * i32::from(source[row * stride + done + index]);
                }
                *byte = to_bytes(&[sum])[0];
            }
        }
    }
}

/// One half, so that shifting rounds.
const HALF: i32 = 1 << (FRACTION_BITS - 1);

#[inline(always)]
fn to_bytes<const N: usize>(sums: &[i32; N]) -> [u8; N] {
    let mut bytes = [0; N];
    for index in 0..N {
        bytes[index] = (sums[index] >> FRACTION_BITS).clamp(0, 255) as u8;
    }
    bytes
}

/// Which source pixels make a target pixel, and how much each counts.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// The taps of the target pixels `range` when `source` pixels become `target`.
fn taps(source: usize, target: usize, filter: Filter, range: Range<usize>) -> Vec<Taps> {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    range
        .map(|index| {
            let center = (index as f64 + 0.5) * scale;
            // Casts cut towards zero and at zero, as Pillow does.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(source);
            let exact: Vec<f64> = (start..end)
                .map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / stretch)))
                .collect();
            let total: f64 = exact.iter().sum();
            let weights = exact
                .iter()
                .map(|weight| if total == 0.0 { *weight } else { weight / total })
                .map(|weight| weight * f64::from(1 << FRACTION_BITS))
                .map(|weight| (weight + 0.5f64.copysign(weight)) as i32)
                .collect();
            Taps { start, weights }
        })
        .collect()
}
