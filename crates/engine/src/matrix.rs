//! Matrix products with packed weights.
//!
//! A weight `[outputs, inputs]` is stored in panels of [`Kernels::width`] outputs. A panel holds,
//! one group of inputs after the other, all of its outputs: groups are one number in f32, two in
//! bf16 and four in int8, as the products of each instruction set read them; in int4 they are 32,
//! with a scale and a minimum. Inputs are filled up to whole groups, and outputs to whole panels,
//! with zeros.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use files::safetensors::TensorView;
use numerics::{from_bf16, to_bf16};
use serde::{Deserialize, Serialize};

use crate::{
    kernels::{
        Bf16Product, Fetch, INPUT_GROUP, INT4_WORDS, InputGroup, Int8Panel, Kernels, RowScale,
        Rows, TILE_ROWS, Tile, Widening,
    },
    memory::{Arena, Piece},
    parallel::Pool,
};

/// Number format of weights, and of the activations that they are multiplied with. Norms,
/// softmax, attention and logits are computed in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bf16 weights, summed in f32; keys and values are kept in bf16. Activations, and in attention
    /// queries and the softmax's weights, are rounded to bf16 where the processor is faster so.
    Bf16,
    /// 8-bit weights with a scale for each output, 8-bit activations with a scale and a zero for
    /// each row, summed exactly; 8-bit keys and values with a scale for each head and position;
    /// embedding and output layer are kept in bf16.
    Int8,
    /// 4-bit weights, 32 inputs of an output with a scale and a minimum in bf16; 8-bit activations
    /// with a scale for each row. What suffers most is kept in int8: a generator's first and last
    /// block and its output layer, keys and values, and the whole tokenizer. The embedding is kept in
    /// bf16.
    Int4,
}

impl Precision {
    /// All of them, the exact one first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Int4];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Bytes of so many weights of one output, filled up to whole groups.
    pub(crate) const fn bytes(self, weights: usize) -> usize {
        let group = match self {
            Self::Int4 => 4 * INT4_WORDS,
            _ => 4,
        };
        weights.div_ceil(self.group()) * group
    }

    /// The format of what must not be rounded to 8 bits.
    pub(crate) const fn at_least_bf16(self) -> Self {
        match self {
            Self::Int8 | Self::Int4 => Self::Bf16,
            other => other,
        }
    }

    /// The format of what must not be rounded to 4 bits.
    pub(crate) const fn at_least_int8(self) -> Self {
        match self {
            Self::Int4 => Self::Int8,
            other => other,
        }
    }

    /// Inputs that a product reads together.
    const fn group(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
            Self::Int4 => INPUT_GROUP,
        }
    }
}

/// Row-major values that a weight is packed from.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    /// In memory.
    Numbers(&'a [f32]),
    /// As a file stores them, and where it is noted that one is no finite number.
    Stored(&'a TensorView<'a>, &'a AtomicBool),
    /// None that count.
    Zeros,
}

impl Values<'_> {
    /// Reads the numbers from the `start`-th on.
    fn read(&self, start: usize, out: &mut [f32]) {
        match self {
            Self::Numbers(numbers) => out.copy_from_slice(&numbers[start..start + out.len()]),
            Self::Stored(view, strange) => {
                view.read(start, out);
                if !is_finite(out) {
                    strange.store(true, Ordering::Relaxed);
                }
            }
            Self::Zeros => out.fill(0.0),
        }
    }
}

/// Whether all values are finite; without a branch a value, which costs nothing beside reading them.
fn is_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |all, value| all & value.is_finite())
}

