//! What stands before the numbers of a NumPy array, and the numbers themselves.
//!
//! The header is a Python dictionary in text: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`
//! (`numpy.lib.format`, versions 1 to 3). What is read here is that form and no more of Python.

use std::io::{self, Read, Write};

/// Most bytes of a header's text; as many as NumPy reads.
pub(crate) const MAX_HEADER: u64 = 10_000;
/// Most dimensions, as in NumPy.
const MAX_DIMENSIONS: usize = 64;
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// How numbers are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    big_endian: bool,
    /// NumPy's letter: `i`, `u`, `f`, `b`, `U` and others.
    letter: char,
    /// Bytes of a number; of texts, characters.
    size: usize,
    /// As the header says it.
    pub(crate) text: String,
}

impl Kind {
    /// Reads `<i8`, `|u1`, `>f4` and so on.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.chars();
        let big_endian = match rest.next()? {
            '<' | '|' => false,
            '>' => true,
            '=' => cfg!(target_endian = "big"),
            _ => return None,
        };
        let letter = rest.next().filter(char::is_ascii_alphabetic)?;
        // Times have a unit in brackets behind their size.
        let digits: String = rest.take_while(char::is_ascii_digit).collect();
        let size = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        Some(Self { big_endian, letter, size, text: text.to_owned() })
    }

    /// Whether the numbers are bytes from 0 to 255.
    pub(crate) fn is_bytes(&self) -> bool {
        (self.letter, self.size) == ('u', 1)
    }

    /// The first `count` numbers of `bytes`, if they are integers; `None` if they are something else.
    ///
    /// # Errors
    /// If there are fewer, or one is larger than an `i64` holds.
    pub(crate) fn integers(&self, bytes: &[u8], count: usize) -> Option<io::Result<Vec<i64>>> {
        Some(match (self.letter, self.size) {
            ('i', 1) => self.numbers(bytes, count, |bytes| i64::from(i8::from_le_bytes(bytes))),
            ('i', 2) => self.numbers(bytes, count, |bytes| i64::from(i16::from_le_bytes(bytes))),
            ('i', 4) => self.numbers(bytes, count, |bytes| i64::from(i32::from_le_bytes(bytes))),
            ('i', 8) => self.numbers(bytes, count, i64::from_le_bytes),
            ('u', 1) => self.numbers(bytes, count, |bytes| i64::from(u8::from_le_bytes(bytes))),
            ('u', 2) => self.numbers(bytes, count, |bytes| i64::from(u16::from_le_bytes(bytes))),
            ('u', 4) => self.numbers(bytes, count, |bytes| i64::from(u32::from_le_bytes(bytes))),
            ('u', 8) => self.numbers(bytes, count, u64::from_le_bytes).and_then(|values| {
                let signed = values.into_iter().map(i64::try_from).collect::<Result<_, _>>();
                signed.map_err(|_| invalid("it holds numbers beyond 2^63"))
            }),
            _ => return None,
        })
    }

    /// The first `count` numbers of `bytes`, if they are floating-point numbers; `None` if they are
    /// something else.
    ///
    /// # Errors
    /// If there are fewer.
    pub(crate) fn floats(&self, bytes: &[u8], count: usize) -> Option<io::Result<Vec<f64>>> {
        Some(match (self.letter, self.size) {
            ('f', 2) => {
                self.numbers(bytes, count, |bytes| half::f16::from_le_bytes(bytes).to_f64())
            }
            ('f', 4) => self.numbers(bytes, count, |bytes| f64::from(f32::from_le_bytes(bytes))),
            ('f', 8) => self.numbers(bytes, count, f64::from_le_bytes),
            _ => return None,
        })
    }

    fn numbers<const SIZE: usize, T>(
        &self,
        bytes: &[u8],
        count: usize,
        number: impl Fn([u8; SIZE]) -> T,
    ) -> io::Result<Vec<T>> {
        let (numbers, _) = bytes.as_chunks::<SIZE>();
        let numbers =
            numbers.get(..count).ok_or_else(|| invalid("it is shorter than its shape"))?;
        let ordered = |&(mut bytes): &[u8; SIZE]| {
            if self.big_endian {
                bytes.reverse();
            }
            number(bytes)
        };
        Ok(numbers.iter().map(ordered).collect())
    }
}

/// What stands before the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    /// Whether the first index runs fastest.
    pub(crate) column_major: bool,
    pub(crate) shape: Vec<u64>,
}

