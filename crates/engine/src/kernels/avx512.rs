//! Kernels for AVX-512: 16 numbers in a register, 32 registers.
//!
//! A tile is six rows by 64 outputs: 24 registers of sums, four of weights, one of activations.
#![allow(unsafe_code)] // intrinsics; every entry checks its slices and the processor

use std::{arch::x86_64::*, hint::black_box};

use super::{
    BLOCK, Bf16Product, Entries, Fetch, HeadLayout, INT4_WORDS, InputGroup, Int8Panel, Kernels,
    Memory, Pair, Peaks, RowScale, Rows, check_int4, check_int8, check_tile, checked_products,
    rows, with_rows,
};

const LANES: usize = 16;
const VECTORS: usize = 4;
const WIDTH: usize = VECTORS * LANES;

/// Attention to bf16 waits for memory, so its instruction for pairs is the better one everywhere.
const ROWS: rows::RowKernels = rows::RowKernels { attend_bf16, attend_int8, ..row_kernels::TABLE };

static WIDE: Kernels = Kernels {
    name: "avx512",
    choice: "avx512",
    width: WIDTH,
    product_f32,
    product_bf16: Bf16Product::Wide(product_bf16),
    widening_bf16: None,
    narrow_pairs: false,
    fetch_groups: 1,
    product_int8,
    product_int4,
    rows: ROWS,
    peaks: Peaks { f32: peak_f32, bf16: peak_f32, int8: peak_int8, int4: peak_int8 },
};

static PAIRS: Kernels = Kernels {
    name: "avx512 with bf16",
    product_bf16: Bf16Product::Pairs(product_bf16_pairs),
    rows: ROWS,
    peaks: Peaks { bf16: peak_bf16_pairs, ..WIDE.peaks },
    ..WIDE
};

/// Both tables, where the processor has all of the instructions; the faster one first.
///
/// AMD's Zen 4 multiplies pairs of bf16 twice as fast as f32. Intel's Golden Cove does both at
/// about the same speed, and then the exact product is the better one. The choice depends only
/// on the maker, not on a measurement, so that a machine always gives the same bits.
pub(super) fn kernels() -> Vec<&'static Kernels> {
    if !is_supported() {
        return Vec::new();
    }
    let maker = __cpuid(0);
    let name = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).concat();
    if name == b"AuthenticAMD" { vec![&PAIRS, &WIDE] } else { vec![&WIDE, &PAIRS] }
}

fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("fma")
}

rows::row_kernels!("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,avx2,fma");

checked_products!(WIDTH);

fn product_bf16_pairs(x: Rows<'_, u16>, panel: &[u16], fetch: Fetch, out: &mut [f32]) {
    check_tile(&x, panel, WIDTH, 2, out);
    // SAFETY: as in the other products.
    unsafe { with_rows!(x.count, tile_bf16_pairs(&x, panel.as_ptr(), fetch, out)) }
}

#[target_feature(enable = "avx512f")]
unsafe fn tile_f32<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const f32,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for k in 0..x.depth {
        fetch.step();
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(k * WIDTH);
            let weights: [__m512; VECTORS] = std::array::from_fn(|vector| {
                let at = weights.add(vector * LANES);
                _mm512_loadu_ps(at)
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*start.add(row * stride + k));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(x, weights, *sum);
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f")]
unsafe fn tile_bf16<const R: usize>(
    x: &Rows<'_, f32>,
    panel: *const u16,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for pair in 0..x.depth / 2 {
        fetch.step();
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = panel.add(pair * 2 * WIDTH).cast::<i32>();
            let x = start.add(2 * pair);
            // A bf16 is the upper half of an f32; of a pair the first is the lower half. Weights
            // are read once for either: there is no register left to keep them.
            let even: [__m512; VECTORS] = std::array::from_fn(|vector| {
                let at = weights.add(vector * LANES);
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_loadu_si512(at.cast())))
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row * stride));
                for (sum, weights) in sums.iter_mut().zip(even) {
                    *sum = _mm512_fmadd_ps(x, weights, *sum);
                }
            }
            let odd: [__m512; VECTORS] = std::array::from_fn(|vector| {
                let at = weights.add(vector * LANES);
                _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_loadu_si512(at.cast())))
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*x.add(row * stride + 1));
                for (sum, weights) in sums.iter_mut().zip(odd) {
                    *sum = _mm512_fmadd_ps(x, weights, *sum);
                }
            }
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile_bf16_pairs<const R: usize>(
    x: &Rows<'_, u16>,
    panel: *const u16,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for pair in 0..x.depth / 2 {
        fetch.step();
        // SAFETY: the caller answers for all that is read. Both types are 512 plain bits.
        unsafe {
            let weights = panel.add(pair * 2 * WIDTH);
            let weights: [__m512bh; VECTORS] = std::array::from_fn(|vector| {
                let at = weights.add(vector * 2 * LANES);
                std::mem::transmute(_mm512_loadu_si512(at.cast()))
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let both = start.add(row * stride + 2 * pair).cast::<i32>().read_unaligned();
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(both));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbf16_ps(*sum, x, weights);
                }
            }
        }
    }
    store(&sums, out);
}