/// A packed weight, or two of the same shape whose panels alternate.
pub(crate) struct Matrix {
    kernels: &'static Kernels,
    precision: Precision,
    outputs: usize,
    parts: usize,
    depth: usize,
    weights: Piece,
    /// int8 only: for each output of each panel.
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// How a panel of bf16 is widened to f32 before it is multiplied with several tiles of rows.
#[derive(Clone, Copy)]
enum WideningWay {
    /// It is not.
    None,
    /// As a whole.
    Before,
    /// By the product with the first tile.
    FirstTile(Widening),
}

/// The widened form of a tile's panel.
enum Widened<'a> {
    /// There is none.
    Not,
    /// It is made by this product.
    Now(Widening, &'a mut [f32]),
    /// It is there.
    Before(&'a [f32]),
}

/// What happens to the sums of a product before they are stored.
#[derive(Clone, Copy)]
pub(crate) enum Finish<'a> {
    /// Nothing.
    Plain,
    /// A bias is added, one number an output.
    Bias(&'a [f32]),
    /// A bias is added, and x Φ(x) taken.
    Gelu(&'a [f32]),
    /// The first of two matrices goes through silu and opens the second.
    SiluGate,
}

impl Matrix {
    /// Packs a weight of row-major values `[outputs, depth]` into memory of its own.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn pack(
        kernels: &'static Kernels,
        precision: Precision,
        values: &[f32],
        depth: usize,
    ) -> io::Result<Self> {
        let shape = [values.len() / depth, depth];
        let (arena, pool) = (&mut Arena::default(), Pool::alone());
        Self::pack_parts(kernels, precision, &[Values::Numbers(values)], shape, arena, pool)
    }

    /// Packs one weight, or two of one shape, to be multiplied with the same rows: their panels
    /// alternate.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn pack_parts(
        kernels: &'static Kernels,
        precision: Precision,
        parts: &[Values<'_>],
        [outputs, depth]: [usize; 2],
        arena: &mut Arena,
        pool: &Pool,
    ) -> io::Result<Self> {
        let width = kernels.width;
        let panels = outputs.div_ceil(width) * parts.len();
        let bytes = width * precision.bytes(depth);
        let scaled = if precision == Precision::Int8 { width } else { 0 };
        let mut matrix = Self {
            kernels,
            precision,
            outputs,
            parts: parts.len(),
            depth,
            weights: arena.zeros(panels * bytes)?,
            scales: vec![0.0; panels * scaled],
            sums: vec![0; panels * scaled],
        };
        let mut scratch = vec![vec![0.0; width * STRIP]; pool.threads()];
        pool.for_work(panels * bytes * PACK_COST).pieces_of_three(
            (&mut matrix.weights, bytes),
            (&mut matrix.scales, scaled),
            (&mut matrix.sums, scaled),
            &mut scratch,
            |panel, weights, scales, sums, scratch| {
                let first = panel / parts.len() * width;
                let lanes = width.min(outputs - first);
                let values = Panel { values: parts[panel % parts.len()], first, lanes, depth };
                match precision {
                    Precision::F32 => values.pack(
                        width,
                        bytemuck::cast_slice_mut::<u8, [f32; 1]>(weights),
                        scratch,
                        |_, value| value,
                    ),
                    Precision::Bf16 => values.pack(
                        width,
                        bytemuck::cast_slice_mut::<u8, [u16; 2]>(weights),
                        scratch,
                        |_, value| to_bf16(value),
                    ),
                    Precision::Int8 => {
                        values.scales(kernels.narrow_pairs, scales, scratch);
                        values.pack(
                            width,
                            bytemuck::cast_slice_mut::<u8, [i8; 4]>(weights),
                            scratch,
                            |lane, value| {
                                // Adding 1.5 · 2²³ rounds to a whole number, ties to even.
                                let level = (value / scales[lane] + 12_582_912.0) - 12_582_912.0;
                                let level = level as i8;
                                sums[lane] += i32::from(level);
                                level
                            },
                        );
                        values.mark_damage(scales, scratch);
                    }
                    Precision::Int4 => values.pack_int4(
                        width,
                        bytemuck::cast_slice_mut::<u8, u32>(weights),
                        scratch,
                    ),
                }
            },
        );
        Ok(matrix)
    }

    /// Inputs, filled up to whole groups.
    fn padded_depth(&self) -> usize {
        self.depth.next_multiple_of(self.precision.group())
    }

    /// Weights of one panel.
    fn panel_len(&self) -> usize {
        self.kernels.width * self.padded_depth()
    }

    /// A panel as it is packed.
    fn panel(&self, panel: usize) -> &[u8] {
        let bytes = self.kernels.width * self.precision.bytes(self.depth);
        &self.weights[panel * bytes..][..bytes]
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.parts * self.outputs * self.precision.bytes(self.depth)
    }

    /// Multiplications for one row.
    pub(crate) fn multiplications(&self) -> usize {
        self.parts * self.outputs * self.depth
    }

    /// In which form this weight takes activations.
    fn form(&self) -> Form {
        match (self.precision, self.kernels.product_bf16) {
            (Precision::F32, _) | (Precision::Bf16, Bf16Product::Wide(_)) => Form::F32,
            (Precision::Bf16, Bf16Product::Pairs(_)) => Form::Bf16,
            (Precision::Int8, _) => Form::Int8,
            (Precision::Int4, _) => Form::Int4,
        }
    }

    /// How a panel is widened for products with this many rows; the sums have the same bits
    /// either way.
    fn widening(&self, rows: usize) -> WideningWay {
        let wide = matches!(self.kernels.product_bf16, Bf16Product::Wide(_));
        match self.kernels.widening_bf16 {
            _ if !wide || self.precision != Precision::Bf16 => WideningWay::None,
            Some(widening) if rows > TILE_ROWS => WideningWay::FirstTile(widening),
            None if rows >= WIDENED_ROWS => WideningWay::Before,
            _ => WideningWay::None,
        }
    }

    /// Widens a panel.
    fn widen(&self, panel: usize, widened: &mut [f32]) {
        let panel = bytemuck::cast_slice(self.panel(panel));
        (self.kernels.rows.widen)(panel, self.kernels.width, widened);
    }

    /// What is fetched while one of a unit's tiles is multiplied with a panel: of a single tile,
    /// which waits for memory in any case, the weights a little further on; of several, together, the
    /// panel that the thread reads in its next unit.
    ///
    /// A tile whose panel has been widened takes a step as often as its f32 weights ask for.
    fn fetch(&self, panel: usize, (tile, tiles): (usize, usize), widened: bool) -> Fetch {
        let weights = self.panel(panel);
        let bytes = weights.len();
        let groups = match self.precision {
            Precision::Int4 => 1,
            _ => self.kernels.fetch_groups,
        };
        let step = groups * self.kernels.width * self.precision.bytes(self.precision.group());
        let lines = (step / CACHE_LINE).max(1);
        let lines = if widened { lines / 2 } else { lines };
        let share = lines.div_ceil(tiles);
        match tile {
            _ if tiles == 1 => Fetch::after(weights, FETCH_AHEAD, lines),
            _ if share == 0 => Fetch::NOTHING,
            tile if tile < lines / share => {
                let start = tile * bytes / (lines / share);
                Fetch::after(weights, self.parts * bytes + start, share)
            }
            _ => Fetch::NOTHING,
        }
    }

    /// One tile: some rows times one panel, which may have been widened.
    fn tile(
        &self,
        x: &Activations,
        rows: (usize, usize),
        panel: usize,
        widened: Widened<'_>,
        fetch: Fetch,
        tile: &mut [f32],
    ) {
        let (start, count) = rows;
        let packed = self.panel(panel);
        let (kernels, depth) = (self.kernels, self.padded_depth());
        match widened {
            Widened::Not => {}
            Widened::Now(widening, widened) => {
                let x = Rows::new(&x.f32[start * depth..], depth, count, depth);
                return widening(x, bytemuck::cast_slice(packed), fetch, widened, tile);
            }
            Widened::Before(widened) => {
                let x = Rows::new(&x.f32[start * depth..], depth, count, depth);
                return (kernels.product_f32)(x, widened, fetch, tile);
            }
        }
        match self.precision {
            Precision::F32 => {
                let x = Rows::new(&x.f32[start * depth..], depth, count, depth);
                (kernels.product_f32)(x, bytemuck::cast_slice(packed), fetch, tile);
            }
            Precision::Bf16 => {
                let weights = bytemuck::cast_slice(packed);
                match kernels.product_bf16 {
                    Bf16Product::Wide(product) => {
                        let x = Rows::new(&x.f32[start * depth..], depth, count, depth);
                        product(x, weights, fetch, tile);
                    }
                    Bf16Product::Pairs(product) => {
                        let x = Rows::new(&x.bf16[start * depth..], depth, count, depth);
                        product(x, weights, fetch, tile);
                    }
                }
            }
            Precision::Int8 => {
                let lanes = panel * kernels.width..(panel + 1) * kernels.width;
                let panel = Int8Panel {
                    weights: bytemuck::cast_slice(packed),
                    scales: &self.scales[lanes.clone()],
                    sums: &self.sums[lanes],
                };
                let rows = Rows::new(&x.int8[start * depth..], depth, count, depth);
                let scales = &x.scales[start..start + count];
                (kernels.product_int8)(rows, scales, panel, fetch, tile);
            }
            Precision::Int4 => {
                let groups = depth / INPUT_GROUP;
                let rows = Rows::new(&x.int4[start * groups..], groups, count, groups);
                let scales = &x.int4_scales[start..start + count];
                (kernels.product_int4)(rows, scales, bytemuck::cast_slice(packed), fetch, tile);
            }
        }
    }

    /// Multiplies rows with the weight.
    ///
    /// # Panics
    /// If the rows were prepared for another depth or precision.
    pub(crate) fn product(
        &self,
        pool: &Pool,
        x: &Activations,
        finish: Finish<'_>,
        out: &mut Outputs,
    ) {
        assert_eq!((x.depth, x.form), (self.depth, self.form()), "rows fit the weight");
        let width = self.kernels.width;
        let panels = self.outputs.div_ceil(width);
        // Few rows: a unit is a panel. Many: it is cut, so that every thread has several.
        let cuts = (4 * pool.threads()).div_ceil(panels).min(x.rows.div_ceil(TILE_ROWS)).max(1);
        let block = x.rows.div_ceil(cuts).next_multiple_of(if cuts > 1 { TILE_ROWS } else { 1 });
        let cuts = x.rows.div_ceil(block.max(1));
        out.shape(x.rows, self.outputs, width, cuts * block);
        let work = x.rows * self.multiplications();
        if out.scratch.len() < pool.threads() {
            out.scratch.resize_with(pool.threads(), Default::default);
        }
        pool.for_work(work).pieces(
            &mut out.values[..panels * cuts * block * width],
            block * width,
            &mut out.scratch,
            |unit, piece, ProductScratch { widened: [one, two], gated }| {
                let (panel, first) = (unit / cuts, unit % cuts * block);
                let rows = block.min(x.rows - first);
                let way = self.widening(rows);
                let mut widened = [&mut [][..], &mut [][..]];
                if !matches!(way, WideningWay::None) {
                    for (part, room) in [one, two].into_iter().enumerate().take(self.parts) {
                        grow(room, self.panel_len(), 0.0);
                        widened[part] = &mut room[..self.panel_len()];
                        if matches!(way, WideningWay::Before) {
                            self.widen(panel * self.parts + part, widened[part]);
                        }
                    }
                }
                // Tiles of nearly the same height, since a low one is as slow as a high one.
                let tiles = rows.div_ceil(TILE_ROWS);
                let mut done = 0;
                for tile_index in 0..tiles {
                    let count = (rows - done).div_ceil(tiles - tile_index);
                    let at = (first + done, count);
                    let piece = &mut piece[done * width..][..count * width];
                    for (part, room) in widened.iter_mut().enumerate().take(self.parts) {
                        let place = panel * self.parts + part;
                        // Where the first tile widens, the others fetch.
                        let (wide, fetch) = match way {
                            WideningWay::None => {
                                (Widened::Not, self.fetch(place, (tile_index, tiles), false))
                            }
                            WideningWay::Before => (Widened::Before(room), Fetch::NOTHING),
                            WideningWay::FirstTile(widening) if tile_index == 0 => {
                                (Widened::Now(widening, room), Fetch::NOTHING)
                            }
                            WideningWay::FirstTile(_) => {
                                let turn = (tile_index - 1, (tiles - 1).max(2));
                                (Widened::Before(room), self.fetch(place, turn, true))
                            }
                        };
                        let sums = match part {
                            0 => &mut *piece,
                            _ => &mut gated[..count * width],
                        };
                        self.tile(x, at, place, wide, fetch, sums);
                    }
                    if self.parts == 2 {
                        (self.kernels.rows.silu_gate)(piece, &gated[..count * width]);
                    }
                    if let Finish::Bias(bias) | Finish::Gelu(bias) = finish {
                        let lanes = panel * width..bias.len().min((panel + 1) * width);
                        for row in piece.chunks_exact_mut(width) {
                            for (value, bias) in row.iter_mut().zip(&bias[lanes.clone()]) {
                                *value += bias;
                            }
                        }
                    }
                    if let Finish::Gelu(_) = finish {
                        (self.kernels.rows.gelu)(piece);
                    }
                    done += count;
                }
            },
        );
        debug_assert_eq!(self.parts == 2, matches!(finish, Finish::SiluGate));
    }
}

/// Inputs of a panel that are packed together, a multiple of every group: those of all outputs
/// stay in the first-level cache.
const STRIP: usize = 64;

/// Products that take as long as packing a byte.
const PACK_COST: usize = 10;

/// The values of one panel before they are packed.
struct Panel<'a> {
    values: Values<'a>,
    /// Its first output.
    first: usize,
    /// How many outputs it has.
    lanes: usize,
    depth: usize,
}

impl Panel<'_> {
    /// Calls `each` with every piece of an output's inputs.
    fn read(&self, lane: usize, scratch: &mut [f32], mut each: impl FnMut(&[f32])) {
        let mut done = 0;
        while done < self.depth {
            let count = scratch.len().min(self.depth - done);
            self.values.read((self.first + lane) * self.depth + done, &mut scratch[..count]);
            each(&scratch[..count]);
            done += count;
        }
    }

