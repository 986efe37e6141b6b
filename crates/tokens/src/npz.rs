//! Arrays for NumPy, several in one `.npz` file.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

use npyz::{AutoSerialize, DType, NpyFile, NpyWriter, Order, TypeStr, WriteOptions, WriterBuilder};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::files;

/// Most bytes of an array's own header, which says its type and shape.
const MAX_HEADER: u64 = 1 << 16;

/// An `.npz` file that is being written.
pub struct Arrays<W: Write + Seek> {
    archive: ZipWriter<W>,
}

/// Writes a file of arrays, whole or not at all.
///
/// # Errors
/// If `add` or the operating system fails.
pub fn write(
    path: &Path,
    add: impl FnOnce(&mut Arrays<&mut BufWriter<&File>>) -> io::Result<()>,
) -> io::Result<()> {
    files::write_file(path, |file| write_to(file, add))
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

/// Reads an array of integers of any width: its shape, and its values in row-major order.
///
/// # Errors
/// If there is no such array in the file, it has more than `limit` values, is no array of
/// integers in row-major order, or the file is damaged.
pub fn read_integers(path: &Path, name: &str, limit: usize) -> io::Result<(Vec<u64>, Vec<i64>)> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut entry = archive.by_name(&format!("{name}.npy"))?;
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let limit = 8 * limit as u64 + MAX_HEADER;
    if entry.size() > limit {
        return Err(invalid(format!("`{name}` takes {} bytes, {limit} at most", entry.size())));
    }
    // To its end, where the archive's checksum is compared, before anything is made of it.
    let mut bytes = Vec::new();
    (&mut entry).take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(invalid(format!("`{name}` is larger than the archive says")));
    }
    let array = NpyFile::new(&bytes[..])?;
    if array.order() != Order::C {
        return Err(invalid(format!("`{name}` is stored column by column")));
    }
    let shape = array.shape().to_vec();
    let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent));
    if count.is_none_or(|count| count > bytes.len() as u64) {
        return Err(invalid(format!("`{name}` is shorter than its shape says")));
    }
    let kind = array.dtype().descr();
    macro_rules! read_as {
        ($array:ident, $($integer:ty),+) => {{
            $(let $array = match $array.try_data::<$integer>() {
                Ok(values) => {
                    let values: io::Result<Vec<i64>> =
                        values.map(|value| value.map(i64::from)).collect();
                    return Ok((shape, values?));
                }
                Err(array) => array,
            };)+
            let _other = $array;
        }};
    }
    read_as!(array, i64, u16, i32, u32, i16, u8, i8);
    Err(invalid(format!("`{name}` is an array of {kind}, not of integers")))
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
