//! Huffman codes and the bits they are read from.

use super::Reason;

/// How many bits are looked up at once; longer codes are rare.
const LOOKUP_BITS: u32 = 10;

/// The counts of codes of each length, and the symbols, of a table.
type Standard = (&'static [u8; 16], &'static [u8]);

/// The tables for the means of blocks that Annex K.3 of the standard (ITU-T T.81) recommends: K.3
/// for brightness and K.4 for colour.
pub(super) const STANDARD_DC: [Standard; 2] = [
    (&[0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    (&[0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
];

/// The tables for all other coefficients: K.5 for brightness and K.6 for colour.
pub(super) const STANDARD_AC: [Standard; 2] = [
    (
        &[0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
        &[
            1, 2, 3, 0, 4, 17, 5, 18, 33, 49, 65, 6, 19, 81, 97, 7, 34, 113, 20, 50, 129, 145, 161,
            8, 35, 66, 177, 193, 21, 82, 209, 240, 36, 51, 98, 114, 130, 9, 10, 22, 23, 24, 25, 26,
            37, 38, 39, 40, 41, 42, 52, 53, 54, 55, 56, 57, 58, 67, 68, 69, 70, 71, 72, 73, 74, 83,
            84, 85, 86, 87, 88, 89, 90, 99, 100, 101, 102, 103, 104, 105, 106, 115, 116, 117, 118,
            119, 120, 121, 122, 131, 132, 133, 134, 135, 136, 137, 138, 146, 147, 148, 149, 150,
            151, 152, 153, 154, 162, 163, 164, 165, 166, 167, 168, 169, 170, 178, 179, 180, 181,
            182, 183, 184, 185, 186, 194, 195, 196, 197, 198, 199, 200, 201, 202, 210, 211, 212,
            213, 214, 215, 216, 217, 218, 225, 226, 227, 228, 229, 230, 231, 232, 233, 234, 241,
            242, 243, 244, 245, 246, 247, 248, 249, 250,
        ],
    ),
    (
        &[0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
        &[
            0, 1, 2, 3, 17, 4, 5, 33, 49, 6, 18, 65, 81, 7, 97, 113, 19, 34, 50, 129, 8, 20, 66,
            145, 161, 177, 193, 9, 35, 51, 82, 240, 21, 98, 114, 209, 10, 22, 36, 52, 225, 37, 241,
            23, 24, 25, 26, 38, 39, 40, 41, 42, 53, 54, 55, 56, 57, 58, 67, 68, 69, 70, 71, 72, 73,
            74, 83, 84, 85, 86, 87, 88, 89, 90, 99, 100, 101, 102, 103, 104, 105, 106, 115, 116,
            117, 118, 119, 120, 121, 122, 130, 131, 132, 133, 134, 135, 136, 137, 138, 146, 147,
            148, 149, 150, 151, 152, 153, 154, 162, 163, 164, 165, 166, 167, 168, 169, 170, 178,
            179, 180, 181, 182, 183, 184, 185, 186, 194, 195, 196, 197, 198, 199, 200, 201, 202,
            210, 211, 212, 213, 214, 215, 216, 217, 218, 226, 227, 228, 229, 230, 231, 232, 233,
            234, 242, 243, 244, 245, 246, 247, 248, 249, 250,
        ],
    ),
];

/// A Huffman code.
#[derive(Debug)]
pub(super) struct Table {
    /// By the next bits: the symbol in the upper byte, the code's length in the lower; 0 for
    /// codes that are longer.
    lookup: [u16; 1 << LOOKUP_BITS],
    /// By the next bits, where the whole coefficient is in them: its value in the upper 16 bits,
    /// the zeros before it in the next 8, the length of code and value in the lowest 8; else 0.
    coefficients: [i32; 1 << LOOKUP_BITS],
    /// For each length, the first code behind those of this length, left-aligned in 16 bits.
    ends: [u32; 17],
    /// For each length, what to add to a code to get the place of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// The code with `counts[n − 1]` symbols of n bits.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, Reason> {
        let mut table = Self {
            lookup: [0; 1 << LOOKUP_BITS],
            coefficients: [0; 1 << LOOKUP_BITS],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            table.offsets[length as usize] = place as i32 - code as i32;
            for &symbol in &symbols[place..place + count] {
                if code >> length != 0 {
                    return Err("a JPEG Huffman table has too many codes");
                }
                if length <= LOOKUP_BITS {
                    let spare = LOOKUP_BITS - length;
                    let first = (code << spare) as usize;
                    let entry = u16::from(symbol) << 8 | length as u16;
                    table.lookup[first..first + (1 << spare)].fill(entry);
                }
                code += 1;
            }
            place += count;
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for bits in 0..1u32 << LOOKUP_BITS {
            let entry = table.lookup[bits as usize];
            let (symbol, length) = (entry >> 8, u32::from(entry & 255));
            let (zeros, size) = (i32::from(symbol >> 4), u32::from(symbol & 15));
            if length != 0 && size != 0 && length + size <= LOOKUP_BITS {
                let magnitude = bits >> (LOOKUP_BITS - length - size) & ((1 << size) - 1);
                let value = extend(magnitude, size);
                table.coefficients[bits as usize] =
                    value << 16 | zeros << 8 | (length + size) as i32;
            }
        }
        Ok(table)
    }
}

/// The number that `size` bits of a file stand for: the upper half of their range is positive.
#[inline(always)]
fn extend(bits: u32, size: u32) -> i32 {
    // Below half of the range: bits − (2^size − 1).
    let below = (bits as i32) - (1 << size) + 1;
    if size == 0 || bits >> (size - 1) == 0 {
        if size == 0 { 0 } else { below }
    } else {
        bits as i32
    }
}

/// The bits of an entropy-coded segment, without its escapes.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The next bits, from the top; what is below the first `count` is repeated by the next fill.
    buffer: u64,
    count: u32,
    /// Zeros that were put behind the end of the segment.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position, buffer: 0, count: 0, padding: 0 }
    }

    /// Where the marker behind the segment can be looked for.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Whether more bits were read than there are.
    #[inline(always)]
    pub(super) fn overrun(&self) -> bool {
        self.padding > self.count
    }

    /// Makes at least 48 bits available.
    #[inline(always)]
    fn fill(&mut self) {
        if let Some(&chunk) = self.bytes.get(self.position..).and_then(|rest| rest.first_chunk()) {
            let next = u64::from_be_bytes(chunk);
            let has_ff =
                (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 != 0;
            if !has_ff {
                self.buffer |= next >> self.count;
                let taken = (63 - self.count) >> 3;
                self.position += taken as usize;
                self.count += 8 * taken;
                return;
            }
        }
        self.fill_carefully();
    }

    #[cold]
    fn fill_carefully(&mut self) {
        // Bits that a fast fill left below the count would be counted twice.
        self.buffer &= !(u64::MAX.checked_shr(self.count).unwrap_or(0));
        while self.count <= 56 {
            let byte = match self.bytes.get(self.position..) {
                Some([0xFF, 0, ..]) => {
                    self.position += 2;
                    0xFF
                }
                // A marker, or the end of the file.
                Some([0xFF, ..] | []) | None => {
                    self.padding += 8;
                    0
                }
                Some([byte, ..]) => {
                    self.position += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn consume(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// The next symbol; at least 32 bits must be there, of which at most 16 are taken.
    #[inline(always)]
    fn symbol_unfilled(&mut self, table: &Table) -> Result<u8, Reason> {
        let entry = table.lookup[(self.buffer >> (64 - LOOKUP_BITS)) as usize];
        if entry != 0 {
            self.consume(u32::from(entry & 255));
            return Ok((entry >> 8) as u8);
        }
        let code = (self.buffer >> 48) as u32;
        for length in LOOKUP_BITS + 1..=16 {
            if code < table.ends[length as usize] {
                let place = (code >> (16 - length)) as i32 + table.offsets[length as usize];
                self.consume(length);
                return table.symbols.get(place as usize).copied().ok_or(BAD_CODE);
            }
        }
        Err(BAD_CODE)
    }

    /// The next symbol.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, Reason> {
        if self.count < 32 {
            self.fill();
        }
        self.symbol_unfilled(table)
    }

    /// The next `size` ≤ 16 bits.
    #[inline(always)]
    pub(super) fn take(&mut self, size: u32) -> u32 {
        if self.count < 16 {
            self.fill();
        }
        self.take_unfilled(size)
    }

    #[inline(always)]
    fn take_unfilled(&mut self, size: u32) -> u32 {
        // In two shifts, because size may be 0.
        let bits = (self.buffer >> 1 >> (63 - size)) as u32;
        self.consume(size);
        bits
    }

    /// The next bit.
    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.take(1) == 1
    }

    /// A difference of DC coefficients.
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &Table) -> Result<i32, Reason> {
        let size = u32::from(self.symbol(table)?);
        if size > 15 {
            return Err(BAD_CODE);
        }
        let bits = self.take(size);
        Ok(extend(bits, size))
    }

    /// The next AC symbol: the zeros before the coefficient, the size of the coefficient in bits,
    /// and its value (0 where the size is 0).
    #[inline(always)]
    pub(super) fn coefficient(&mut self, table: &Table) -> Result<(usize, u32, i32), Reason> {
        if self.count < 32 {
            self.fill();
        }
        let entry = table.coefficients[(self.buffer >> (64 - LOOKUP_BITS)) as usize];
        if entry != 0 {
            self.consume((entry & 255) as u32);
            return Ok(((entry >> 8 & 255) as usize, 1, entry >> 16));
        }
        let symbol = self.symbol_unfilled(table)?;
        let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        let bits = self.take_unfilled(size);
        Ok((zeros, size, extend(bits, size)))
    }

    /// Goes on behind the restart marker with this number, 0 to 7.
    pub(super) fn restart(&mut self, number: u8) -> Result<(), Reason> {
        if self.overrun() {
            return Err(NO_BITS);
        }
        // What stands before the marker is passed over, as libjpeg does.
        loop {
            match self.bytes.get(self.position..) {
                Some([0xFF, marker, ..]) if !matches!(marker, 0 | 0xFF) => {
                    if *marker != 0xD0 + number {
                        return Err("a restart marker of the JPEG data is missing");
                    }
                    *self = Self::new(self.bytes, self.position + 2);
                    return Ok(());
                }
                Some([_, _, ..]) => self.position += 1,
                _ => return Err(NO_BITS),
            }
        }
    }
}

/// The data hold a code that their table does not know.
pub(super) const BAD_CODE: Reason = "the JPEG data hold a code that means nothing";
/// The data of a scan are shorter than its blocks.
pub(super) const NO_BITS: Reason = "the JPEG data of a scan end too early";
