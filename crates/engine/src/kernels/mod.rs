//! The innermost loops, for each instruction set.
//!
//! A [`Kernels`] is a table of functions for one instruction set; [`Kernels::chosen`] picks the
//! best that the processor has, or the one that the environment asks for. What they have in common:
//!
//! - **A result does not depend on its company.** Each number of a product is one chain of
//!   multiply-adds in the order of the inputs, whatever rows and outputs are computed beside it;
//!   so is each number of a norm, a softmax or an attention. A row has the same bits in any batch.
//! - **Weights lie in panels** of [`Kernels::width`] outputs, one group of inputs after the other
//!   (see [`crate::matrix`]), so that a product reads each weight once and in order.
//!
//! `portable` is the definition: every other table is tested against it.

use std::{ffi::OsStr, sync::LazyLock};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod rows;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(test)]
mod tests;

pub(crate) use rows::{BLOCK, Entries, HeadLayout, Memory, Pair, RowKernels};

/// The environment variable that chooses among the instruction sets of a machine.
const VARIABLE: &str = "ALITOK_INSTRUCTIONS";

/// An instruction set was asked for that this machine does not have, or nobody knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{VARIABLE}` is `{choice}`, but this machine has {available}; \
     set it to one of these, or unset it for the fastest"
)]
pub struct InstructionsError {
    /// What was asked for.
    pub choice: String,
    /// What could be.
    pub available: String,
}

/// Rows that one call of a product kernel computes at most.
pub(crate) const TILE_ROWS: usize = 6;

/// Outputs of the widest panel.
pub(crate) const MAX_WIDTH: usize = 64;

/// Room for the results of one tile, `TILE_ROWS` rows of at most `MAX_WIDTH` numbers.
pub(crate) type Tile = [f32; TILE_ROWS * MAX_WIDTH];

/// How a row of 8-bit activations stands for numbers: `scale · (value − zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RowScale {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// Rows of activations: row r begins at `r · stride` and has `depth` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    values: &'a [T],
    stride: usize,
    count: usize,
    depth: usize,
}

impl<'a, T> Rows<'a, T> {
    /// # Panics
    /// If the rows reach beyond the slice.
    pub(crate) fn new(values: &'a [T], stride: usize, count: usize, depth: usize) -> Self {
        assert!(count == 0 || (count - 1) * stride + depth <= values.len(), "rows in their slice");
        Self { values, stride, count, depth }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        &self.values[index * self.stride..][..self.depth]
    }
}

/// A panel of 8-bit weights and what turns its sums into numbers.
#[derive(Clone, Copy)]
pub(crate) struct Int8Panel<'a> {
    /// `[depth / 4, width, 4]`.
    pub(crate) weights: &'a [i8],
    /// One for each output.
    pub(crate) scales: &'a [f32],
    /// Sum of each output's weights.
    pub(crate) sums: &'a [i32],
}

/// Inputs of 4-bit weights that share a scale and a minimum.
pub(crate) const INPUT_GROUP: usize = 32;

/// 32-bit words of an output in a group of a 4-bit panel: four of weights, and one of scale (lower
/// half) and minimum in bf16. The first word's lower halves of bytes are inputs 0 to 3, the upper
/// ones 4 to 7, and so on.
pub(crate) const INT4_WORDS: usize = INPUT_GROUP / 8 + 1;

/// Activations that 4-bit weights are multiplied with: a group of inputs in 8 bits, and its sum.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct InputGroup {
    pub(crate) levels: [i8; INPUT_GROUP],
    pub(crate) sum: f32,
}

impl InputGroup {
    pub(crate) const ZERO: Self = Self { levels: [0; _], sum: 0.0 };

    /// A group of these numbers, filled up with zeros.
    pub(crate) fn new(levels: &[i8]) -> Self {
        let mut group = Self::ZERO;
        group.levels[..levels.len()].copy_from_slice(levels);
        group.sum = levels.iter().map(|&level| i32::from(level)).sum::<i32>() as f32;
        group
    }
}