impl Header {
    /// Reads a header, and nothing behind it.
    ///
    /// # Errors
    /// If the reader fails, or there is no header of a plain array.
    pub(crate) fn read(reader: &mut impl Read) -> io::Result<Self> {
        let mut start = [0; 8];
        reader.read_exact(&mut start)?;
        let [.., version, _] = start;
        if !start.starts_with(MAGIC) || !(1..=3).contains(&version) {
            return Err(invalid("it is no array of NumPy"));
        }
        // From version 2 on, four bytes say how long the text is.
        let mut length = [0; 4];
        reader.read_exact(&mut length[..if version == 1 { 2 } else { 4 }])?;
        let length = u64::from(u32::from_le_bytes(length));
        let mut text = Vec::new();
        if length > MAX_HEADER || reader.take(length).read_to_end(&mut text)? as u64 != length {
            return Err(invalid("its header is cut or damaged"));
        }
        let text = String::from_utf8(text).map_err(|_| invalid("its header is damaged"))?;
        Text { rest: &text }.header().ok_or_else(|| {
            let text: String = text.trim_end().chars().take(100).collect();
            invalid(&format!("its header is none of a plain array: {text}"))
        })
    }

    /// The bytes of a header for numbers of this kind in row-major order.
    pub(crate) fn write(kind: &str, shape: &[u64], writer: &mut impl Write) -> io::Result<()> {
        let mut extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
        if shape.len() > 1 {
            extents.truncate(extents.len() - 2);
        } else {
            // A comma makes a tuple of a number.
            extents.truncate(extents.trim_end().len());
        }
        let mut text =
            format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({extents}), }}");
        // The numbers begin at a multiple of 64 bytes.
        let before = MAGIC.len() + 4;
        let filled = (before + text.len() + 1).next_multiple_of(64) - before;
        text += &" ".repeat(filled - text.len() - 1);
        text.push('\n');
        let length = u16::try_from(text.len()).map_err(io::Error::other)?;
        writer.write_all(MAGIC)?;
        writer.write_all(&[1, 0])?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(text.as_bytes())
    }
}

/// A number that arrays are written of.
pub trait Number: Copy {
    /// NumPy's name of its kind.
    #[doc(hidden)]
    const KIND: &'static str;

    /// Writes its bytes, the lowest first.
    #[doc(hidden)]
    fn write(self, writer: &mut impl Write) -> io::Result<()>;
}

macro_rules! numbers {
    ($($kind:literal: $number:ty),+) => {$(
        impl Number for $number {
            const KIND: &'static str = $kind;

            fn write(self, writer: &mut impl Write) -> io::Result<()> {
                writer.write_all(&self.to_le_bytes())
            }
        }
    )+};
}

numbers!("|u1": u8, "<u2": u16, "<i4": i32, "<i8": i64, "<f4": f32, "<f8": f64);

/// What is left of a header's text.
struct Text<'a> {
    rest: &'a str,
}

