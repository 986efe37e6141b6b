//! Operations on rows of numbers, written once. The compiler turns them into the vector
//! instructions of each table: loops run over blocks of [`BLOCK`] numbers, which the widest
//! registers hold at once.
//!
//! Sums run in the fixed order of [`numerics`]. `FUSED` says whether the instruction set multiplies
//! and adds in one rounding.

use numerics::{add, exp, fold, greater, map, multiply_add, to_bf16};

use super::RowScale;

/// Numbers that are worked on at a time.
pub(crate) const BLOCK: usize = numerics::LANES;

/// How keys and values are stored: one f32, two bf16, or four 8-bit integers.
pub(crate) trait Entries: bytemuck::Pod + Default + Send + Sync {
    /// Numbers of an entry: a divisor of 4.
    const NUMBERS: usize;
    /// A number as it is stored.
    type Number: bytemuck::Pod;
    /// Whether keys and values have a scale at each position.
    const SCALED: bool;
    /// Rounds a key or value and returns its scale.
    fn round(kernels: &RowKernels, row: &[f32], out: &mut [Self::Number]) -> f32;
    /// A scale that is kept in place of an entry.
    fn scale(self) -> f32 {
        1.0
    }
    fn set_scale(&mut self, _: f32) {}
    fn number(self, index: usize) -> f32;
    /// Sets a number. The first one clears those after it.
    fn set(&mut self, index: usize, number: Self::Number);
    /// The attention of a table that reads such entries.
    fn attend(kernels: &RowKernels) -> Attend<Self>;
}

/// Attention of one query to all positions seen. Scores have room for them, filled up to whole
/// blocks; query and output are one head.
pub(crate) type Attend<E> = fn(&[f32], Memory<'_, E>, &mut [f32], &mut [f32]);

impl Entries for f32 {
    const NUMBERS: usize = 1;
    type Number = f32;
    const SCALED: bool = false;

    fn round(_: &RowKernels, row: &[f32], out: &mut [f32]) -> f32 {
        out.copy_from_slice(row);
        1.0
    }

    #[inline(always)]
    fn number(self, _: usize) -> f32 {
        self
    }

    #[inline(always)]
    fn set(&mut self, _: usize, number: f32) {
        *self = number;
    }

    fn attend(kernels: &RowKernels) -> Attend<Self> {
        kernels.attend_f32
    }
}

/// Two bf16, the first one in the lower half, as instructions for pairs read them.
pub(crate) type Pair = u32;

impl Entries for Pair {
    const NUMBERS: usize = 2;
    type Number = u16;
    const SCALED: bool = false;

    fn round(kernels: &RowKernels, row: &[f32], out: &mut [u16]) -> f32 {
        (kernels.round)(row, out);
        1.0
    }

    #[inline(always)]
    fn number(self, index: usize) -> f32 {
        // A bf16 is the upper half of an f32.
        f32::from_bits(if index == 0 { self << 16 } else { self & 0xffff_0000 })
    }

    #[inline(always)]
    fn set(&mut self, index: usize, number: u16) {
        let number = u32::from(number);
        *self = if index == 0 { number } else { *self & 0xffff | number << 16 };
    }

    fn attend(kernels: &RowKernels) -> Attend<Self> {
        kernels.attend_bf16
    }
}

/// Four 8-bit integers, the first one in the lowest byte, as instructions for fours read them.
impl Entries for i32 {
    const NUMBERS: usize = 4;
    type Number = i8;
    const SCALED: bool = true;

    fn round(kernels: &RowKernels, row: &[f32], out: &mut [i8]) -> f32 {
        (kernels.quantize_evenly)(row, out)
    }

    #[inline(always)]
    fn scale(self) -> f32 {
        f32::from_bits(self as u32)
    }

    fn set_scale(&mut self, scale: f32) {
        *self = scale.to_bits() as i32;
    }

    #[inline(always)]
    fn number(self, index: usize) -> f32 {
        (self >> (8 * index)) as i8 as f32
    }

    #[inline(always)]
    fn set(&mut self, index: usize, number: i8) {
        let below = (1i64 << (8 * index)) - 1;
        *self = (*self & below as i32) | i32::from(number as u8) << (8 * index);
    }

    fn attend(kernels: &RowKernels) -> Attend<Self> {
        kernels.attend_int8
    }
}

/// How a head of this many numbers keeps its keys and values: in blocks of [`BLOCK`] positions, one
/// after the other, so that all that is seen is one piece of memory from its start on. A block has
///
/// - keys `[head / NUMBERS, BLOCK]`: an entry has neighbours in the head;
/// - values `[head / BLOCK, BLOCK / NUMBERS, BLOCK]`, the head filled up: an entry has neighbours in
///   the sequence;
/// - where entries are [`SCALED`](Entries::SCALED), scales `[2, BLOCK]`, of keys and of values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLayout {
    pub(crate) head: usize,
}