    /// The scale of each output in 8 bits. For narrow pairs, two neighbours of one sign must be 127
    /// together before they are rounded: then they are 128 at most.
    fn scales(&self, narrow_pairs: bool, scales: &mut [f32], scratch: &mut [f32]) {
        for (lane, scale) in scales.iter_mut().enumerate().take(self.lanes) {
            let mut largest = 0f32;
            self.read(lane, scratch, |values| {
                largest = values.iter().fold(largest, |largest, value| largest.max(value.abs()));
                if narrow_pairs {
                    // What is read at once begins with a pair.
                    let pairs = values.as_chunks::<2>().0.iter();
                    let same_sign = pairs.filter(|[one, two]| one * two > 0.0);
                    largest = same_sign
                        .fold(largest, |largest, [one, two]| largest.max((one + two).abs()));
                }
            });
            *scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        }
    }

    /// Makes the scale of an output that holds what is no number no number either: in 8 bits such a
    /// weight becomes 0.
    fn mark_damage(&self, scales: &mut [f32], scratch: &mut [f32]) {
        for (lane, scale) in scales.iter_mut().enumerate().take(self.lanes) {
            self.read(lane, scratch, |values| {
                *scale += values.iter().fold(0.0, |sum, value| sum + 0.0 * value);
            });
        }
    }

