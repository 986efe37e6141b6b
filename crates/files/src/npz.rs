//! Arrays for NumPy, several in one `.npz` file.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

use npyz::{
    AutoSerialize, DType, NpyFile, NpyHeader, NpyWriter, Order, TypeStr, WriteOptions,
    WriterBuilder,
};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Most bytes of an array's own header, which says its type and shape; as many as NumPy reads.
const MAX_HEADER: u64 = 10_000;

/// An `.npz` file that is being written.
pub struct Arrays<W: Write + Seek> {
    archive: ZipWriter<W>,
}

/// Writes a file of arrays, whole or not at all.
///
/// # Errors
/// If `add` or the operating system fails.
#[cfg(feature = "write")]
pub fn write(
    path: &Path,
    add: impl FnOnce(&mut Arrays<&mut BufWriter<&File>>) -> io::Result<()>,
) -> io::Result<()> {
    crate::write_file(path, |file| write_to(file, add))
}

/// Writes arrays into a file that is open.
///
/// # Errors
/// If `add` or the operating system fails.
pub fn write_to<W: Write + Seek>(
    file: W,
    add: impl FnOnce(&mut Arrays<W>) -> io::Result<()>,
) -> io::Result<()> {
    let mut arrays = Arrays { archive: ZipWriter::new(file) };
    add(&mut arrays)?;
    arrays.archive.finish()?.flush()
}

/// The values of an array as the first type, from the first of the others that it holds; else its
/// own type.
macro_rules! convert {
    ($array:ident, $to:ty, $($from:ty),+) => {{
        $(let $array = match $array.try_data::<$from>() {
            Ok(values) => return Ok(values.map(|value| value.map(<$to>::from)).collect()),
            Err(array) => array,
        };)+
        Err($array.dtype())
    }};
}

/// An `.npz` file that is being read. Whatever the file holds, reading it gives an array or an
/// error, and takes no more memory than the caller allows.
pub struct ArchiveReader {
    archive: ZipArchive<BufReader<File>>,
}

impl ArchiveReader {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read or is no archive.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 20, File::open(path)?);
        Ok(Self { archive: ZipArchive::new(file)? })
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.archive.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// An array of integers of any width: its shape, and its values in row-major order.
    ///
    /// # Errors
    /// If there is no such array in the file, it has more than `limit` values, is no array of
    /// integers in row-major order, or the file is damaged.
    pub fn integers(&mut self, name: &str, limit: usize) -> io::Result<(Vec<u64>, Vec<i64>)> {
        self.read(name, limit, "integers", |array| {
            convert!(array, i64, i64, u16, i32, u32, i16, u8, i8)
        })
    }

    /// An array of floating-point numbers in single or double precision: its shape, and its values
    /// in row-major order.
    ///
    /// # Errors
    /// As [`integers`](Self::integers).
    pub fn floats(&mut self, name: &str, limit: usize) -> io::Result<(Vec<u64>, Vec<f64>)> {
        self.read(name, limit, "floating-point numbers", |array| convert!(array, f64, f64, f32))
    }

    /// An array of bytes that is read piece by piece: its shape, and what gives its values in
    /// row-major order. Reading to the end checks them against the archive's checksum.
    ///
    /// # Errors
    /// If there is no such array in the file, it is no array of bytes in row-major order, or the
    /// file is damaged.
    pub fn bytes(&mut self, name: &str) -> io::Result<(Vec<u64>, impl Read)> {
        let mut entry = self.archive.by_name(&format!("{name}.npy"))?;
        let array = NpyFile::with_header(header(name, &mut entry)?, io::empty());
        let shape = array.shape().to_vec();
        match array.try_data::<u8>() {
            Ok(_) => Ok((shape, entry)),
            Err(array) => Err(other_kind(name, &array.dtype(), "bytes")),
        }
    }

    fn read<T>(
        &mut self,
        name: &str,
        limit: usize,
        wanted: &str,
        convert: impl FnOnce(NpyFile<&[u8]>) -> Result<io::Result<Vec<T>>, DType>,
    ) -> io::Result<(Vec<u64>, Vec<T>)> {
        let mut entry = self.archive.by_name(&format!("{name}.npy"))?;
        let limit = 8 * limit as u64 + MAX_HEADER;
        if entry.size() > limit {
            let reason = format!("`{name}` takes {} bytes, {limit} at most", entry.size());
            return Err(invalid(reason));
        }
        // To its end, where the archive's checksum is compared, before anything is made of it.
        let mut bytes = Vec::new();
        (&mut entry).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(invalid(format!("`{name}` is larger than the archive says")));
        }
        let mut rest = &bytes[..];
        let header = header(name, &mut rest)?;
        let shape = header.shape().to_vec();
        let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent));
        if count.is_none_or(|count| count > rest.len() as u64) {
            return Err(invalid(format!("`{name}` is shorter than its shape says")));
        }
        match convert(NpyFile::with_header(header, rest)) {
            Ok(values) => Ok((shape, values?)),
            Err(kind) => Err(other_kind(name, &kind, wanted)),
        }
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn other_kind(name: &str, kind: &DType, wanted: &str) -> io::Error {
    invalid(format!("`{name}` is an array of {}, not of {wanted}", kind.descr()))
}