impl HeadLayout {
    /// Entries of a block's keys.
    #[inline(always)]
    pub(crate) const fn keys<E: Entries>(self) -> usize {
        self.head / E::NUMBERS * BLOCK
    }

    /// Entries of [`BLOCK`] numbers of a block's values.
    #[inline(always)]
    pub(crate) const fn part<E: Entries>(self) -> usize {
        BLOCK / E::NUMBERS * BLOCK
    }

    /// Entries from a block's start to its scales.
    #[inline(always)]
    pub(crate) const fn numbers<E: Entries>(self) -> usize {
        self.keys::<E>() + self.head.div_ceil(BLOCK) * self.part::<E>()
    }

    /// Entries of a block.
    #[inline(always)]
    pub(crate) const fn block<E: Entries>(self) -> usize {
        self.numbers::<E>() + if E::SCALED { 2 * BLOCK } else { 0 }
    }

    /// Keeps a rounded key and value, and their scales, at a position.
    pub(crate) fn keep<E: Entries>(
        self,
        entries: &mut [E],
        position: usize,
        [key, value]: [&[E::Number]; 2],
        scales: [f32; 2],
    ) {
        let (block, lane) = (position / BLOCK, position % BLOCK);
        let block = &mut entries[block * self.block::<E>()..][..self.block::<E>()];
        let (numbers, kept_scales) = block.split_at_mut(self.numbers::<E>());
        let (keys, values) = numbers.split_at_mut(self.keys::<E>());
        // The numbers of an entry lie in memory as they do in a row.
        let entries = bytemuck::cast_slice::<_, [u8; 4]>(key);
        for (kept, &entry) in keys[lane..].iter_mut().step_by(BLOCK).zip(entries) {
            *kept = bytemuck::cast(entry);
        }
        let parts = values.chunks_exact_mut(self.part::<E>());
        for (part, numbers) in parts.zip(value.chunks(BLOCK)) {
            for (entry, &number) in part[lane / E::NUMBERS * BLOCK..].iter_mut().zip(numbers) {
                entry.set(lane % E::NUMBERS, number);
            }
        }
        if E::SCALED {
            kept_scales[lane].set_scale(scales[0]);
            kept_scales[BLOCK + lane].set_scale(scales[1]);
        }
    }
}

/// Keys and values of one head, as attention to them reads them.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a, E> {
    /// Blocks of a [`HeadLayout`].
    pub(crate) entries: &'a [E],
    /// Positions that are seen.
    pub(crate) length: usize,
    /// Entries from here to what will probably be read next, and may be fetched meanwhile.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // others do not fetch
    pub(crate) ahead: usize,
}

/// A head of a query or key, the norm's weight and epsilon, cosines and sines of its position, and
/// where the result goes.
pub(crate) type NormRotate = fn(&[f32], &[f32], f32, &[f32], &[f32], &mut [f32]);

/// A head of a query or key, cosines and sines of its position, and where the result goes.
pub(crate) type Rotate = fn(&[f32], &[f32], &[f32], &mut [f32]);