    /// Writes the values into a panel `[groups, INT4_WORDS, width]`.
    fn pack_int4(&self, width: usize, packed: &mut [u32], scratch: &mut [f32]) {
        let strips = packed.chunks_mut(STRIP / INPUT_GROUP * INT4_WORDS * width);
        for (strip, packed) in strips.enumerate() {
            let start = strip * STRIP;
            let count = STRIP.min(self.depth - start);
            for (lane, row) in scratch.chunks_exact_mut(STRIP).take(self.lanes).enumerate() {
                self.values.read((self.first + lane) * self.depth + start, &mut row[..count]);
                for (group, row) in row[..count].chunks(INPUT_GROUP).enumerate() {
                    let packed = &mut packed[group * INT4_WORDS * width..];
                    for (word, bits) in round_to_int4(row).into_iter().enumerate() {
                        packed[word * width + lane] = bits;
                    }
                }
            }
        }
    }

    /// Writes the values into a panel `[groups, width]`, each made by `pack` of its output's number
    /// in the panel and the value.
    fn pack<T: Copy, const GROUP: usize>(
        &self,
        width: usize,
        packed: &mut [[T; GROUP]],
        scratch: &mut [f32],
        mut pack: impl FnMut(usize, f32) -> T,
    ) {
        for (strip, packed) in packed.chunks_mut(STRIP / GROUP * width).enumerate() {
            let start = strip * STRIP;
            let count = STRIP.min(self.depth - start);
            for (lane, row) in scratch.chunks_exact_mut(STRIP).take(self.lanes).enumerate() {
                self.values.read((self.first + lane) * self.depth + start, &mut row[..count]);
            }
            for (group, packed) in packed.chunks_exact_mut(width).enumerate() {
                let inputs = GROUP.min(count - group * GROUP);
                let rows = scratch.chunks_exact(STRIP).take(self.lanes);
                for ((lane, row), packed) in rows.enumerate().zip(packed) {
                    let values = &row[group * GROUP..][..inputs];
                    for (packed, &value) in packed.iter_mut().zip(values) {
                        *packed = pack(lane, value);
                    }
                }
            }
        }
    }
}