fn product_int4(
    x: Rows<'_, InputGroup>,
    scales: &[f32],
    panel: &[u32],
    fetch: Fetch,
    out: &mut [f32],
) {
    check_int4(&x, scales, panel, WIDTH, out);
    // SAFETY: as in the other products; a panel has all words of a group for each of the rows'.
    unsafe { with_rows!(x.count, tile_int4(&x, scales, panel.as_ptr(), fetch, out)) }
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile_int4<const R: usize>(
    x: &Rows<'_, InputGroup>,
    scales: &[f32],
    panel: *const u32,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride) = (x.values.as_ptr(), x.stride);
    let lower = _mm512_set1_epi32(0x0f0f_0f0f);
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for group in 0..x.depth {
        fetch.step();
        for vector in 0..VECTORS {
            // SAFETY: the caller answers for all that is read.
            unsafe {
                let at = panel.add(group * INT4_WORDS * WIDTH + vector * LANES);
                // Two chains, since one would wait for itself.
                let mut exact = [[_mm512_setzero_si512(); 2]; R];
                for word in 0..INT4_WORDS - 1 {
                    let both = _mm512_loadu_si512(at.add(word * WIDTH).cast());
                    let first = _mm512_and_si512(both, lower);
                    let second = _mm512_and_si512(_mm512_srli_epi32::<4>(both), lower);
                    for (row, exact) in exact.iter_mut().enumerate() {
                        let x = start.add(row * stride + group).cast::<i32>().add(2 * word);
                        let inputs = [_mm512_set1_epi32(*x), _mm512_set1_epi32(*x.add(1))];
                        exact[0] = _mm512_dpbusd_epi32(exact[0], first, inputs[0]);
                        exact[1] = _mm512_dpbusd_epi32(exact[1], second, inputs[1]);
                    }
                }
                let ends = _mm512_loadu_si512(at.add((INT4_WORDS - 1) * WIDTH).cast());
                let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(ends));
                let minimum = _mm512_castsi512_ps(_mm512_and_si512(ends, upper));
                for (row, (sums, exact)) in sums.iter_mut().zip(exact).enumerate() {
                    let of_inputs = _mm512_set1_ps((*start.add(row * stride + group)).sum);
                    let exact = _mm512_cvtepi32_ps(_mm512_add_epi32(exact[0], exact[1]));
                    let sum = _mm512_fmadd_ps(scale, exact, sums[vector]);
                    sums[vector] = _mm512_fmadd_ps(minimum, of_inputs, sum);
                }
            }
        }
    }
    for (sums, &scale) in sums.iter_mut().zip(scales) {
        for sum in sums {
            *sum = _mm512_mul_ps(*sum, _mm512_set1_ps(scale));
        }
    }
    store(&sums, out);
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile_int8<const R: usize>(
    x: &Rows<'_, u8>,
    scales: &[RowScale],
    panel: Int8Panel<'_>,
    mut fetch: Fetch,
    out: &mut [f32],
) {
    let (start, stride, weights) = (x.values.as_ptr(), x.stride, panel.weights.as_ptr());
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; R];
    for four in 0..x.depth / 4 {
        fetch.step();
        // SAFETY: the caller answers for all that is read.
        unsafe {
            let weights = weights.add(four * 4 * WIDTH);
            let weights: [__m512i; VECTORS] = std::array::from_fn(|vector| {
                let at = weights.add(vector * 4 * LANES);
                _mm512_loadu_si512(at.cast())
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let all = start.add(row * stride + 4 * four).cast::<i32>().read_unaligned();
                let x = _mm512_set1_epi32(all);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, x, weights);
                }
            }
        }
    }
    let mut floats = [[_mm512_setzero_ps(); VECTORS]; R];
    for (row, (floats, sums)) in floats.iter_mut().zip(&sums).enumerate() {
        let RowScale { scale, zero } = scales[row];
        for (vector, (float, &sum)) in floats.iter_mut().zip(sums).enumerate() {
            // SAFETY: the caller has checked that both have 64 numbers.
            let (of_weights, scales) = unsafe {
                (
                    _mm512_loadu_si512(panel.sums.as_ptr().add(vector * LANES).cast()),
                    _mm512_loadu_ps(panel.scales.as_ptr().add(vector * LANES)),
                )
            };
            let offset = _mm512_mullo_epi32(_mm512_set1_epi32(zero), of_weights);
            let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, offset));
            *float = _mm512_mul_ps(exact, _mm512_mul_ps(_mm512_set1_ps(scale), scales));
        }
    }
    store(&floats, out);
}

