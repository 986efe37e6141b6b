//! JPEG files, decoded to the bits of libjpeg-turbo.
//!
//! The standard leaves the rounding of the inverse transform, the enlarging of subsampled colour
//! and the conversion of colours to the decoder. Tokens are made from pixels, so they should not
//! depend on the library: this decoder follows libjpeg-turbo's default path, which Pillow and
//! with it the released code use: the "islow" transform (`jidctint.c`), "fancy" upsampling
//! (`jdsample.c`), and the fixed-point conversion (`jdcolor.c`).
//!
//! Baseline, extended and progressive files of 8 bits with Huffman codes, of one, three or four
//! components. Where libjpeg warns and makes up what is missing (cut or wrong entropy-coded data),
//! this decoder fails: made-up pixels are not to be learned from.

mod color;
mod huffman;
mod scan;
mod transform;

use std::ops::Range;

use numerics::vectorized;

use super::{Decoded, Failure, check_size};
use color::Conversion;
use huffman::Table;
use transform::Inverse;

/// Why a file does not decode.
type Reason = &'static str;

/// Position in a block, row by row, of each coefficient in the order of the file.
const NATURAL_ORDER: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Most scans of a file. Usual ones have ten; a small file of many can take very long.
const MAX_SCANS: usize = 500;

/// The coefficients of 8 × 8 samples, row by row.
type Block = [i16; 64];

/// One colour component.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Sampling factors.
    horizontal: usize,
    vertical: usize,
    quantization: usize,
    /// The table that counts for this component, as of its first scan.
    quantizer: Option<[u16; 64]>,
    /// Size in samples.
    width: usize,
    height: usize,
    /// Size in blocks, without and with those that fill the last unit up.
    blocks: (usize, usize),
    padded: (usize, usize),
    /// Of a progressive file, until all scans are read.
    coefficients: Vec<Block>,
    /// How many low bits of each coefficient are still to come; negative for all of them.
    missing_bits: [i8; 64],
    /// `[8 · padded.1, 8 · padded.0]`
    samples: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    horizontal: usize,
    vertical: usize,
    components: Vec<Component>,
}

impl Frame {
    /// Number of units (the blocks of all components that belong together) across and down.
    fn units(&self) -> (usize, usize) {
        (self.width.div_ceil(8 * self.horizontal), self.height.div_ceil(8 * self.vertical))
    }
}

/// A JPEG file whose header has been read.
struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    frame: Frame,
    quantization: [Option<[u16; 64]>; 4],
    dc_tables: [Option<Box<Table>>; 4],
    ac_tables: [Option<Box<Table>>; 4],
    restart_interval: usize,
    jfif: bool,
    adobe_transform: Option<u8>,
    exif: Option<Range<usize>>,
}

mod marker {
    pub(super) const START_OF_IMAGE: u8 = 0xD8;
    pub(super) const END_OF_IMAGE: u8 = 0xD9;
    pub(super) const START_OF_SCAN: u8 = 0xDA;
    pub(super) const QUANTIZATION: u8 = 0xDB;
    pub(super) const RESTART_INTERVAL: u8 = 0xDD;
    pub(super) const HUFFMAN: u8 = 0xC4;
    pub(super) const ARITHMETIC: u8 = 0xCC;
    pub(super) const JFIF: u8 = 0xE0;
    pub(super) const EXIF: u8 = 0xE1;
    pub(super) const ADOBE: u8 = 0xEE;
}

const ENDS_EARLY: Reason = "the JPEG data end before their end marker";
const BAD_SEGMENT: Reason = "a JPEG segment has an impossible length or value";

/// The pixels of the file.
pub(super) fn decode(bytes: &[u8], most_pixels: usize) -> Result<Decoded, Failure> {
    let decoder = Decoder::new(bytes).map_err(Failure::damaged)?;
    let (width, height) = decoder.size();
    check_size(width, height, most_pixels)?;
    let exif = decoder.exif().map(<[u8]>::to_vec);
    let rgb = decoder.decode().map_err(Failure::damaged)?;
    Ok(Decoded { width, height, rgb, exif })
}

impl<'a> Decoder<'a> {
    /// Reads the file up to its frame header.
    fn new(bytes: &'a [u8]) -> Result<Self, Reason> {
        if !bytes.starts_with(&[0xFF, marker::START_OF_IMAGE]) {
            return Err("it does not begin with a JPEG marker");
        }
        let frame = Frame {
            progressive: false,
            width: 0,
            height: 0,
            horizontal: 1,
            vertical: 1,
            components: Vec::new(),
        };
        let mut decoder = Self {
            bytes,
            position: 2,
            frame,
            quantization: [None; 4],
            dc_tables: [const { None }; 4],
            ac_tables: [const { None }; 4],
            restart_interval: 0,
            jfif: false,
            adobe_transform: None,
            exif: None,
        };
        while decoder.frame.components.is_empty() {
            let marker = decoder.next_marker()?;
            if matches!(marker, marker::START_OF_SCAN | marker::END_OF_IMAGE) {
                return Err("the JPEG file has no frame before its first scan");
            }
            decoder.segment(marker)?;
        }
        Ok(decoder)
    }