/// Rounds a group of weights of one output to 4 bits: its words in a panel.
///
/// Scale and minimum are those of the whole range, or of one that leaves out the ends and so is
/// finer, each followed by a least-squares fit to its levels; the nearer one counts.
fn round_to_int4(values: &[f32]) -> [u32; INT4_WORDS] {
    const HIGHEST: f32 = 15.0;
    const ROUND: f32 = 12_582_912.0;
    let count = values.len() as f32;
    let mut lowest = 0f32;
    let mut highest = 0f32;
    // Zero, unless something is infinite or no number; then so is the scale.
    let mut damage = 0f32;
    for &value in values {
        lowest = lowest.min(value);
        highest = highest.max(value);
        damage += 0.0 * value;
    }
    let levels = |scale: f32, minimum: f32| {
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        let mut levels = [0f32; INPUT_GROUP];
        for (level, value) in levels.iter_mut().zip(values) {
            let exact = ((value - minimum) * inverse).clamp(0.0, HIGHEST);
            *level = (exact + ROUND) - ROUND;
        }
        levels
    };
    let mut best = ([0f32; INPUT_GROUP], 0u16, 0u16);
    let mut least = f32::INFINITY;
    for share in [1.0, 0.85] {
        let rough = levels((highest - lowest) * share / HIGHEST, lowest * share);
        let (mut of_levels, mut of_values, mut squares, mut products) = (0.0, 0.0, 0.0, 0.0);
        for (level, value) in rough.iter().zip(values) {
            of_levels += level;
            of_values += value;
            squares += level * level;
            products += level * value;
        }
        let variance = count * squares - of_levels * of_levels;
        let covariance = count * products - of_levels * of_values;
        let scale = if variance > 0.0 { covariance / variance } else { 0.0 };
        let scale_bits = to_bf16(scale.max(0.0));
        let scale = from_bf16(scale_bits);
        let minimum_bits = to_bf16((of_values - scale * of_levels) / count);
        let minimum = from_bf16(minimum_bits);
        let fine = levels(scale, minimum);
        let mut error = 0.0;
        for (level, value) in fine.iter().zip(values) {
            let difference = level * scale + minimum - value;
            error += difference * difference;
        }
        if error < least {
            least = error;
            best = (fine, scale_bits, minimum_bits);
        }
    }
    let (levels, scale, minimum) = best;
    let scale = to_bf16(from_bf16(scale) + damage);
    let mut words = [0; INT4_WORDS];
    for (word, levels) in words.iter_mut().zip(levels.as_chunks::<8>().0) {
        let (lower, upper) = levels.split_at(4);
        let byte = |index: usize| lower[index] as u8 | (upper[index] as u8) << 4;
        *word = u32::from_le_bytes(std::array::from_fn(byte));
    }
    words[INT4_WORDS - 1] = u32::from(scale) | u32::from(minimum) << 16;
    words
}

/// Bytes that memory and caches exchange at once.
const CACHE_LINE: usize = 64;

/// How far ahead of its use a weight is fetched into the cache, in bytes.
const FETCH_AHEAD: usize = 2048;

/// Rows from which on widening a panel costs less than it saves.
const WIDENED_ROWS: usize = 8 * TILE_ROWS;

/// Products that take as long as rounding a number and what comes before it.
const ROW_COST: usize = 40;

/// How activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F32,
    Bf16,
    Int8,
    Int4,
}

/// Rows that are multiplied with weights, in the form that these take.
pub(crate) struct Activations {
    form: Form,
    rows: usize,
    depth: usize,
    f32: Vec<f32>,
    bf16: Vec<u16>,
    int8: Vec<u8>,
    scales: Vec<RowScale>,
    int4: Vec<InputGroup>,
    int4_scales: Vec<f32>,
    /// A row in f32 for each thread, and for 4-bit weights its levels.
    scratch: Vec<Vec<f32>>,
}

/// Makes a vector as long as it must be; it never becomes shorter.
pub(crate) fn grow<T: Clone>(values: &mut Vec<T>, length: usize, value: T) {
    if values.len() < length {
        values.resize(length, value);
    }
}

impl Activations {
    pub(crate) fn new(pool: &Pool) -> Self {
        Self {
            form: Form::F32,
            rows: 0,
            depth: 0,
            f32: Vec::new(),
            bf16: Vec::new(),
            int8: Vec::new(),
            scales: Vec::new(),
            int4: Vec::new(),
            int4_scales: Vec::new(),
            scratch: vec![Vec::new(); pool.threads()],
        }
    }

    /// Takes `rows` rows of `depth` numbers, each written by `fill`, for products with `matrix`.
    pub(crate) fn set(
        &mut self,
        pool: &Pool,
        matrix: &Matrix,
        rows: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.set_from(pool, matrix, rows, (&mut [], 0), |row, _, out| fill(row, out));
    }

    /// Like [`set`](Self::set), from pieces: `each` calls what it is given with every piece of a row and how many
    /// numbers came before it.
    pub(crate) fn set_pieces(
        &mut self,
        pool: &Pool,
        matrix: &Matrix,
        rows: usize,
        each: impl Fn(usize, &mut dyn FnMut(usize, &[f32])) + Sync,
    ) {
        if matrix.form() != Form::Bf16 {
            return self.set(pool, matrix, rows, |row, out| {
                each(row, &mut |done, piece| out[done..done + piece.len()].copy_from_slice(piece));
            });
        }
        // Numbers that are rounded one by one need not be brought together before.
        let (depth, padded) = (matrix.depth, matrix.padded_depth());
        (self.form, self.rows, self.depth) = (Form::Bf16, rows, depth);
        grow(&mut self.bf16, rows * padded, 0);
        let (values, scratch) = (&mut self.bf16[..rows * padded], &mut self.scratch);
        pool.for_work(rows * depth * ROW_COST).pieces(values, padded, scratch, |row, out, _| {
            each(row, &mut |done, piece| {
                (matrix.kernels.rows.round)(piece, &mut out[done..done + piece.len()]);
            });
            out[depth..].fill(0);
        });
    }