/// Chains that no instruction waits for another in.
const CHAINS: usize = 24;

fn peak_f32(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f")]
    fn run(rounds: usize) {
        let (x, weight) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, weight, *sum);
            }
        }
        black_box(sums);
    }
    // SAFETY: this table is handed out only where the processor has the instructions.
    unsafe { run(rounds) };
    (rounds * CHAINS * LANES) as u64
}

fn peak_bf16_pairs(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn run(rounds: usize) {
        let pair = _mm512_set1_epi32(black_box(0x3f00_3f00));
        // SAFETY: both types are 512 plain bits.
        let pair: __m512bh = unsafe { std::mem::transmute(pair) };
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pair, pair);
            }
        }
        black_box(sums);
    }
    // SAFETY: as above.
    unsafe { run(rounds) };
    (rounds * CHAINS * 2 * LANES) as u64
}

fn peak_int8(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn run(rounds: usize) {
        let x = _mm512_set1_epi32(black_box(0x0102_0304));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
    }
    // SAFETY: as above.
    unsafe { run(rounds) };
    (rounds * CHAINS * 4 * LANES) as u64
}

#[target_feature(enable = "avx512f")]
fn store<const R: usize>(sums: &[[__m512; VECTORS]; R], out: &mut [f32]) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, &sum) in sums.iter().enumerate() {
            let to = &mut out[row * WIDTH + vector * LANES..][..LANES];
            // SAFETY: the slice has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) }
        }
    }
}

/// Fetches a burst of what is attended to next but one. Of what is next everything is fetched beside
/// what is read; but memory would rest while a softmax is computed and a head's query, key and
/// value are made ready, and these bursts, of which there are two, are on their way meanwhile.
#[inline(always)]
fn fetch_later<E: Entries>(memory: &Memory<'_, E>, layout: HeadLayout, burst: usize) {
    const LINES: usize = 128;
    let seen = memory.length.div_ceil(BLOCK) * layout.block::<E>() / LANES;
    let start = memory.entries.as_ptr().wrapping_add(2 * memory.ahead);
    for line in burst * LINES..((burst + 1) * LINES).min(seen) {
        // SAFETY: it is a hint, which is ignored where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line * LANES).cast()) };
    }
}

/// Stores the first of 16 numbers, as many as there is room for.
#[target_feature(enable = "avx512f")]
fn put(numbers: __m512, out: &mut [f32]) {
    let mask = if out.len() < LANES { (1u16 << out.len()) - 1 } else { u16::MAX };
    // SAFETY: only lanes that the slice has are written.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, numbers) }
}

/// Largest head that is attended to by instructions for pairs, a multiple of 16.
const MAX_HEAD: usize = 256;

/// Checks what attention is about to read and write; whether a kernel of this module can do it.
fn can_attend<E: Entries>(
    query: &[f32],
    memory: &Memory<'_, E>,
    scores: &[f32],
    out: &[f32],
) -> bool {
    let head = query.len();
    let blocks = memory.length.div_ceil(BLOCK);
    assert!(blocks > 0 && memory.entries.len() >= blocks * HeadLayout { head }.block::<E>());
    assert!(scores.len() >= blocks * BLOCK && out.len() == head);
    head <= MAX_HEAD && head.is_multiple_of(4)
}