/// A row, weight, bias and epsilon, and where the result goes.
pub(crate) type LayerNorm = fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// The operations of one instruction set.
pub(crate) struct RowKernels {
    /// x / √(mean square + epsilon) · weight.
    pub(crate) rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    /// The same norm, then the rotation of each pair of neighbours.
    pub(crate) norm_rotate: NormRotate,
    /// The rotation of each pair of neighbours alone.
    pub(crate) rotate: Rotate,
    /// (x − mean) / √(variance + epsilon) · weight + bias.
    pub(crate) layer_norm: LayerNorm,
    /// Rounds to bf16.
    pub(crate) round: fn(&[f32], &mut [u16]),
    /// Widens a panel of bf16, `[depth / 2, width, 2]` on a boundary of four bytes, to one of f32,
    /// `[depth, width]`.
    pub(crate) widen: fn(&[u16], usize, &mut [f32]),
    /// Rounds to 256 levels between the least and the greatest number; one of them is 0.
    pub(crate) quantize: fn(&[f32], &mut [u8]) -> RowScale,
    /// Rounds to whole multiples of 1/127 of the largest magnitude; returns that step.
    pub(crate) quantize_evenly: fn(&[f32], &mut [i8]) -> f32,
    /// silu(gate) · up, into the gate.
    pub(crate) silu_gate: fn(&mut [f32], &[f32]),
    /// x Φ(x), in place, within 3e-7.
    pub(crate) gelu: fn(&mut [f32]),
    /// 1 / (1 + e⁻ˣ), in place.
    pub(crate) sigmoid: fn(&mut [f32]),
    /// Replaces scores by e^(scale · (score − greatest)); returns 1 / their sum. The scale is
    /// positive.
    pub(crate) softmax: fn(&mut [f32], f32) -> f32,
    /// Attention to keys and values in f32.
    pub(crate) attend_f32: Attend<f32>,
    /// Attention to keys and values in bf16.
    pub(crate) attend_bf16: Attend<Pair>,
    /// Attention to keys and values in 8 bits.
    pub(crate) attend_int8: Attend<i32>,
}

pub(super) const PORTABLE: RowKernels = RowKernels {
    rms_norm: rms_norm::<false>,
    norm_rotate: norm_rotate::<false>,
    rotate: rotate::<false>,
    layer_norm: layer_norm::<false>,
    round: round::<false>,
    widen: widen::<false>,
    quantize: quantize::<false>,
    quantize_evenly: quantize_evenly::<false>,
    silu_gate: silu_gate::<false>,
    gelu: gelu::<false>,
    sigmoid: sigmoid::<false>,
    softmax: softmax::<false>,
    attend_f32: attend_f32::<false>,
    attend_bf16: attend_bf16::<false>,
    attend_int8: attend_int8::<false>,
};

