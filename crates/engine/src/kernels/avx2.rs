//! Kernels for AVX2 with fused multiply-add: 8 numbers in a register, 16 registers.
//!
//! A tile is six rows by 16 outputs: 12 registers of sums, two of weights, one of activations. Where
//! there is AVX-VNNI, as in Intel's processors without AVX-512 since 2021, int8 has a table of its
//! own, which multiplies twice as fast.
#![allow(unsafe_code)] // intrinsics; every entry checks its slices and the processor

use std::{
    arch::{asm, x86_64::*},
    hint::black_box,
};

use super::{
    BLOCK, Bf16Product, Entries, Fetch, HeadLayout, INT4_WORDS, InputGroup, Int8Panel, Kernels,
    Memory, Pair, Peaks, RowScale, Rows, check_int4, check_int8, check_tile, checked_products,
    rows, with_rows,
};

const LANES: usize = 8;
const WIDTH: usize = 2 * LANES;

/// Groups of inputs between two steps of fetching: a panel's group is one cache line, and half the
/// registers' work is too little to hide the bookkeeping of a fetch for each.
const FETCH_GROUPS: usize = 4;

/// The compiler makes single numbers of attention to what is not f32.
const ROWS: rows::RowKernels =
    rows::RowKernels { attend_f32, attend_bf16, attend_int8, ..row_kernels::TABLE };

static PLAIN: Kernels = Kernels {
    name: "avx2",
    choice: "avx2",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    widening_bf16: Some(widening_bf16),
    narrow_pairs: true,
    fetch_groups: FETCH_GROUPS,
    product_int8,
    product_int4,
    rows: ROWS,
    peaks: Peaks { f32: peak_f32, bf16: peak_f32, int8: peak_int8, int4: peak_int4 },
};

static VNNI: Kernels = Kernels {
    name: "avx2 with vnni",
    choice: "avx2-vnni",
    narrow_pairs: false,
    product_int8: vnni::product_int8,
    product_int4: vnni::product_int4,
    rows: ROWS,
    peaks: Peaks { int8: vnni::peak_int8, int4: vnni::peak_int8, ..PLAIN.peaks },
    ..PLAIN
};

/// The tables whose instructions the processor has, the faster one first.
pub(super) fn kernels() -> Vec<&'static Kernels> {
    if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
        return Vec::new();
    }
    if is_x86_feature_detected!("avxvnni") { vec![&VNNI, &PLAIN] } else { vec![&PLAIN] }
}

rows::row_kernels!("avx2,fma");

checked_products!(WIDTH);

fn widening_bf16(
    x: Rows<'_, f32>,
    panel: &[u16],
    fetch: Fetch,
    widened: &mut [f32],
    out: &mut [f32],
) {
    check_tile(&x, panel, WIDTH, 2, out);
    assert_eq!(widened.len(), panel.len(), "room for the panel");
    let widened = widened.as_mut_ptr();
    // SAFETY: as in the other products; the widened panel has as many numbers.
    unsafe { with_rows!(x.count, tile_widening(&x, panel.as_ptr(), fetch, widened, out)) }
}

/// Does something for every group of inputs, and a step of fetching before each [`FETCH_GROUPS`] of
/// them. A macro, because the compiler does not inline a closure that it finds large, and keeps sums
/// in memory for it.
macro_rules! for_groups {
    ($fetch:ident, $count:expr, |$group:ident| $body:block) => {{
        let count = $count;
        let whole = count / FETCH_GROUPS * FETCH_GROUPS;
        for first in (0..whole).step_by(FETCH_GROUPS) {
            $fetch.step();
            for $group in first..first + FETCH_GROUPS $body
        }
        for $group in whole..count $body
    }};
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_f32<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const f32,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for_groups!(fetch, x.depth, |k| {
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(k * WIDTH);
            let weights = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*start.add(row * stride + k));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_fmadd_ps(x, weights, *sum);
                }
            }
        }
    });
    store(&sums, out);
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    fetch: Fetch,
    out: &mut [f32],
) {
    // SAFETY: the caller answers for it; nothing is widened.
    unsafe { tile_halves::<R, false>(x, panel, fetch, std::ptr::null_mut(), out) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn tile_widening<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    fetch: Fetch,
    widened: *mut f32,
    out: &mut [f32],
) {
    // SAFETY: the caller answers for it.
    unsafe { tile_halves::<R, true>(x, panel, fetch, widened, out) }
}

/// Products with bf16, which may be kept as f32: stores are free beside six rows of sums.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile_halves<const R: usize, const KEEP: bool>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    mut fetch: Fetch,
    widened: *mut f32,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    for_groups!(fetch, x.depth / 2, |pair| {
        // SAFETY: the caller answers for all that is read and written.
        unsafe {
            let weights = panel.add(pair * 2 * WIDTH);
            let read = |vector: usize| _mm256_loadu_si256(weights.add(vector * WIDTH).cast());
            // A bf16 is the upper half of an f32; of a pair the first is the lower half. Weights
            // are read once for either: there is no register left to keep them.
            for half in 0..2 {
                let weights = [0, 1].map(|vector| {
                    _mm256_castsi256_ps(match half {
                        0 => _mm256_slli_epi32::<16>(read(vector)),
                        _ => _mm256_and_si256(upper, read(vector)),
                    })
                });
                if KEEP {
                    let to = widened.add((2 * pair + half) * WIDTH);
                    _mm256_storeu_ps(to, weights[0]);
                    _mm256_storeu_ps(to.add(LANES), weights[1]);
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*start.add(row * stride + 2 * pair + half));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_fmadd_ps(x, weights, *sum);
                    }
                }
            }
        }
    });
    store(&sums, out);
}