fn attend_bf16(query: &[f32], memory: Memory<'_, Pair>, scores: &mut [f32], out: &mut [f32]) {
    if !can_attend(query, &memory, scores, out) {
        return (row_kernels::TABLE.attend_bf16)(query, memory, scores, out);
    }
    let padded = memory.length.next_multiple_of(BLOCK);
    // SAFETY: keys, values and scores have all blocks up to the length; this table is handed out
    // only where the processor has the instructions.
    unsafe { attend_pairs(query, memory, &mut scores[..padded], out) }
}

fn attend_int8(query: &[f32], memory: Memory<'_, i32>, scores: &mut [f32], out: &mut [f32]) {
    if !can_attend(query, &memory, scores, out) {
        return (row_kernels::TABLE.attend_int8)(query, memory, scores, out);
    }
    let padded = memory.length.next_multiple_of(BLOCK);
    // SAFETY: as above.
    unsafe { attend_fours(query, memory, &mut scores[..padded], out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn attend_pairs(
    query: &[f32],
    memory: Memory<'_, Pair>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (head, length) = (query.len(), memory.length);
    let layout = HeadLayout { head };
    let mut rounded = [0; MAX_HEAD];
    rows::round::<true>(query, &mut rounded[..head]);
    let blocks = scores.len() / BLOCK;
    let quads = blocks / 4 * 4;
    // SAFETY: the caller answers for all that is read and written.
    unsafe {
        for block in (0..quads).step_by(4) {
            score_blocks::<4>(&rounded[..head], &memory, block, scores);
        }
        for block in quads..blocks {
            score_blocks::<1>(&rounded[..head], &memory, block, scores);
        }
    }
    scores[length..].fill(f32::NEG_INFINITY);
    fetch_later(&memory, layout, 0);
    let inverse = rows::softmax::<true>(scores, (head as f32).sqrt().recip());
    for block in 0..blocks {
        // SAFETY: both are 256 plain bits. A block's bf16 end where it began or before, so no
        // number is overwritten that has not been read.
        unsafe {
            let weights = _mm512_loadu_ps(scores.as_ptr().add(block * BLOCK));
            let weights: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(weights));
            let to = scores.as_mut_ptr().cast::<u16>().add(block * BLOCK);
            _mm256_storeu_si256(to.cast(), weights);
        }
    }
    let weights = scores.as_ptr().cast::<i32>();
    let parts = head.div_ceil(BLOCK);
    let mut part = 0;
    while part < parts {
        let count = (parts - part).min(4);
        let out = &mut out[part * BLOCK..];
        // SAFETY: the caller answers for all that is read; there is a weight for each pair.
        unsafe {
            match count {
                1 => mix_blocks::<1>(weights, &memory, layout, part, inverse, out),
                2 => mix_blocks::<2>(weights, &memory, layout, part, inverse, out),
                3 => mix_blocks::<3>(weights, &memory, layout, part, inverse, out),
                _ => mix_blocks::<4>(weights, &memory, layout, part, inverse, out),
            }
        }
        part += count;
    }
    fetch_later(&memory, layout, 1);
}

/// Products of a query with blocks of keys: two chains for each, over every other pair.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn score_blocks<const B: usize>(
    query: &[u16],
    memory: &Memory<'_, Pair>,
    first: usize,
    scores: &mut [f32],
) {
    let layout = HeadLayout { head: query.len() };
    let (pairs, size) = (query.len() / 2, layout.block::<Pair>());
    let keys = memory.entries.as_ptr().wrapping_add(first * size);
    let mut sums = [[_mm512_setzero_ps(); 2]; B];
    for pair in (0..pairs).step_by(2) {
        for chain in 0..2 {
            // SAFETY: the caller answers for all that is read, and prefetching is a hint. Both
            // types are 512 plain bits.
            unsafe {
                let at = query.as_ptr().add(2 * (pair + chain)).cast::<i32>();
                let query: __m512bh = std::mem::transmute(_mm512_set1_epi32(at.read_unaligned()));
                for (block, sums) in sums.iter_mut().enumerate() {
                    let at = keys.add(block * size + (pair + chain) * BLOCK);
                    _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(memory.ahead).cast());
                    let keys: __m512bh = std::mem::transmute(_mm512_loadu_si512(at.cast()));
                    sums[chain] = _mm512_dpbf16_ps(sums[chain], query, keys);
                }
            }
        }
    }
    for (block, sums) in sums.iter().enumerate() {
        let to = &mut scores[(first + block) * BLOCK..][..BLOCK];
        // SAFETY: the slice has 16 numbers.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_add_ps(sums[0], sums[1])) }
    }
}