    /// Like [`set`](Self::set), from rows of some length, which `fill` may change.
    pub(crate) fn set_from(
        &mut self,
        pool: &Pool,
        matrix: &Matrix,
        rows: usize,
        from: (&mut [f32], usize),
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let (depth, padded) = (matrix.depth, matrix.padded_depth());
        let kernels = &matrix.kernels.rows;
        (self.form, self.rows, self.depth) = (matrix.form(), rows, depth);
        let pool = pool.for_work(rows * depth * ROW_COST);
        let scratch = &mut self.scratch;
        match self.form {
            Form::F32 => {
                grow(&mut self.f32, rows * padded, 0.0);
                let values = (&mut self.f32[..rows * padded], padded);
                pool.pieces_of_two(values, from, scratch, |row, piece, from, _| {
                    fill(row, from, &mut piece[..depth]);
                    piece[depth..].fill(0.0);
                });
            }
            Form::Bf16 => {
                grow(&mut self.bf16, rows * padded, 0);
                let values = (&mut self.bf16[..rows * padded], padded);
                pool.pieces_of_two(values, from, scratch, |row, piece, from, scratch| {
                    grow(scratch, depth, 0.0);
                    fill(row, from, &mut scratch[..depth]);
                    (kernels.round)(&scratch[..depth], &mut piece[..depth]);
                    piece[depth..].fill(0);
                });
            }
            Form::Int4 => {
                let groups = padded / INPUT_GROUP;
                grow(&mut self.int4, rows * groups, InputGroup::ZERO);
                grow(&mut self.int4_scales, rows, 0.0);
                let values = (&mut self.int4[..rows * groups], groups);
                let scales = (&mut self.int4_scales[..rows], 1);
                pool.pieces_of_three(
                    values,
                    scales,
                    from,
                    scratch,
                    |row, piece, scale, from, scratch| {
                        let length = depth + depth.div_ceil(4);
                        grow(scratch, length, 0.0);
                        let (numbers, levels) = scratch[..length].split_at_mut(depth);
                        let levels: &mut [i8] = bytemuck::cast_slice_mut(levels);
                        let levels = &mut levels[..depth];
                        fill(row, from, numbers);
                        scale[0] = (kernels.quantize_evenly)(numbers, levels);
                        for (group, levels) in piece.iter_mut().zip(levels.chunks(INPUT_GROUP)) {
                            *group = InputGroup::new(levels);
                        }
                    },
                );
            }
            Form::Int8 => {
                grow(&mut self.int8, rows * padded, 0);
                grow(&mut self.scales, rows, RowScale { scale: 1.0, zero: 0 });
                let values = (&mut self.int8[..rows * padded], padded);
                let scales = (&mut self.scales[..rows], 1);
                pool.pieces_of_three(
                    values,
                    scales,
                    from,
                    scratch,
                    |row, piece, scale, from, scratch| {
                        grow(scratch, depth, 0.0);
                        fill(row, from, &mut scratch[..depth]);
                        scale[0] = (kernels.quantize)(&scratch[..depth], &mut piece[..depth]);
                        piece[depth..].fill(0);
                    },
                );
            }
        }
    }
}

/// Results of a product: for each panel its rows, one after the other. So every panel is one
/// piece of memory, which one thread writes.
#[derive(Default)]
pub(crate) struct Outputs {
    values: Vec<f32>,
    rows: usize,
    width: usize,
    /// Rows that there is room for in a panel.
    stride: usize,
    outputs: usize,
    /// One for each thread.
    scratch: Vec<ProductScratch>,
}

/// A thread's memory for products.
struct ProductScratch {
    /// Panels that it has widened.
    widened: [Vec<f32>; 2],
    /// What is gated.
    gated: Box<Tile>,
}

impl Default for ProductScratch {
    fn default() -> Self {
        Self { widened: Default::default(), gated: Box::new([0.0; _]) }
    }
}

impl Outputs {
    fn shape(&mut self, rows: usize, outputs: usize, width: usize, stride: usize) {
        (self.rows, self.outputs, self.width, self.stride) = (rows, outputs, width, stride);
        grow(&mut self.values, outputs.div_ceil(width) * stride * width, 0.0);
    }

    /// Calls `each` with pieces of a row's numbers from `start` on, `length` of them in all, and
    /// how many came before.
    #[inline]
    pub(crate) fn row(
        &self,
        row: usize,
        start: usize,
        length: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) {
        debug_assert!(row < self.rows && start + length <= self.outputs);
        let mut done = 0;
        while done < length {
            let (panel, lane) = ((start + done) / self.width, (start + done) % self.width);
            let count = (self.width - lane).min(length - done);
            let at = (panel * self.stride + row) * self.width + lane;
            each(done, &self.values[at..at + count]);
            done += count;
        }
    }

    /// A row's numbers from `start` on, as they lie here, or copied together where they are in
    /// several panels.
    #[inline]
    pub(crate) fn get<'a>(&'a self, row: usize, start: usize, copy: &'a mut [f32]) -> &'a [f32] {
        let (panel, lane) = (start / self.width, start % self.width);
        if lane + copy.len() <= self.width {
            let at = (panel * self.stride + row) * self.width + lane;
            return &self.values[at..at + copy.len()];
        }
        self.copy(row, start, copy);
        copy
    }

    /// Copies a row's numbers from `start` on.
    pub(crate) fn copy(&self, row: usize, start: usize, out: &mut [f32]) {
        self.row(row, start, out.len(), |done, piece| {
            out[done..done + piece.len()].copy_from_slice(piece);
        });
    }

