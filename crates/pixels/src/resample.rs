//! Resizing 8-bit pictures exactly as Pillow does.
//!
//! Behaviour after Pillow's `Resample.c`: a horizontal and a vertical pass, each rounded to 8 bits,
//! with weights in fixed point of 22 fractional bits. Crates that resize round differently and do not
//! give the same bytes. Whole numbers are added, so any order gives the same sum.

use std::ops::Range;

use numerics::{Kernel, vectorized};

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
/// Sums in one of the widest registers: four for a pixel of [`ROWS`] rows.
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
        let (Some(first_column), Some(last_column)) = (columns.first(), columns.last()) else {
            return;
        };
        let width = 3 * columns.len();
        let first = first_column.start;
        let mut narrow = vec![[0u8; LANES]; columns.len()];
        let end = last_column.start + last_column.weights.len();
        // The pixels of four rows side by side, each with the byte behind it, which counts for nothing.
        let mut woven = vec![[0u8; LANES]; end - first];
        for (group, resized) in rgb.chunks(ROWS * stride).zip(resized.chunks_mut(ROWS * width)) {
            weave(group, stride, 3 * first..3 * end, &mut woven);
            for (bytes, taps) in narrow.iter_mut().zip(columns) {
                *bytes = four_rows(&woven, first, taps);
            }
            for (row, resized) in resized.chunks_exact_mut(width).enumerate() {
                // The fourth byte lands on the next pixel, which is written after it.
                for (column, bytes) in narrow.iter().enumerate().take(columns.len() - 1) {
                    resized[3 * column..3 * column + 4]
                        .copy_from_slice(&bytes[4 * row..4 * row + 4]);
                }
                resized[width - 3..]
                    .copy_from_slice(&narrow[columns.len() - 1][4 * row..4 * row + 3]);
            }
        }
    }
}

/// Puts the pixels of four rows side by side, each with the byte behind it, which counts for nothing.
/// Of fewer rows, the last stands for those that are not there.
#[inline(always)]
fn weave(rows: &[u8], stride: usize, range: Range<usize>, woven: &mut [[u8; LANES]]) {
    let last = rows.len() / stride - 1;
    let rows: [&[u8]; ROWS] =
        std::array::from_fn(|row| &rows[row.min(last) * stride..][..stride][range.clone()]);
    let [one, two, three, four] = rows.map(|row| row.windows(4).step_by(3));
    for ((((lanes, one), two), three), four) in
        woven.iter_mut().zip(one).zip(two).zip(three).zip(four)
    {
        lanes[..4].copy_from_slice(one);
        lanes[4..8].copy_from_slice(two);
        lanes[8..12].copy_from_slice(three);
        lanes[12..].copy_from_slice(four);
    }
    if let Some(lanes) = woven.last_mut() {
        for (lanes, row) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            lanes[..3].copy_from_slice(&row[row.len() - 3..]);
        }
    }
}

/// One target pixel of four rows, whose source pixels start with that of column `first`.
#[inline(always)]
fn four_rows(woven: &[[u8; LANES]], first: usize, taps: &Taps) -> [u8; LANES] {
    let mut sums = [HALF; LANES];
    for (lanes, &weight) in woven[taps.start - first..].iter().zip(&taps.weights) {
        for lane in 0..LANES {
            sums[lane] += weight * i32::from(lanes[lane]);
        }
    }
    to_bytes(&sums)
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
        let mut sums = vec![0i32; stride];
        for (Taps { start, weights }, resized) in rows.iter().zip(resized.chunks_exact_mut(stride))
        {
            sums.fill(HALF);
            let source = &rgb[(start - first) * stride..][..weights.len() * stride];
            // Three rows at a time, so that sums are read and written less.
            let (threes, rest) = weights.as_chunks::<3>();
            let (source, tail) = source.split_at(3 * threes.len() * stride);
            for (weights, rows) in threes.iter().zip(source.chunks_exact(3 * stride)) {
                let (a, b) = rows.split_at(stride);
                let (b, c) = b.split_at(stride);
                for (((sum, a), b), c) in sums.iter_mut().zip(a).zip(b).zip(c) {
                    *sum += weights[0] * i32::from(*a)
                        + weights[1] * i32::from(*b)
                        + weights[2] * i32::from(*c);
                }
            }
            for (weight, row) in rest.iter().zip(tail.chunks_exact(stride)) {
                for (sum, a) in sums.iter_mut().zip(row) {
                    *sum += weight * i32::from(*a);
                }
            }
            for (byte, sum) in resized.iter_mut().zip(&sums) {
                *byte = (sum >> FRACTION_BITS).clamp(0, 255) as u8;
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

#[cfg(test)]
mod tests {
    use super::{FRACTION_BITS, Filter, HALF, Picture, Taps, Window, resize, taps};

    /// One pass as the definition has it: `value` gives the byte of a source index.
    fn sum(taps: &Taps, value: impl Fn(usize) -> u8) -> u8 {
        let products = taps.weights.iter().enumerate();
        let sum: i32 = products.map(|(k, weight)| weight * i32::from(value(taps.start + k))).sum();
        ((sum + HALF) >> FRACTION_BITS).clamp(0, 255) as u8
    }

    /// Rows are worked on in fours and bytes in registers: sizes that fill neither must not differ.
    #[test]
    fn should_sum_as_the_definition_says_when_sizes_fill_no_register() {
        for (width, height) in [(1, 1), (2, 5), (7, 3), (13, 6), (23, 9), (40, 17)] {
            let noise = (0..width * height * 3).map(|index| (index * index * 31 + index * 7) as u8);
            let picture = Picture::new(width, height, noise.collect()).unwrap();
            for (to_width, to_height) in [(1, 1), (3, 4), (11, 9), (29, 16)] {
                let window = Window {
                    left: to_width / 3,
                    top: to_height / 4,
                    width: to_width - to_width / 3,
                    height: to_height - to_height / 4,
                };
                for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic] {
                    let columns = taps(width, to_width, filter, window.left..to_width);
                    let rows = taps(height, to_height, filter, window.top..to_height);
                    let byte =
                        |x: usize, y: usize, c: usize| picture.rgb()[3 * (y * width + x) + c];
                    let mut expected = Vec::new();
                    for row in &rows {
                        for column in &columns {
                            for c in 0..3 {
                                expected.push(
                                    if super::vertical_first((width, height), (to_width, to_height))
                                    {
                                        sum(column, |x| sum(row, |y| byte(x, y, c)))
                                    } else {
                                        sum(row, |y| sum(column, |x| byte(x, y, c)))
                                    },
                                );
                            }
                        }
                    }
                    let resized = resize(&picture, (to_width, to_height), filter, window).unwrap();
                    let sizes = ((width, height), (to_width, to_height));
                    assert_eq!(resized.rgb(), expected, "{filter:?} {sizes:?}");
                }
            }
        }
    }
}