/// Mixes blocks of values by their weights: two chains for each, over every other pair.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn mix_blocks<const B: usize>(
    weights: *const i32,
    memory: &Memory<'_, Pair>,
    layout: HeadLayout,
    first: usize,
    inverse: f32,
    out: &mut [f32],
) {
    const PAIRS: usize = BLOCK / 2;
    let (size, part) = (layout.block::<Pair>(), layout.part::<Pair>());
    let values = memory.entries.as_ptr().wrapping_add(layout.keys::<Pair>() + first * part);
    // Of the last pair the second position may be one that is not seen.
    let lower = _mm512_set1_epi32(0xffff);
    let mut sums = [[_mm512_setzero_ps(); 2]; B];
    let mut add = |pair: usize, chain: usize, mask: Option<__m512i>| {
        // SAFETY: as above.
        unsafe {
            let weight = _mm512_set1_epi32(weights.add(pair).read_unaligned());
            let weight: __m512bh = std::mem::transmute(weight);
            let at = values.add(pair / PAIRS * size + pair % PAIRS * BLOCK);
            for (block, sums) in sums.iter_mut().enumerate() {
                let at = at.add(block * part);
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(memory.ahead).cast());
                let mut values = _mm512_loadu_si512(at.cast());
                if let Some(mask) = mask {
                    values = _mm512_and_si512(values, mask);
                }
                let values: __m512bh = std::mem::transmute(values);
                sums[chain] = _mm512_dpbf16_ps(sums[chain], weight, values);
            }
        }
    };
    let whole = memory.length / 2;
    for pair in (0..whole / 2 * 2).step_by(2) {
        add(pair, 0, None);
        add(pair + 1, 1, None);
    }
    if whole % 2 == 1 {
        add(whole - 1, 0, None);
    }
    if memory.length % 2 == 1 {
        add(whole, whole % 2, Some(lower));
    }
    for (sums, out) in sums.iter().zip(out.chunks_mut(BLOCK)) {
        put(_mm512_mul_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_set1_ps(inverse)), out);
    }
}