/// The product of 8-bit integers with an instruction that adds a four of products to each sum.
macro_rules! tile_int8 {
    ($features:literal, $add:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn tile_int8<const R: usize>(
            x: &Rows<'_, u8>,
            scales: &[RowScale],
            panel: Int8Panel<'_>,
            mut fetch: Fetch,
            out: &mut [f32],
        ) {
            let (start, stride, weights) = (x.values.as_ptr(), x.stride, panel.weights.as_ptr());
            let mut sums = [[_mm256_setzero_si256(); 2]; R];
            for_groups!(fetch, x.depth / 4, |four| {
                // SAFETY: the caller answers for all that is read.
                unsafe {
                    let at = weights.add(four * 4 * WIDTH);
                    let weights =
                        [0, 1].map(|vector| _mm256_loadu_si256(at.add(vector * 4 * LANES).cast()));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let all = start.add(row * stride + 4 * four).cast::<i32>();
                        let x = _mm256_set1_epi32(all.read_unaligned());
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = $add(*sum, x, weights);
                        }
                    }
                }
            });
            finish_int8(&sums, scales, panel, out);
        }
    };
}

/// The instruction for unsigned times signed bytes adds two products in 16 bits, and saturates. With
/// [narrow pairs](Kernels::narrow_pairs) of weights it cannot: 255 · 128 is the most.
#[target_feature(enable = "avx2")]
#[inline]
fn add_fours(sum: __m256i, x: __m256i, weights: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(x, weights);
    _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

tile_int8!("avx2,fma", add_fours);

/// The product with 4-bit weights: how eight or four inputs of them are added to a register's sums,
/// how these become whole numbers of an output at the end of a group, and up to how many rows there
/// are registers for two chains of sums, where one instruction waits for another.
macro_rules! tile_int4 {
    ($features:literal, $add:ident, $join:ident, $two_chains:expr) => {
        pub(super) fn product_int4(
            x: Rows<'_, InputGroup>,
            scales: &[f32],
            panel: &[u32],
            fetch: Fetch,
            out: &mut [f32],
        ) {
            check_int4(&x, scales, panel, WIDTH, out);
            // SAFETY: as in the other products; a panel has all words of a group for each of the
            // rows'.
            unsafe { with_rows!(x.count, tile_int4(&x, scales, panel.as_ptr(), fetch, out)) }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile_int4<const R: usize>(
            x: &Rows<'_, InputGroup>,
            scales: &[f32],
            panel: *const u32,
            mut fetch: Fetch,
            out: &mut [f32],
        ) {
            let (start, stride) = (x.values.as_ptr(), x.stride);
            let lower = _mm256_set1_epi32(0x0f0f_0f0f);
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            for group in 0..x.depth {
                fetch.step();
                for vector in 0..2 {
                    // SAFETY: the caller answers for all that is read.
                    unsafe {
                        let at = panel.add(group * INT4_WORDS * WIDTH + vector * LANES);
                        // In a second chain where few rows would wait for themselves.
                        let chain = usize::from(R <= $two_chains);
                        let mut exact = [[_mm256_setzero_si256(); 2]; R];
                        for word in 0..INT4_WORDS - 1 {
                            let both = _mm256_loadu_si256(at.add(word * WIDTH).cast());
                            let first = _mm256_and_si256(both, lower);
                            let second = _mm256_and_si256(_mm256_srli_epi32::<4>(both), lower);
                            for (row, exact) in exact.iter_mut().enumerate() {
                                let x = start.add(row * stride + group).cast::<i32>().add(2 * word);
                                exact[0] = $add(exact[0], first, _mm256_set1_epi32(*x));
                                exact[chain] =
                                    $add(exact[chain], second, _mm256_set1_epi32(*x.add(1)));
                            }
                        }
                        let ends = _mm256_loadu_si256(at.add((INT4_WORDS - 1) * WIDTH).cast());
                        let scale = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(ends));
                        let minimum = _mm256_castsi256_ps(_mm256_and_si256(ends, upper));
                        for (row, (sums, exact)) in sums.iter_mut().zip(exact).enumerate() {
                            let of_inputs = _mm256_set1_ps((*start.add(row * stride + group)).sum);
                            let exact = _mm256_cvtepi32_ps($join(exact[0], exact[1]));
                            let sum = _mm256_fmadd_ps(scale, exact, sums[vector]);
                            sums[vector] = _mm256_fmadd_ps(minimum, of_inputs, sum);
                        }
                    }
                }
            }
            for (sums, &scale) in sums.iter_mut().zip(scales) {
                for sum in sums {
                    *sum = _mm256_mul_ps(*sum, _mm256_set1_ps(scale));
                }
            }
            store(&sums, out);
        }
    };
}

/// Two products of a 4-bit with an 8-bit number, and those of all eight fours of a group, fit into 16
/// bits: 16 · 15 · 128 = 30,720.
#[target_feature(enable = "avx2")]
#[inline]
fn add_pairs(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, x))
}