    /// Calls `each` with all pieces of a row and how many numbers came before.
    pub(crate) fn each(&self, row: usize, each: &mut dyn FnMut(usize, &[f32])) {
        self.row(row, 0, self.outputs, each);
    }

    /// Adds the rows to rows of `width` numbers, such as a residual stream.
    pub(crate) fn add_to_all(&self, pool: &Pool, rows: &mut [f32], width: usize) {
        // A number that another thread has computed costs about as much as twenty products.
        let pool = pool.for_work(20 * rows.len());
        // Nothing to remember between rows, so nothing is allocated.
        let mut scratch = vec![(); pool.threads()];
        pool.pieces(rows, width, &mut scratch, |row, x, ()| self.add_to(row, x));
    }

    /// Adds a row's numbers.
    pub(crate) fn add_to(&self, row: usize, out: &mut [f32]) {
        self.row(row, 0, out.len(), |done, piece| {
            for (out, value) in out[done..].iter_mut().zip(piece) {
                *out += value;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokens::noise::{Noise, Purpose};

    use super::*;

    fn numbers(count: usize, address: u64) -> Vec<f32> {
        let mut noise = Noise::new(address, Purpose::Initialization, 0, 0);
        (0..count).map(|_| noise.normal() as f32).collect()
    }

    fn all(outputs: &Outputs) -> Vec<Vec<f32>> {
        let row = |row| {
            let mut values = vec![0.0; outputs.outputs];
            outputs.copy(row, 0, &mut values);
            values
        };
        (0..outputs.rows).map(row).collect()
    }

    /// Rows times weights in f64.
    fn exact(x: &[f32], weights: &[f32], depth: usize) -> Vec<Vec<f64>> {
        let dot = |x: &[f32], weights: &[f32]| {
            x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
        };
        x.chunks(depth)
            .map(|x| weights.chunks(depth).map(|weights| dot(x, weights)).collect())
            .collect()
    }

    const PRECISIONS: [(Precision, f64); 4] = [
        (Precision::F32, 1e-5),
        (Precision::Bf16, 0.03),
        (Precision::Int8, 0.05),
        (Precision::Int4, 0.5),
    ];

    #[test]
    fn should_round_groups_to_4_bits_as_near_as_their_range_allows() {
        let of_words = |words: [u32; INT4_WORDS], index: usize| {
            let level = words[index / 8] >> (8 * (index % 4) + index / 4 % 2 * 4) & 15;
            let ends = words[INT4_WORDS - 1];
            level as f32 * from_bf16(ends as u16) + from_bf16((ends >> 16) as u16)
        };
        for count in [1, 2, 7, INPUT_GROUP] {
            for address in 0..50 {
                let values = numbers(count, 100 + address);
                let words = round_to_int4(&values);
                let range = values.iter().fold(0f32, |most, &value| most.max(value))
                    - values.iter().fold(0f32, |least, &value| least.min(value));
                let errors = (0..count).map(|index| (of_words(words, index) - values[index]).abs());
                let mean = errors.sum::<f32>() / count as f32;
                assert!(mean < 0.3 * range / 15.0 + 0.01 * range, "{mean} of {range}");
            }
        }
        // Levels that are there already come back, and so does nothing.
        let exact: Vec<f32> = (0..INPUT_GROUP).map(|i| 0.5 * (i % 16) as f32 - 2.0).collect();
        let words = round_to_int4(&exact);
        assert!((0..INPUT_GROUP).all(|index| of_words(words, index) == exact[index]));
        assert_eq!(round_to_int4(&[0.0; INPUT_GROUP]), [0; INT4_WORDS]);
        assert!(of_words(round_to_int4(&[1.0, f32::INFINITY]), 0).is_nan());
    }

    #[test]
    fn should_multiply_any_shape_in_any_precision_on_any_number_of_threads() {
        for kernels in Kernels::available() {
            for (rows, depth, outputs) in
                [(1, 1, 1), (1, 30, 65), (7, 33, 64), (13, 64, 7), (64, 97, 130), (200, 20, 70)]
            {
                let (x, weights) = (numbers(rows * depth, 1), numbers(outputs * depth, 2));
                let bias = numbers(outputs, 3);
                let exact = exact(&x, &weights, depth);
                for (precision, tolerance) in PRECISIONS {
                    let matrix = Matrix::pack(kernels, precision, &weights, depth).unwrap();
                    let mut before: Option<Vec<Vec<f32>>> = None;
                    for threads in [1, 3] {
                        let pool = Pool::new(threads);
                        let mut activations = Activations::new(&pool);
                        activations.set(&pool, &matrix, rows, |row, out| {
                            out.copy_from_slice(&x[row * depth..][..depth]);
                        });
                        let mut out = Outputs::default();
                        matrix.product(&pool, &activations, Finish::Bias(&bias), &mut out);
                        let got = all(&out);
                        for (got, exact) in got.iter().zip(&exact) {
                            for ((&got, exact), &bias) in got.iter().zip(exact).zip(&bias) {
                                let error = (f64::from(got) - exact - f64::from(bias)).abs();
                                let size = (depth as f64).sqrt();
                                assert!(
                                    error < tolerance * size,
                                    "{kernels:?} {precision:?} {error}"
                                );
                            }
                        }
                        assert!(before.as_ref().is_none_or(|before| *before == got));
                        before = Some(got);
                    }
                }
            }
        }
    }

    #[test]
    fn should_give_a_row_the_same_bits_among_any_number_of_rows() {
        let (depth, outputs) = (100, 150);
        let (x, weights) = (numbers(64 * depth, 4), numbers(outputs * depth, 5));
        let pool = Pool::new(2);
        for (precision, _) in PRECISIONS {
            let matrix =
                Matrix::pack(Kernels::chosen().unwrap(), precision, &weights, depth).unwrap();
            let run = |first: usize, rows: usize| {
                let mut activations = Activations::new(&pool);
                activations.set(&pool, &matrix, rows, |row, out| {
                    out.copy_from_slice(&x[(first + row) * depth..][..depth]);
                });
                let mut out = Outputs::default();
                matrix.product(&pool, &activations, Finish::Plain, &mut out);
                all(&out)
            };
            let together = run(0, 64);
            for rows in [1, 2, 5, 8, 33] {
                assert_eq!(run(7, rows), together[7..7 + rows], "{precision:?} {rows}");
            }
        }
    }

    #[test]
    fn should_take_rows_in_pieces_and_give_them_back() {
        let (rows, depth, outputs) = (5, 90, 150);
        let (x, weights) = (numbers(rows * depth, 10), numbers(outputs * depth, 11));
        let pool = Pool::new(2);
        for kernels in Kernels::available() {
            for (precision, _) in PRECISIONS {
                let matrix = Matrix::pack(kernels, precision, &weights, depth).unwrap();
                let product = |activations: &Activations| {
                    let mut out = Outputs::default();
                    matrix.product(&pool, activations, Finish::Plain, &mut out);
                    out
                };
                let mut activations = Activations::new(&pool);
                activations.set(&pool, &matrix, rows, |row, out| {
                    out.copy_from_slice(&x[row * depth..][..depth]);
                });
                let whole = product(&activations);
                activations.set_pieces(&pool, &matrix, rows, |row, put| {
                    for (piece, numbers) in x[row * depth..][..depth].chunks(16).enumerate() {
                        put(16 * piece, numbers);
                    }
                });
                let expected = all(&whole);
                assert_eq!(all(&product(&activations)), expected, "{kernels:?} {precision:?}");

                // Within a panel and over its end.
                let mut copy = [0.0; 48];
                for (row, expected) in expected.iter().enumerate() {
                    for start in [0, 16, 48, 63, 102] {
                        let got = whole.get(row, start, &mut copy);
                        assert_eq!(got, &expected[start..start + 48], "{kernels:?} {start}");
                    }
                }
            }
        }
    }

    #[test]
    fn should_keep_neighbouring_int8_weights_small_enough_for_16_bits() {
        let depth = 70;
        // Neighbours of one sign and equal size are the hardest to keep, and rounding up adds to it.
        let mut weights = numbers(40 * depth, 12);
        weights[..depth].fill(0.3);
        weights[depth..2 * depth].fill(-7.0);
        weights[2 * depth..3 * depth].iter_mut().enumerate().for_each(|(index, weight)| {
            *weight = if index % 2 == 0 { 63.5 } else { 63.499 };
        });
        for kernels in Kernels::available().into_iter().filter(|kernels| kernels.narrow_pairs) {
            let matrix = Matrix::pack(kernels, Precision::Int8, &weights, depth).unwrap();
            let packed: &[i8] = bytemuck::cast_slice(&matrix.weights);
            let mut largest = 0;
            for [one, two] in packed.as_chunks::<2>().0 {
                let (one, two) = (i32::from(*one), i32::from(*two));
                assert!(one * two <= 0 || (one + two).abs() <= 128, "{one} {two}");
                largest = largest.max(one.abs()).max(two.abs());
            }
            assert!(largest > 100, "the range is used");
        }
    }

    #[test]
    fn should_gate_one_matrix_by_another() {
        let (rows, depth, outputs) = (9, 40, 100);
        let (x, gate, up) =
            (numbers(rows * depth, 6), numbers(outputs * depth, 7), numbers(outputs * depth, 8));
        let (gates, ups) = (exact(&x, &gate, depth), exact(&x, &up, depth));
        let pool = Pool::new(2);
        for kernels in Kernels::available() {
            let matrix = Matrix::pack_parts(
                kernels,
                Precision::F32,
                &[Values::Numbers(&gate), Values::Numbers(&up)],
                [outputs, depth],
                &mut Arena::default(),
                &pool,
            )
            .unwrap();
            let mut activations = Activations::new(&pool);
            activations.set(&pool, &matrix, rows, |row, out| {
                out.copy_from_slice(&x[row * depth..][..depth]);
            });
            let mut out = Outputs::default();
            matrix.product(&pool, &activations, Finish::SiluGate, &mut out);
            for (row, got) in all(&out).into_iter().enumerate() {
                for (output, got) in got.into_iter().enumerate() {
                    let gate = gates[row][output];
                    let expected = gate / (1.0 + (-gate).exp()) * ups[row][output];
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 1e-4 * (1.0 + expected.abs()), "{got} {expected}");
                }
            }
        }
    }

    #[test]
    fn should_keep_a_damaged_weight_visible() {
        let mut weights = numbers(20, 9);
        weights[13] = f32::NAN;
        let pool = Pool::new(1);
        for (precision, _) in PRECISIONS {
            let matrix = Matrix::pack(Kernels::chosen().unwrap(), precision, &weights, 10).unwrap();
            let mut activations = Activations::new(&pool);
            activations.set(&pool, &matrix, 1, |_, out| out.fill(1.0));
            let mut out = Outputs::default();
            matrix.product(&pool, &activations, Finish::Plain, &mut out);
            let got = all(&out).remove(0);
            assert!(got[0].is_finite() && got[1].is_nan(), "{precision:?} {got:?}");
        }
    }
}