impl Text<'_> {
    fn header(mut self) -> Option<Header> {
        let (mut kind, mut column_major, mut shape) = (None, None, None);
        self.require('{')?;
        while !self.takes('}') {
            let key = self.string()?;
            self.require(':')?;
            match key.as_str() {
                "descr" if kind.is_none() => kind = Some(Kind::parse(&self.string()?)?),
                "fortran_order" if column_major.is_none() => column_major = Some(self.truth()?),
                "shape" if shape.is_none() => shape = Some(self.shape()?),
                _ => return None,
            }
            if !self.takes(',') {
                self.require('}')?;
                break;
            }
        }
        let is_at_end = self.rest.trim_start().is_empty();
        is_at_end.then_some(Header { kind: kind?, column_major: column_major?, shape: shape? })
    }

    /// Whether a sign comes next, which is taken.
    fn takes(&mut self, sign: char) -> bool {
        let rest = self.rest.trim_start();
        let taken = rest.strip_prefix(sign);
        self.rest = taken.unwrap_or(rest);
        taken.is_some()
    }

    fn require(&mut self, sign: char) -> Option<()> {
        self.takes(sign).then_some(())
    }

    fn string(&mut self) -> Option<String> {
        let quote = if self.takes('\'') { '\'' } else { '"' };
        if quote == '"' {
            self.require(quote)?;
        }
        let (string, rest) = self.rest.split_once(quote)?;
        self.rest = rest;
        // No name of a kind has one.
        (!string.contains('\\')).then(|| string.to_owned())
    }

    fn truth(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_start();
        let (truth, rest) = match self.rest.strip_prefix("True") {
            Some(rest) => (true, rest),
            None => (false, self.rest.strip_prefix("False")?),
        };
        self.rest = rest;
        Some(truth)
    }

    fn shape(&mut self) -> Option<Vec<u64>> {
        let mut shape = Vec::new();
        self.require('(')?;
        while !self.takes(')') {
            self.rest = self.rest.trim_start();
            let digits = self.rest.find(|sign: char| !sign.is_ascii_digit())?;
            let (number, rest) = self.rest.split_at(digits);
            shape.push(number.parse().ok().filter(|_| shape.len() < MAX_DIMENSIONS)?);
            // Python 2 wrote long integers so.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if !self.takes(',') {
                self.require(')')?;
                break;
            }
        }
        Some(shape)
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Header> {
        Text { rest: text }.header()
    }

    #[test]
    fn should_write_headers_as_numpy_does() {
        // `numpy.save` of NumPy 2.4 for arrays of these shapes, in hexadecimal where no text.
        for (kind, shape, text) in [
            ("<i8", &[3, 4][..], "{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }"),
            ("|u1", &[7], "{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }"),
            ("<f8", &[], "{'descr': '<f8', 'fortran_order': False, 'shape': (), }"),
        ] {
            let mut bytes = Vec::new();
            Header::write(kind, shape, &mut bytes).unwrap();
            assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00", "{kind}");
            assert_eq!(bytes.len(), 128);
            assert_eq!(String::from_utf8_lossy(&bytes[10..]).trim_end(), text);
            assert!(bytes.ends_with(b" \n"));
            let header = Header::read(&mut &bytes[..]).unwrap();
            assert_eq!((header.kind.text.as_str(), header.column_major), (kind, false));
            assert_eq!(header.shape, shape);
        }
    }

    #[test]
    fn should_read_every_spelling_of_a_header() {
        let expected =
            parse("{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }").unwrap();
        for text in [
            "{'shape': (3, 4), 'descr': '<i8', 'fortran_order': False}",
            "{\"descr\": \"<i8\", 'fortran_order':False,'shape':(3,4,),}   \n",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3L, 4L), }",
        ] {
            assert_eq!(parse(text), Some(expected.clone()), "{text}");
        }
        let text = "{'descr': '>f4', 'fortran_order': True, 'shape': (5,), }";
        let header = parse(text).unwrap();
        assert!(header.column_major && header.kind.big_endian);
        assert_eq!(
            header.kind.floats(&[0x3f, 0x80, 0, 0, 0x40, 0, 0, 0], 2).unwrap().unwrap(),
            [1.0, 2.0]
        );
    }

    #[test]
    fn should_refuse_what_is_no_plain_array() {
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<i8', 'fortran_order': False}",
            "{'descr': '<i8', 'descr': '<i8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<i8', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (1 2)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (18446744073709551616,)}",
            "{'descr': [('a', '<i8')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)} + f()",
            "{'descr': 'é', 'fortran_order': False, 'shape': (1,)}",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn should_read_numbers_of_every_width() {
        let kind = |text: &str| Kind::parse(text).unwrap();
        let integers = |text: &str, bytes: &[u8]| kind(text).integers(bytes, 1).unwrap();
        assert_eq!(integers("|i1", &[0xff]).unwrap(), [-1]);
        assert_eq!(integers("|u1", &[0xff]).unwrap(), [255]);
        assert_eq!(integers("<i2", &[0xfe, 0xff]).unwrap(), [-2]);
        assert_eq!(integers(">u2", &[1, 2]).unwrap(), [258]);
        assert_eq!(integers("<i4", &[0xfd, 0xff, 0xff, 0xff]).unwrap(), [-3]);
        assert_eq!(integers("<u4", &[0xff; 4]).unwrap(), [0xffff_ffff]);
        assert_eq!(integers("<i8", &[0xff; 8]).unwrap(), [-1]);
        assert_eq!(integers("<u8", &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap(), [1]);
        assert!(integers("<u8", &[0xff; 8]).is_err());
        assert!(integers("<i4", &[0; 3]).is_err());
        assert_eq!(kind("<f2").floats(&[0, 0x3e], 1).unwrap().unwrap(), [1.5]);
        assert_eq!(kind("<f8").floats(&1.25f64.to_le_bytes(), 1).unwrap().unwrap(), [1.25]);
        assert!(kind("<f4").integers(&[0; 4], 1).is_none());
        assert!(kind("<i4").floats(&[0; 4], 1).is_none());
        assert!(kind("|b1").integers(&[0; 4], 1).is_none());
        assert!(kind("<M8[ns]").integers(&[0; 8], 1).is_none());
    }
}