#[target_feature(enable = "avx2")]
#[inline]
fn join_pairs(first: __m256i, second: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1))
}

tile_int4!("avx2,fma", add_pairs, join_pairs, 0);

/// Turns sums into numbers.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn finish_int8<const R: usize>(
    sums: &[[__m256i; 2]; R],
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    out: &mut [f32],
) {
    let mut floats = [[_mm256_setzero_ps(); 2]; R];
    for (row, (floats, sums)) in floats.iter_mut().zip(sums).enumerate() {
        let RowScale { scale, zero } = scales[row];
        for (vector, (float, &sum)) in floats.iter_mut().zip(sums).enumerate() {
            let of_weights = &panel.sums[vector * LANES..][..LANES];
            let of_outputs = &panel.scales[vector * LANES..][..LANES];
            // SAFETY: both slices have 8 numbers.
            let (of_weights, of_outputs) = unsafe {
                (
                    _mm256_loadu_si256(of_weights.as_ptr().cast()),
                    _mm256_loadu_ps(of_outputs.as_ptr()),
                )
            };
            let offset = _mm256_mullo_epi32(_mm256_set1_epi32(zero), of_weights);
            let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, offset));
            *float = _mm256_mul_ps(exact, _mm256_mul_ps(_mm256_set1_ps(scale), of_outputs));
        }
    }
    store(&floats, out);
}

#[target_feature(enable = "avx2")]
#[inline]
fn store<const R: usize>(sums: &[[__m256; 2]; R], out: &mut [f32]) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let to = &mut out[row * WIDTH + vector * LANES..][..LANES];
            // SAFETY: the slice has 8 numbers.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sum) }
        }
    }
}

/// Numbers of eight entries, which are the numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn of_f32(entries: __m256i, _: usize) -> __m256 {
    _mm256_castsi256_ps(entries)
}

/// The first or second numbers of eight pairs.
#[target_feature(enable = "avx2")]
#[inline]
fn of_pairs(entries: __m256i, index: usize) -> __m256 {
    _mm256_castsi256_ps(match index {
        0 => _mm256_slli_epi32::<16>(entries),
        _ => _mm256_and_si256(entries, _mm256_set1_epi32(0xffff_0000_u32 as i32)),
    })
}

/// The first, second, third or fourth numbers of eight fours.
#[target_feature(enable = "avx2")]
#[inline]
fn of_fours(entries: __m256i, index: usize) -> __m256 {
    let upper = match index {
        0 => _mm256_slli_epi32::<24>(entries),
        1 => _mm256_slli_epi32::<16>(entries),
        2 => _mm256_slli_epi32::<8>(entries),
        _ => entries,
    };
    _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(upper))
}