/// The header of an array in row-major order.
fn header(name: &str, reader: &mut impl Read) -> io::Result<NpyHeader> {
    let mut bytes = vec![0; 10];
    reader.read_exact(&mut bytes)?;
    let mut length = u64::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    // From version 2 on, four bytes say how long the text is.
    if bytes[6] > 1 {
        let mut upper = [0; 2];
        reader.read_exact(&mut upper)?;
        length |= u64::from(u16::from_le_bytes(upper)) << 16;
        bytes.extend(upper);
    }
    let text = bytes.len();
    if length > MAX_HEADER || reader.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(invalid(format!("the header of `{name}` is cut or damaged")));
    }
    // The parser goes down into brackets without end and multiplies whatever numbers there are.
    let count = |kind: fn(&u8) -> bool| bytes[text..].iter().filter(|byte| kind(byte)).count();
    if count(|byte| b"([{".contains(byte)) > 16 || count(u8::is_ascii_digit) > 19 {
        return Err(invalid(format!("the header of `{name}` is none of a plain array")));
    }
    let header = NpyHeader::from_reader(&bytes[..])?;
    if header.order() != Order::C {
        return Err(invalid(format!("`{name}` is stored column by column")));
    }
    Ok(header)
}

impl<W: Write + Seek> Arrays<W> {
    /// Begins an array, uncompressed and without a time.
    fn begin(&mut self, name: &str) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(true);
        Ok(self.archive.start_file(format!("{name}.npy"), options)?)
    }

    /// Adds an array of numbers, in row-major order.
    ///
    /// # Errors
    /// If the operating system fails, or there are not as many values as the shape says.
    pub fn add<T: AutoSerialize>(
        &mut self,
        name: &str,
        shape: &[u64],
        values: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        self.add_pieces(name, shape, std::iter::once(Ok(values)))
    }

    /// Adds an array of numbers that come piece by piece.
    ///
    /// # Errors
    /// As [`add`](Self::add), and those of the pieces.
    pub fn add_pieces<T: AutoSerialize>(
        &mut self,
        name: &str,
        shape: &[u64],
        pieces: impl IntoIterator<Item = io::Result<impl IntoIterator<Item = T>>>,
    ) -> io::Result<()> {
        self.begin(name)?;
        let options = WriteOptions::new().default_dtype().shape(shape);
        let mut writer: NpyWriter<T, _> =
            options.writer(BufWriter::new(&mut self.archive)).begin_nd()?;
        for piece in pieces {
            writer.extend(piece?)?;
        }
        writer.finish()
    }

    /// Adds texts, as an array of fixed width, which no reader needs to unpickle.
    ///
    /// # Errors
    /// If the operating system fails.
    pub fn add_texts(&mut self, name: &str, texts: &[String]) -> io::Result<()> {
        let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        let kind: TypeStr = format!("<U{width}").parse().map_err(io::Error::other)?;
        self.begin(name)?;
        let shape = [texts.len() as u64];
        let options = WriteOptions::new().dtype(DType::Plain(kind)).shape(&shape);
        let mut writer: NpyWriter<str, _> =
            options.writer(BufWriter::new(&mut self.archive)).begin_nd()?;
        for text in texts {
            writer.push(text.as_str())?;
        }
        writer.finish()
    }
}