/// Products of at most [`TILE_ROWS`] rows of groups, each with its scale, and a panel
/// `[groups, INT4_WORDS, width]`. Of each group the sum of products is exact; scaled, it is added to
/// those of the groups before, and then the group's minimum times its sum of inputs.
pub(crate) type Int4Product = fn(Rows<'_, InputGroup>, &[f32], &[u32], Fetch, &mut [f32]);

/// What a product kernel may fetch into the cache while it multiplies: the weights that its
/// thread reads next.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // others do not fetch
pub(crate) struct Fetch {
    start: *const u8,
    /// Cache lines for each [`Kernels::fetch_groups`] groups of inputs, one after the other.
    lines: usize,
}

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

impl Fetch {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { start: std::ptr::null(), lines: 0 };

    /// At every step, `lines` more of the memory that begins `offset` bytes after `weights` do. It
    /// need not exist.
    pub(crate) fn after<T>(weights: &[T], offset: usize, lines: usize) -> Self {
        Self { start: weights.as_ptr().cast::<u8>().wrapping_add(offset), lines }
    }

    /// Fetches what belongs to one step. The processor's own prefetching stops at the end of each
    /// 4 KiB page. Into the second-level cache: the first one keeps track of few lines on their way
    /// from memory, and those are needed for what is read now.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) fn step(&mut self) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for _ in 0..self.lines {
            // SAFETY: it is a hint, which is ignored where there is no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.start.cast()) };
            self.start = self.start.wrapping_add(LINE);
        }
    }

    /// Nothing: others do not fetch.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    #[allow(dead_code)] // the portable products do not ask for it
    pub(crate) fn step(&mut self) {}
}