/// Attention as [`rows`] defines it, to the bit, in whole registers; what is probably read next is
/// fetched meanwhile.
macro_rules! attend {
    ($name:ident, $entry:ty, $numbers:ident) => {
        fn $name(query: &[f32], memory: Memory<'_, $entry>, scores: &mut [f32], out: &mut [f32]) {
            let head = query.len();
            let blocks = memory.length.div_ceil(BLOCK);
            let needed = blocks * HeadLayout { head }.block::<$entry>();
            assert!(blocks > 0 && memory.entries.len() >= needed, "all that is seen");
            assert!(head.is_multiple_of(4), "heads are multiples of 4");
            assert!(scores.len() >= blocks * BLOCK && out.len() == head, "room for the results");
            // SAFETY: entries and scores have all blocks up to the length; this table is handed out
            // only where the processor has the instructions.
            unsafe { compiled(query, memory, &mut scores[..blocks * BLOCK], out) }

            #[allow(clippy::modulo_one)] // an entry may be one number
            #[target_feature(enable = "avx2,fma")]
            unsafe fn compiled(
                query: &[f32],
                memory: Memory<'_, $entry>,
                scores: &mut [f32],
                out: &mut [f32],
            ) {
                type E = $entry;
                const NUMBERS: usize = <E as Entries>::NUMBERS;
                /// Entries of four numbers in each of a block's lanes.
                const FOUR: usize = 4 / NUMBERS * BLOCK;
                let layout = HeadLayout { head: query.len() };
                let (size, numbers) = (layout.block::<E>(), layout.numbers::<E>());
                let (length, entries) = (memory.length, memory.entries.as_ptr());
                let scale = |block: usize, half: usize, of: usize, row: __m256| {
                    if !<E as Entries>::SCALED {
                        return row;
                    }
                    // SAFETY: a block ends with its scales.
                    unsafe {
                        let at = entries.add(block * size + numbers + of * BLOCK + half * LANES);
                        _mm256_mul_ps(row, _mm256_loadu_ps(at.cast()))
                    }
                };
                // Four multiples of blocks are added to four sums, so that no addition waits for
                // the one before.
                let accumulate =
                    |sums: &mut [[__m256; 2]; 4], factors: *const f32, at: *const E| {
                        for line in 0..FOUR / BLOCK {
                            let next = at.wrapping_add(memory.ahead + line * BLOCK);
                            _mm_prefetch::<_MM_HINT_T1>(next.cast());
                        }
                        for (part, sums) in sums.iter_mut().enumerate() {
                            // SAFETY: the caller answers for what is read.
                            unsafe {
                                let factor = _mm256_set1_ps(*factors.add(part));
                                let at = at.add(part / NUMBERS * BLOCK);
                                for (half, sum) in sums.iter_mut().enumerate() {
                                    let entries = _mm256_loadu_si256(at.add(half * LANES).cast());
                                    let numbers = $numbers(entries, part % NUMBERS);
                                    *sum = _mm256_fmadd_ps(factor, numbers, *sum);
                                }
                            }
                        }
                    };
                let add_up = |sums: &[[__m256; 2]; 4]| {
                    [0, 1].map(|half| {
                        let first = _mm256_add_ps(sums[0][half], sums[1][half]);
                        _mm256_add_ps(first, _mm256_add_ps(sums[2][half], sums[3][half]))
                    })
                };
                for (block, scores) in scores.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                    let mut sums = [[_mm256_setzero_ps(); 2]; 4];
                    for (four, query) in query.as_chunks::<4>().0.iter().enumerate() {
                        let at = entries.wrapping_add(block * size + four * FOUR);
                        accumulate(&mut sums, query.as_ptr(), at);
                    }
                    for (half, sum) in add_up(&sums).into_iter().enumerate() {
                        let to = scores[half * LANES..].as_mut_ptr();
                        // SAFETY: a block has two halves of eight.
                        unsafe { _mm256_storeu_ps(to, scale(block, half, 0, sum)) }
                    }
                }
                scores[length..].fill(f32::NEG_INFINITY);
                let inverse = rows::softmax::<true>(scores, (query.len() as f32).sqrt().recip());
                if <E as Entries>::SCALED {
                    for (block, scores) in scores.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate()
                    {
                        for half in 0..2 {
                            let at = scores[half * LANES..].as_mut_ptr();
                            // SAFETY: as above.
                            unsafe {
                                let weights = _mm256_loadu_ps(at);
                                _mm256_storeu_ps(at, scale(block, half, 1, weights));
                            }
                        }
                    }
                }
                for (part, out) in out.chunks_mut(BLOCK).enumerate() {
                    let values = layout.keys::<E>() + part * layout.part::<E>();
                    let mut sums = [[_mm256_setzero_ps(); 2]; 4];
                    for (block, weights) in scores[..length].chunks(BLOCK).enumerate() {
                        let at = entries.wrapping_add(block * size + values);
                        let (fours, rest) = weights.as_chunks::<4>();
                        for (four, weights) in fours.iter().enumerate() {
                            accumulate(&mut sums, weights.as_ptr(), at.wrapping_add(four * FOUR));
                        }
                        for (index, &weight) in rest.iter().enumerate() {
                            let at = at.wrapping_add(fours.len() * FOUR + index / NUMBERS * BLOCK);
                            for (half, sum) in sums[0].iter_mut().enumerate() {
                                // SAFETY: the caller answers for what is read.
                                let entries =
                                    unsafe { _mm256_loadu_si256(at.add(half * LANES).cast()) };
                                let numbers = $numbers(entries, index % NUMBERS);
                                *sum = _mm256_fmadd_ps(_mm256_set1_ps(weight), numbers, *sum);
                            }
                        }
                    }
                    let mut mixed = [0.0; BLOCK];
                    for (half, sum) in add_up(&sums).into_iter().enumerate() {
                        let sum = _mm256_mul_ps(sum, _mm256_set1_ps(inverse));
                        // SAFETY: a block has two halves of eight.
                        unsafe { _mm256_storeu_ps(mixed[half * LANES..].as_mut_ptr(), sum) }
                    }
                    out.copy_from_slice(&mixed[..out.len()]);
                }
            }
        }
    };
}