/// Makes the table of an instruction set: each operation, compiled with its features. Other
/// processors have the portable table alone.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! row_kernels {
    ($features:literal) => {
        mod row_kernels {
            use super::super::{
                RowScale,
                rows::{self, Memory, Pair, RowKernels, row_kernels},
            };

            type Row<'a> = &'a [f32];
            type Out<'a> = &'a mut [f32];

            row_kernels!(@ $features rms_norm(x: Row<'_>, weight: Row<'_>, epsilon: f32, out: Out<'_>));
            row_kernels!(@ $features
                norm_rotate(x: Row<'_>, weight: Row<'_>, epsilon: f32, cosines: Row<'_>, sines: Row<'_>, out: Out<'_>));
            row_kernels!(@ $features
                rotate(x: Row<'_>, cosines: Row<'_>, sines: Row<'_>, out: Out<'_>));
            row_kernels!(@ $features
                layer_norm(x: Row<'_>, weight: Row<'_>, bias: Row<'_>, epsilon: f32, out: Out<'_>));
            row_kernels!(@ $features round(x: Row<'_>, out: &mut [u16]));
            row_kernels!(@ $features widen(panel: &[u16], width: usize, out: Out<'_>));
            row_kernels!(@ $features quantize(x: Row<'_>, out: &mut [u8]) -> RowScale);
            row_kernels!(@ $features quantize_evenly(x: Row<'_>, out: &mut [i8]) -> f32);
            row_kernels!(@ $features silu_gate(gate: Out<'_>, up: Row<'_>));
            row_kernels!(@ $features gelu(x: Out<'_>));
            row_kernels!(@ $features sigmoid(x: Out<'_>));
            row_kernels!(@ $features softmax(scores: Out<'_>, scale: f32) -> f32);
            row_kernels!(@ $features
                attend_f32(query: Row<'_>, memory: Memory<'_, f32>, scores: Out<'_>, out: Out<'_>));
            row_kernels!(@ $features
                attend_bf16(query: Row<'_>, memory: Memory<'_, Pair>, scores: Out<'_>, out: Out<'_>));

            row_kernels!(@ $features
                attend_int8(query: Row<'_>, memory: Memory<'_, i32>, scores: Out<'_>, out: Out<'_>));

            pub(super) const TABLE: RowKernels = RowKernels {
                rms_norm,
                norm_rotate,
                rotate,
                layer_norm,
                round,
                widen,
                quantize,
                quantize_evenly,
                silu_gate,
                gelu,
                sigmoid,
                softmax,
                attend_f32,
                attend_bf16,
                attend_int8,
            };
        }
    };
    (@ $features:literal $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $type),*) $(-> $result)? {
            #[target_feature(enable = $features)]
            fn compiled($($argument: $type),*) $(-> $result)? {
                rows::$name::<true>($($argument),*)
            }
            // SAFETY: the table is handed out only where the processor has these instructions.
            unsafe { compiled($($argument),*) }
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use row_kernels;

#[inline(always)]
pub(super) fn rms_norm<const FUSED: bool>(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    let squares = fold(x, 0.0, |sum, x| multiply_add::<FUSED>(x, x, sum), add);
    let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(super) fn norm_rotate<const FUSED: bool>(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    cosines: &[f32],
    sines: &[f32],
    out: &mut [f32],
) {
    let squares = fold(x, 0.0, |sum, x| multiply_add::<FUSED>(x, x, sum), add);
    let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
    let rotate = |[x, weight, cosines, sines]: [&[f32; BLOCK]; 4], out: &mut [f32; BLOCK]| {
        let normed: [f32; BLOCK] = std::array::from_fn(|lane| x[lane] * scale * weight[lane]);
        for lane in 0..BLOCK {
            out[lane] = normed[lane] * cosines[lane] + normed[lane ^ 1] * sines[lane];
        }
    };
    let (blocks, tail) = out.as_chunks_mut::<BLOCK>();
    let [x, weight, cosines, sines] =
        [x, weight, cosines, sines].map(|row| row.as_chunks::<BLOCK>());
    let rows = x.0.iter().zip(weight.0).zip(cosines.0).zip(sines.0);
    for ((((x, weight), cosines), sines), out) in rows.zip(blocks) {
        rotate([x, weight, cosines, sines], out);
    }
    if !tail.is_empty() {
        let filled = [x.1, weight.1, cosines.1, sines.1].map(|tail| {
            let mut block = [0.0; BLOCK];
            block[..tail.len()].copy_from_slice(tail);
            block
        });
        let mut block = [0.0; BLOCK];
        rotate(filled.each_ref(), &mut block);
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

pub(super) fn rotate<const FUSED: bool>(
    x: &[f32],
    cosines: &[f32],
    sines: &[f32],
    out: &mut [f32],
) {
    let pairs = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
    let turns = cosines.as_chunks::<2>().0.iter().zip(sines.as_chunks::<2>().0);
    for ((x, out), (cosines, sines)) in pairs.zip(turns) {
        for lane in 0..2 {
            out[lane] = x[lane] * cosines[lane] + x[lane ^ 1] * sines[lane];
        }
    }
}

#[inline(always)]
pub(super) fn layer_norm<const FUSED: bool>(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    out: &mut [f32],
) {
    let count = x.len() as f32;
    let mean = fold(x, 0.0, add, add) / count;
    let square = |sum, x: f32| multiply_add::<FUSED>(x - mean, x - mean, sum);
    let scale = 1.0 / (fold(x, 0.0, square, add) / count + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = multiply_add::<FUSED>((x - mean) * scale, *weight, *bias);
    }
}

#[inline(always)]
pub(super) fn round<const FUSED: bool>(x: &[f32], out: &mut [u16]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = to_bf16(x);
    }
}

#[inline(always)]
pub(super) fn widen<const FUSED: bool>(panel: &[u16], width: usize, out: &mut [f32]) {
    // On the machines that this runs on, the first of two is the lower half of both.
    const { assert!(cfg!(target_endian = "little")) };
    let pairs: &[u32] = bytemuck::cast_slice(panel);
    for (pairs, out) in pairs.chunks_exact(width).zip(out.chunks_exact_mut(2 * width)) {
        let (first, second) = out.split_at_mut(width);
        for ((pair, first), second) in pairs.iter().zip(first).zip(second) {
            *first = f32::from_bits(pair << 16);
            *second = f32::from_bits(pair & 0xffff_0000);
        }
    }
}

#[inline(always)]
pub(super) fn quantize<const FUSED: bool>(x: &[f32], out: &mut [u8]) -> RowScale {
    const ROUND: f32 = 12_582_912.0;
    let highest = fold(x, 0.0, greater, greater);
    let lowest = -fold(x, 0.0, |a, b| greater(a, -b), greater);
    // Zero, unless something in the row is infinite or no number; then so is all that follows.
    let damage = fold(x, 0.0, |sum, x| multiply_add::<FUSED>(x, 0.0, sum), add);
    let range = highest - lowest;
    let scale = if range > 0.0 { range / 255.0 } else { 1.0 };
    let inverse = 1.0 / scale;
    let zero = ((-lowest * inverse + ROUND) - ROUND).min(255.0);
    for (out, &x) in out.iter_mut().zip(x) {
        let level = multiply_add::<FUSED>(x, inverse, zero);
        let level = if level > 0.0 { level } else { 0.0 };
        let level = if level < 255.0 { level } else { 255.0 };
        *out = (level + ROUND).to_bits() as u8;
    }
    RowScale { scale: scale + damage, zero: zero as i32 }
}

#[inline(always)]
pub(super) fn quantize_evenly<const FUSED: bool>(x: &[f32], out: &mut [i8]) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let largest = fold(x, 0.0, |largest, x| greater(largest, x.abs()), greater);
    // As above: not zero if something is infinite or no number.
    let damage = fold(x, 0.0, |sum, x| multiply_add::<FUSED>(x, 0.0, sum), add);
    let scale = if largest > 1e-30 { largest / 127.0 } else { 1.0 };
    let inverse = 1.0 / scale;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (x * inverse + ROUND).to_bits() as i8;
    }
    scale + damage
}

#[inline(always)]
pub(super) fn silu_gate<const FUSED: bool>(gate: &mut [f32], up: &[f32]) {
    map(gate, |x| x / (1.0 + exp::<FUSED>(-x)));
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate *= up;
    }
}

#[inline(always)]
pub(super) fn gelu<const FUSED: bool>(x: &mut [f32]) {
    map(x, numerics::gelu::<FUSED>);
}

#[inline(always)]
pub(super) fn sigmoid<const FUSED: bool>(x: &mut [f32]) {
    map(x, numerics::sigmoid::<FUSED>);
}

#[inline(always)]
pub(super) fn softmax<const FUSED: bool>(scores: &mut [f32], scale: f32) -> f32 {
    let highest = fold(scores, f32::NEG_INFINITY, greater, greater);
    map(scores, |score| {
        let score = (score - highest) * scale;
        // What is this far below has no weight, and minus infinity is a mask.
        if score < -87.0 { 0.0 } else { exp::<FUSED>(score) }
    });
    1.0 / fold(scores, 0.0, add, add)
}

#[inline(always)]
pub(super) fn attend_f32<const FUSED: bool>(
    query: &[f32],
    memory: Memory<'_, f32>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    attend::<f32, FUSED>(query, memory, scores, out);
}

#[inline(always)]
pub(super) fn attend_bf16<const FUSED: bool>(
    query: &[f32],
    memory: Memory<'_, Pair>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    attend::<Pair, FUSED>(query, memory, scores, out);
}

#[inline(always)]
pub(super) fn attend_int8<const FUSED: bool>(
    query: &[f32],
    memory: Memory<'_, i32>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    attend::<i32, FUSED>(query, memory, scores, out);
}

/// Scales each number of a row by its own factor.
#[inline(always)]
fn scale<E: Entries>(row: &mut [f32], factors: &[E]) {
    for (number, factor) in row.iter_mut().zip(factors) {
        *number *= factor.scale();
    }
}

/// Adds four multiples of blocks to four sums, so that no addition waits for the one before.
#[inline(always)]
fn accumulate<E: Entries, const FUSED: bool>(
    sums: &mut [[f32; BLOCK]; 4],
    factors: &[f32; 4],
    entries: &[E],
) {
    let entries = &entries[..4 / E::NUMBERS * BLOCK];
    for part in 0..4 {
        let block = &entries[part / E::NUMBERS * BLOCK..][..BLOCK];
        for lane in 0..BLOCK {
            let number = block[lane].number(part % E::NUMBERS);
            sums[part][lane] = multiply_add::<FUSED>(factors[part], number, sums[part][lane]);
        }
    }
}

#[inline(always)]
fn add_up(sums: [[f32; BLOCK]; 4]) -> [f32; BLOCK] {
    std::array::from_fn(|lane| (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]))
}

#[inline(always)]
fn attend<E: Entries, const FUSED: bool>(
    query: &[f32],
    memory: Memory<'_, E>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let layout = HeadLayout { head: query.len() };
    let (size, numbers) = (layout.block::<E>(), layout.numbers::<E>());
    let four = 4 / E::NUMBERS * BLOCK;
    let length = memory.length;
    let blocks = length.div_ceil(BLOCK);
    let memory = memory.entries[..blocks * size].chunks_exact(size);
    let scores = &mut scores[..blocks * BLOCK];
    let (query_parts, rest) = query.as_chunks::<4>();
    assert!(rest.is_empty(), "heads are multiples of 4");
    for (memory, scores) in memory.clone().zip(scores.as_chunks_mut::<BLOCK>().0) {
        let keys = memory[..layout.keys::<E>()].chunks_exact(four);
        let mut sums = [[0.0; BLOCK]; 4];
        for (query, keys) in query_parts.iter().zip(keys) {
            accumulate::<E, FUSED>(&mut sums, query, keys);
        }
        *scores = add_up(sums);
        if E::SCALED {
            scale(scores, &memory[numbers..][..BLOCK]);
        }
    }
    scores[length..].fill(f32::NEG_INFINITY);
    let inverse = softmax::<FUSED>(scores, (layout.head as f32).sqrt().recip());
    if E::SCALED {
        for (memory, scores) in memory.clone().zip(scores[..length].chunks_mut(BLOCK)) {
            scale(scores, &memory[numbers + BLOCK..]);
        }
    }
    for (part, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [[0.0; BLOCK]; 4];
        for (memory, weights) in memory.clone().zip(scores[..length].chunks(BLOCK)) {
            let values = &memory[layout.keys::<E>()..][part * layout.part::<E>()..];
            let values = &values[..layout.part::<E>()];
            let (weights, rest) = weights.as_chunks::<4>();
            for (weights, values) in weights.iter().zip(values.chunks_exact(four)) {
                accumulate::<E, FUSED>(&mut sums, weights, values);
            }
            for (index, &weight) in rest.iter().enumerate() {
                let block = &values[weights.len() * four..][index / E::NUMBERS * BLOCK..][..BLOCK];
                for lane in 0..BLOCK {
                    let number = block[lane].number(index % E::NUMBERS);
                    sums[0][lane] = multiply_add::<FUSED>(weight, number, sums[0][lane]);
                }
            }
        }
        for (out, sum) in out.iter_mut().zip(add_up(sums)) {
            *out = sum * inverse;
        }
    }
}