/// Queries are rounded to 8 bits, and the weights of values to 16, in two halves: 8 would lose what
/// many small ones add up to. All sums are exact.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn attend_fours(
    query: &[f32],
    memory: Memory<'_, i32>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (head, length) = (query.len(), memory.length);
    let layout = HeadLayout { head };
    let (size, scales) = (layout.block::<i32>(), layout.numbers::<i32>());
    let mut levels = [0i8; MAX_HEAD];
    let step = rows::quantize_evenly::<true>(query, &mut levels[..head]);
    let blocks = scores.len() / BLOCK;
    let mut block = 0;
    while block < blocks {
        let count = if block + 4 <= blocks { 4 } else { 1 };
        // SAFETY: the caller answers for all that is read; scores reach up to the last block.
        unsafe {
            match count {
                1 => score_fours::<1>(&levels[..head], step, &memory, block, scores),
                _ => score_fours::<4>(&levels[..head], step, &memory, block, scores),
            }
        }
        block += count;
    }
    scores[length..].fill(f32::NEG_INFINITY);
    fetch_later(&memory, layout, 0);
    let inverse = rows::softmax::<true>(scores, (head as f32).sqrt().recip());
    let mut largest = _mm512_setzero_ps();
    let mut damage = _mm512_setzero_ps();
    for block in 0..blocks {
        let seen = length - block * BLOCK;
        let mask = if seen < BLOCK { (1u16 << seen) - 1 } else { u16::MAX };
        // SAFETY: as above.
        unsafe {
            let at = scores.as_mut_ptr().add(block * BLOCK);
            let scale = memory.entries.as_ptr().add(block * size + scales + BLOCK);
            let scale = _mm512_maskz_loadu_ps(mask, scale.cast());
            let weight = _mm512_mul_ps(_mm512_loadu_ps(at), scale);
            _mm512_storeu_ps(at, weight);
            largest = _mm512_max_ps(largest, weight);
            damage = _mm512_fmadd_ps(weight, _mm512_setzero_ps(), damage);
        }
    }
    // Not zero if a scale is infinite or no number.
    let damage = _mm512_reduce_add_ps(damage);
    let largest = _mm512_reduce_max_ps(largest).max(f32::MIN_POSITIVE);
    let levels = _mm512_set1_ps(65_535.0 / largest);
    for block in 0..blocks {
        // SAFETY: a block's levels end where its weights began or before, so no weight is
        // overwritten that has not been read.
        unsafe {
            let weight = _mm512_loadu_ps(scores.as_ptr().add(block * BLOCK));
            let level = _mm512_cvtps_epi32(_mm512_mul_ps(weight, levels));
            let upper = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(level));
            let to = scores.as_mut_ptr().cast::<u8>().add(2 * block * BLOCK);
            _mm_storeu_si128(to.cast(), upper);
            _mm_storeu_si128(to.add(BLOCK).cast(), _mm512_cvtepi32_epi8(level));
        }
    }
    let scale = _mm512_set1_ps((largest / 65_535.0) * inverse + damage);
    let levels = scores.as_ptr().cast::<u8>();
    for (part, out) in out.chunks_mut(BLOCK).enumerate() {
        let values = memory
            .entries
            .as_ptr()
            .wrapping_add(layout.keys::<i32>() + part * layout.part::<i32>());
        let mut sums = [[_mm512_setzero_si512(); 2]; 2];
        for four in 0..length.div_ceil(4) {
            // SAFETY: the caller answers for all that is read. What is not seen has no weight.
            unsafe {
                let at = values.add(four / 4 * size + four % 4 * BLOCK);
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(memory.ahead).cast());
                let values = _mm512_loadu_si512(at.cast());
                let levels = levels.add(four / 4 * 2 * BLOCK + four % 4 * 4);
                for (half, sum) in sums[four % 2].iter_mut().enumerate() {
                    let level = levels.add(half * BLOCK).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi32(level), values);
                }
            }
        }
        let upper = _mm512_add_epi32(sums[0][0], sums[1][0]);
        let lower = _mm512_cvtepi32_ps(_mm512_add_epi32(sums[0][1], sums[1][1]));
        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(256.0), lower);
        put(_mm512_mul_ps(sum, scale), out);
    }
    fetch_later(&memory, layout, 1);
}

/// Products of a query with blocks of keys.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn score_fours<const B: usize>(
    query: &[i8],
    step: f32,
    memory: &Memory<'_, i32>,
    first: usize,
    scores: &mut [f32],
) {
    let layout = HeadLayout { head: query.len() };
    let (fours, size) = (query.len() / 4, layout.block::<i32>());
    // The instruction wants one side without a sign: 128 more in each key.
    let signs = _mm512_set1_epi32(0x8080_8080_u32 as i32);
    let surplus = 128 * query.iter().map(|&level| i32::from(level)).sum::<i32>();
    let keys = memory.entries.as_ptr().wrapping_add(first * size);
    let mut sums = [_mm512_setzero_si512(); B];
    for four in 0..fours {
        // SAFETY: the caller answers for all that is read, and prefetching is a hint.
        unsafe {
            let query = query.as_ptr().add(4 * four).cast::<i32>().read_unaligned();
            let query = _mm512_set1_epi32(query);
            for (block, sum) in sums.iter_mut().enumerate() {
                let at = keys.add(block * size + four * BLOCK);
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(memory.ahead).cast());
                let keys = _mm512_xor_si512(_mm512_loadu_si512(at.cast()), signs);
                *sum = _mm512_dpbusd_epi32(*sum, keys, query);
            }
        }
    }
    for (block, &sum) in sums.iter().enumerate() {
        let to = &mut scores[(first + block) * BLOCK..][..BLOCK];
        let scale = &memory.entries[(first + block) * size + layout.numbers::<i32>()..][..BLOCK];
        let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(surplus)));
        // SAFETY: both slices have 16 numbers.
        unsafe {
            let scale = _mm512_mul_ps(_mm512_set1_ps(step), _mm512_loadu_ps(scale.as_ptr().cast()));
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_mul_ps(exact, scale));
        }
    }
}