attend!(attend_f32, f32, of_f32);
attend!(attend_bf16, Pair, of_pairs);
attend!(attend_int8, i32, of_fours);

/// Chains that no instruction waits for another in.
const CHAINS: usize = 12;

fn peak_f32(rounds: usize) -> u64 {
    #[target_feature(enable = "avx2,fma")]
    fn run(rounds: usize) {
        let (x, weight) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(x, weight, *sum);
            }
        }
        black_box(sums);
    }
    // SAFETY: this table is handed out only where the processor has the instructions.
    unsafe { run(rounds) };
    (rounds * CHAINS * LANES) as u64
}

/// The limit of an addition of products of bytes.
macro_rules! peak_int {
    ($name:ident, $features:literal, $add:ident) => {
        pub(super) fn $name(rounds: usize) -> u64 {
            #[target_feature(enable = $features)]
            fn run(rounds: usize) {
                let weights = _mm256_set1_epi32(black_box(0x0102_0304));
                let mut x = weights;
                let mut sums = [_mm256_setzero_si256(); CHAINS];
                for _ in 0..rounds {
                    for sum in &mut sums {
                        // Nothing, but the compiler must take it for another number each time.
                        // SAFETY: it does nothing.
                        unsafe {
                            asm!(
                                "/* {0} */",
                                inout(ymm_reg) x,
                                options(pure, nomem, nostack, preserves_flags)
                            );
                        }
                        *sum = $add(*sum, x, weights);
                    }
                }
                black_box(sums);
            }
            // SAFETY: as above.
            unsafe { run(rounds) };
            (rounds * CHAINS * 4 * LANES) as u64
        }
    };
}

peak_int!(peak_int8, "avx2,fma", add_fours);
peak_int!(peak_int4, "avx2,fma", add_pairs);

/// int8 with AVX-VNNI.
mod vnni {
    use super::*;

    tile_int8!("avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);

    tile_int4!("avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32, _mm256_add_epi32, 4);

    peak_int!(peak_int8, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);

    pub(super) fn product_int8(
        x: Rows<'_, u8>,
        scales: &[RowScale],
        panel: Int8Panel<'_>,
        fetch: Fetch,
        out: &mut [f32],
    ) {
        check_int8(&x, scales, &panel, WIDTH, out);
        // SAFETY: a panel has its width of weights for every input, every row `depth` numbers at
        // its stride, the tile room for six rows, and scales and sums are as many as are read; this
        // table is handed out only where the processor has the instructions.
        unsafe { with_rows!(x.count, tile_int8(&x, scales, panel, fetch, out)) }
    }
}