/// How an instruction set multiplies with bf16 weights, summing in f32.
#[derive(Clone, Copy)]
pub(crate) enum Bf16Product {
    /// By multiply-adds on weights that are widened to f32, which is exact. A sum has the bits
    /// that the f32 product gives for the widened panel.
    Wide(fn(Rows<'_, f32>, &[u16], Fetch, &mut [f32])),
    /// By an instruction for pairs of bf16; activations are rounded to bf16.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // others have none
    Pairs(fn(Rows<'_, u16>, &[u16], Fetch, &mut [f32])),
}

/// Multiplies with a panel of bf16, and widens it to one of f32 on the way.
pub(crate) type Widening = fn(Rows<'_, f32>, &[u16], Fetch, &mut [f32], &mut [f32]);

/// Repeats the instruction that products of a number format are made of, so many times, in registers
/// alone; returns how many multiplications that were.
pub(crate) type Peak = fn(usize) -> u64;

/// What the processor could do at most in each number format.
#[derive(Clone, Copy)]
#[cfg_attr(target_family = "wasm", allow(dead_code))] // nothing is measured in a browser
pub(crate) struct Peaks {
    pub(crate) f32: Peak,
    pub(crate) bf16: Peak,
    pub(crate) int8: Peak,
    pub(crate) int4: Peak,
}

/// The functions of one instruction set. All are safe: they check their slices, and a table is
/// only handed out where the processor has its instructions.
pub(crate) struct Kernels {
    /// Name for people.
    pub(crate) name: &'static str,
    /// The value of [`VARIABLE`] that asks for it. Several tables may share one; the first is taken.
    pub(crate) choice: &'static str,
    /// Outputs of a panel.
    pub(crate) width: usize,
    /// Products of at most [`TILE_ROWS`] rows and one panel `[depth, width]`, into `[rows, width]`.
    pub(crate) product_f32: fn(Rows<'_, f32>, &[f32], Fetch, &mut [f32]),
    /// Products with a panel `[depth / 2, width, 2]` of bf16. The depth is even.
    pub(crate) product_bf16: Bf16Product,
    /// The same product, where it is worth while to keep the widened panel for more rows. The rows'
    /// sums come last, after the panel.
    pub(crate) widening_bf16: Option<Widening>,
    /// Whether two neighbouring int8 weights of an output that have one sign add up to 128 at
    /// most, in magnitude. Then two products with 8-bit activations fit into 16 bits.
    pub(crate) narrow_pairs: bool,
    /// Groups of inputs that products read between two steps of fetching.
    pub(crate) fetch_groups: usize,
    /// Products of 8-bit integers with a panel `[depth / 4, width, 4]`. The depth is a multiple of 4.
    pub(crate) product_int8: fn(Rows<'_, u8>, &[RowScale], Int8Panel<'_>, Fetch, &mut [f32]),
    /// Products with 4-bit weights. They fetch at each group of inputs.
    pub(crate) product_int4: Int4Product,
    /// Operations on rows of numbers.
    pub(crate) rows: rows::RowKernels,
    /// The limits of the instructions.
    #[cfg_attr(target_family = "wasm", allow(dead_code))] // nothing is measured in a browser
    pub(crate) peaks: Peaks,
}

impl Kernels {
    /// The kernels that this process computes with: the fastest that this processor runs, unless
    /// the environment asks for others. The same at every call.
    ///
    /// # Errors
    /// If the environment asks for what there is not.
    pub(crate) fn chosen() -> Result<&'static Self, InstructionsError> {
        static CHOSEN: LazyLock<Result<&Kernels, InstructionsError>> =
            LazyLock::new(|| Kernels::choose(std::env::var_os(VARIABLE).as_deref()));
        CHOSEN.clone()
    }

    /// The kernels of this choice, or the fastest if there is none.
    fn choose(choice: Option<&OsStr>) -> Result<&'static Self, InstructionsError> {
        let available = Self::available();
        let Some(choice) = choice.filter(|choice| !choice.is_empty()) else {
            return Ok(available[0]);
        };
        available.iter().find(|kernels| choice == kernels.choice).copied().ok_or_else(|| {
            let mut choices: Vec<&str> = available.iter().map(|kernels| kernels.choice).collect();
            choices.dedup();
            InstructionsError {
                choice: choice.to_string_lossy().into_owned(),
                available: choices.join(", "),
            }
        })
    }

    /// All that this processor runs, fastest first.
    pub(crate) fn available() -> Vec<&'static Self> {
        let mut found: Vec<&'static Self> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(avx512::kernels());
            found.extend(avx2::kernels());
        }
        #[cfg(target_arch = "aarch64")]
        found.extend(neon::kernels());
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        found.push(&simd128::KERNELS);
        found.push(&portable::KERNELS);
        found
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Checks what a product kernel is about to read and write, where it reads `group` inputs together.
fn check_tile<T, W>(x: &Rows<'_, T>, panel: &[W], width: usize, group: usize, out: &[f32]) {
    assert!((1..=TILE_ROWS).contains(&x.count()), "{} rows in one tile", x.count());
    assert!(width <= MAX_WIDTH, "a tile holds panels of {MAX_WIDTH}");
    assert_eq!(panel.len(), x.depth * width, "a panel of {width} outputs");
    assert_eq!(x.depth % group, 0, "products read {group} inputs together");
    assert!(out.len() >= x.count() * width, "room for the results");
}

/// The same for a product of 8-bit integers.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
fn check_int8(
    x: &Rows<'_, u8>,
    scales: &[RowScale],
    panel: &Int8Panel<'_>,
    width: usize,
    out: &[f32],
) {
    check_tile(x, panel.weights, width, 4, out);
    assert!(scales.len() >= x.count, "a scale for each row");
    assert!(panel.scales.len() == width && panel.sums.len() == width, "a scale for each output");
}

/// The same for a product with 4-bit weights.
fn check_int4(x: &Rows<'_, InputGroup>, scales: &[f32], panel: &[u32], width: usize, out: &[f32]) {
    check_tile(x, &panel[..panel.len() / INT4_WORDS], width, 1, out);
    assert_eq!(panel.len() % INT4_WORDS, 0, "whole groups");
    assert!(scales.len() >= x.count(), "a scale for each row");
}

/// Calls a kernel with its number of rows as a constant.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
macro_rules! with_rows {
    ($count:expr, $kernel:ident($($argument:expr),*)) => {
        match $count {
            1 => $kernel::<1>($($argument),*),
            2 => $kernel::<2>($($argument),*),
            3 => $kernel::<3>($($argument),*),
            4 => $kernel::<4>($($argument),*),
            5 => $kernel::<5>($($argument),*),
            _ => $kernel::<6>($($argument),*),
        }
    };
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
use with_rows;

/// The products of a table with panels of this many outputs: they check their slices and call the
/// module's `tile_f32`, `tile_bf16` and `tile_int8`.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
macro_rules! checked_products {
    ($width:ident) => {
        fn product_f32(x: Rows<'_, f32>, panel: &[f32], fetch: Fetch, out: &mut [f32]) {
            check_tile(&x, panel, $width, 1, out);
            // SAFETY: a panel has its width of weights for every input, every row `depth` numbers
            // at its stride, the tile room for six rows; this table is handed out only where the
            // processor has the instructions.
            unsafe { with_rows!(x.count, tile_f32(&x, panel.as_ptr(), fetch, out)) }
        }

        fn product_bf16(x: Rows<'_, f32>, panel: &[u16], fetch: Fetch, out: &mut [f32]) {
            check_tile(&x, panel, $width, 2, out);
            // SAFETY: as above, with the depth in pairs.
            unsafe { with_rows!(x.count, tile_bf16(&x, panel.as_ptr(), fetch, out)) }
        }

        fn product_int8(
            x: Rows<'_, u8>,
            scales: &[RowScale],
            panel: Int8Panel<'_>,
            fetch: Fetch,
            out: &mut [f32],
        ) {
            check_int8(&x, scales, &panel, $width, out);
            // SAFETY: as above, with the depth in fours; scales and sums are as many as are read.
            unsafe { with_rows!(x.count, tile_int8(&x, scales, panel, fetch, out)) }
        }
    };
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
use checked_products;