    /// Width and height in pixels.
    fn size(&self) -> (usize, usize) {
        (self.frame.width, self.frame.height)
    }

    /// The content of the first Exif segment so far, behind its name.
    fn exif(&self) -> Option<&'a [u8]> {
        self.exif.clone().map(|range| &self.bytes[range])
    }

    /// The pixels, `[height, width, 3]`.
    fn decode(mut self) -> Result<Vec<u8>, Reason> {
        let conversion = self.conversion()?;
        for component in &mut self.frame.components {
            let (across, down) = component.padded;
            component.samples = vec![0; 64 * across * down];
            if self.frame.progressive {
                component.coefficients = vec![[0; 64]; across * down];
            }
        }
        let mut scans = 0;
        loop {
            match self.next_marker()? {
                marker::END_OF_IMAGE => break,
                marker::START_OF_SCAN => {
                    scans += 1;
                    if scans > MAX_SCANS {
                        return Err("the JPEG file has too many scans");
                    }
                    if scans == 1 && !self.frame.progressive {
                        self.add_standard_tables()?;
                    }
                    let header = self.segment_bytes()?;
                    self.scan(header)?;
                }
                marker => self.segment(marker)?,
            }
        }
        for component in &mut self.frame.components {
            let Some(quantizer) = &component.quantizer else {
                return Err("a colour component of the JPEG file has no scan");
            };
            if self.frame.progressive {
                // libjpeg would smooth what is known coarsely.
                if component.missing_bits[..10].iter().any(|&bits| bits != 0) {
                    return Err("scans of the progressive JPEG file are missing");
                }
                let coefficients = std::mem::take(&mut component.coefficients);
                let samples = &mut component.samples;
                let (blocks, across) = (&coefficients[..], component.padded.0);
                vectorized(Inverse { blocks, across, quantizer, samples });
            }
        }
        Ok(color::convert(&self.frame, conversion))
    }

    /// The next marker; what stands before it is passed over, as libjpeg does.
    fn next_marker(&mut self) -> Result<u8, Reason> {
        loop {
            let rest = self.bytes.get(self.position..).unwrap_or_default();
            let at = rest.iter().position(|&byte| byte == 0xFF).ok_or(ENDS_EARLY)?;
            match rest.get(at + 1) {
                None => return Err(ENDS_EARLY),
                Some(0xFF) => self.position += at + 1,
                // Escaped data, and restart markers that belong to a scan.
                Some(0 | 1 | 0xD0..=0xD7) => self.position += at + 2,
                Some(&marker) => {
                    self.position += at + 2;
                    return Ok(marker);
                }
            }
        }
    }

    /// The content of the segment that starts here, behind which reading goes on.
    fn segment_bytes(&mut self) -> Result<&'a [u8], Reason> {
        let rest = &self.bytes[self.position..];
        let &[high, low, ..] = rest else { return Err(ENDS_EARLY) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(BAD_SEGMENT);
        }
        let content = rest.get(2..length).ok_or(ENDS_EARLY)?;
        self.position += length;
        Ok(content)
    }

    fn segment(&mut self, marker: u8) -> Result<(), Reason> {
        if marker == marker::START_OF_IMAGE {
            return Err("the JPEG file begins twice");
        }
        let content = self.segment_bytes()?;
        match marker {
            marker::QUANTIZATION => self.read_quantization(content),
            marker::HUFFMAN => self.read_huffman(content),
            marker::ARITHMETIC => Err("JPEG with arithmetic coding is not supported"),
            marker::RESTART_INTERVAL => {
                let &[high, low] = content else { return Err(BAD_SEGMENT) };
                self.restart_interval = usize::from(u16::from_be_bytes([high, low]));
                Ok(())
            }
            0xC0..=0xC2 => self.read_frame(marker == 0xC2, content),
            0xC3 | 0xC5..=0xCF => {
                Err("lossless, hierarchical and arithmetic JPEG are not supported")
            }
            marker::JFIF => {
                self.jfif |= content.starts_with(b"JFIF\0");
                Ok(())
            }
            marker::EXIF => {
                if self.exif.is_none() && content.starts_with(b"Exif\0\0") {
                    let start = self.position - content.len() + 6;
                    self.exif = Some(start..self.position);
                }
                Ok(())
            }
            marker::ADOBE => {
                if content.starts_with(b"Adobe") && content.len() >= 12 {
                    self.adobe_transform = Some(content[11]);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_quantization(&mut self, mut content: &[u8]) -> Result<(), Reason> {
        while let Some((&kind, rest)) = content.split_first() {
            let (wide, slot) = (kind >> 4 != 0, usize::from(kind & 15));
            let size = if wide { 128 } else { 64 };
            let (values, rest) = rest.split_at_checked(size).ok_or(BAD_SEGMENT)?;
            let mut table = [0; 64];
            for (index, &natural) in NATURAL_ORDER.iter().enumerate() {
                table[usize::from(natural)] = if wide {
                    u16::from_be_bytes([values[2 * index], values[2 * index + 1]])
                } else {
                    u16::from(values[index])
                };
            }
            *self.quantization.get_mut(slot).ok_or(BAD_SEGMENT)? = Some(table);
            content = rest;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut content: &[u8]) -> Result<(), Reason> {
        while let Some((&kind, rest)) = content.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or(BAD_SEGMENT)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or(BAD_SEGMENT)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc_tables,
                1 => &mut self.ac_tables,
                _ => return Err(BAD_SEGMENT),
            };
            let slot = tables.get_mut(usize::from(kind & 15)).ok_or(BAD_SEGMENT)?;
            *slot = Some(Box::new(Table::new(counts, symbols)?));
            content = rest;
        }
        Ok(())
    }

    /// Puts the tables that the standard recommends where the file has none, as libjpeg-turbo does
    /// (`std_huff_tables`): frames of motion JPEG leave them out.
    fn add_standard_tables(&mut self) -> Result<(), Reason> {
        for slot in 0..2 {
            let tables = [
                (&mut self.dc_tables[slot], huffman::STANDARD_DC[slot]),
                (&mut self.ac_tables[slot], huffman::STANDARD_AC[slot]),
            ];
            for (table, (counts, symbols)) in tables {
                if table.is_none() {
                    *table = Some(Box::new(Table::new(counts, symbols)?));
                }
            }
        }
        Ok(())
    }

    fn read_frame(&mut self, progressive: bool, content: &[u8]) -> Result<(), Reason> {
        if !self.frame.components.is_empty() {
            return Err("the JPEG file has two frames");
        }
        let &[precision, y1, y0, x1, x0, count, ref components @ ..] = content else {
            return Err(BAD_SEGMENT);
        };
        if precision != 8 {
            return Err("only JPEG of 8 bits is supported");
        }
        let height = usize::from(u16::from_be_bytes([y1, y0]));
        let width = usize::from(u16::from_be_bytes([x1, x0]));
        if width == 0 || height == 0 {
            return Err("the JPEG file does not say its size");
        }
        if components.len() != 3 * usize::from(count) {
            return Err(BAD_SEGMENT);
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err("JPEG files have one, three or four colour components");
        }
        let factors = components.chunks_exact(3).map(|c| (c[1] >> 4, c[1] & 15));
        if factors.clone().any(|(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(BAD_SEGMENT);
        }
        let horizontal = usize::from(factors.clone().map(|(h, _)| h).max().unwrap_or(1));
        let vertical = usize::from(factors.map(|(_, v)| v).max().unwrap_or(1));
        let units = (width.div_ceil(8 * horizontal), height.div_ceil(8 * vertical));
        let mut list = Vec::with_capacity(usize::from(count));
        for component in components.chunks_exact(3) {
            let (h, v) = (usize::from(component[1] >> 4), usize::from(component[1] & 15));
            if horizontal % h != 0 || vertical % v != 0 {
                return Err("JPEG with colour at a fraction of the sampling is not supported");
            }
            let (own_width, own_height) =
                ((width * h).div_ceil(horizontal), (height * v).div_ceil(vertical));
            if list.iter().any(|other: &Component| other.id == component[0]) {
                return Err("two JPEG components have the same number");
            }
            list.push(Component {
                id: component[0],
                horizontal: h,
                vertical: v,
                quantization: usize::from(component[2]),
                quantizer: None,
                width: own_width,
                height: own_height,
                blocks: (own_width.div_ceil(8), own_height.div_ceil(8)),
                padded: (units.0 * h, units.1 * v),
                coefficients: Vec::new(),
                missing_bits: [-1; 64],
                samples: Vec::new(),
            });
        }
        self.frame = Frame { progressive, width, height, horizontal, vertical, components: list };
        Ok(())
    }

    /// Which colours the components are, by the rules of libjpeg (`default_decompress_parms`).
    fn conversion(&self) -> Result<Conversion, Reason> {
        let ids: Vec<u8> = self.frame.components.iter().map(|component| component.id).collect();
        Ok(match (&ids[..], self.adobe_transform) {
            ([_], _) => Conversion::Grey,
            ([_, _, _], _) if self.jfif => Conversion::YCbCr,
            ([_, _, _], Some(0)) | ([b'R', b'G', b'B'], None) => Conversion::Rgb,
            ([_, _, _], _) => Conversion::YCbCr,
            (_, None | Some(0)) => Conversion::Cmyk,
            (_, Some(_)) => Conversion::Ycck,
        })
    }
}
