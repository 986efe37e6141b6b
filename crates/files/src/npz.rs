//! Arrays for NumPy, several in one `.npz` file.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

use zip::{
    CompressionMethod, DateTime, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions,
};

use crate::{
    archive::{self, Latched},
    kind,
    npy::{Header, Kind, MAX_HEADER},
};

pub use crate::npy::Number;

/// Most bytes of an array that is stored column by column and read piece by piece, because it has to be
/// in memory as a whole.
const MAX_REORDERED: u64 = 1 << 30;

/// An `.npz` file that is being written.
pub struct Arrays<'a, W: Write + Seek> {
    archive: &'a mut ZipWriter<Latched<W>>,
}

/// Writes a file of arrays, whole or not at all.
///
/// # Errors
/// If `add` or the operating system fails.
#[cfg(feature = "write")]
pub fn write(
    path: &Path,
    add: impl FnOnce(&mut Arrays<'_, &mut BufWriter<&File>>) -> io::Result<()>,
) -> io::Result<()> {
    crate::write_file(path, |file| write_to(file, add))
}

/// Writes arrays into a file that is open.
///
/// # Errors
/// If `add` or the operating system fails.
pub fn write_to<W: Write + Seek>(
    file: W,
    add: impl FnOnce(&mut Arrays<'_, W>) -> io::Result<()>,
) -> io::Result<()> {
    archive::write(file, |archive| add(&mut Arrays { archive }))
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
        match ZipArchive::new(file) {
            Ok(archive) => Ok(Self { archive }),
            Err(ZipError::Io(error)) => Err(error),
            Err(error) => Err(invalid(match kind::describe(path) {
                Some(found) if found.contains("(.npy)") => {
                    format!("it {found}; write it with `numpy.savez`, which gives the array a name")
                }
                Some(found) if !found.contains("zip") => format!("it {found}"),
                _ => format!("it is no complete .npz archive ({error})"),
            })),
        }
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.archive.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// An array of integers of any width: its shape, and its values in row-major order.
    ///
    /// # Errors
    /// If there is no such array in the file, it has more than `limit` values, is no array of
    /// integers, or the file is damaged.
    pub fn integers(&mut self, name: &str, limit: usize) -> io::Result<(Vec<u64>, Vec<i64>)> {
        self.read(name, limit, "integers", Kind::integers)
    }

    /// An array of floating-point numbers in half, single or double precision: its shape, and its values
    /// in row-major order.
    ///
    /// # Errors
    /// As [`integers`](Self::integers).
    pub fn floats(&mut self, name: &str, limit: usize) -> io::Result<(Vec<u64>, Vec<f64>)> {
        self.read(name, limit, "floating-point numbers", Kind::floats)
    }

    /// An array of bytes that is read piece by piece: its shape, and what gives its values in
    /// row-major order. Reading to the end checks them against the archive's checksum.
    ///
    /// # Errors
    /// If there is no such array in the file, it is no array of bytes, it is stored column by column
    /// and has more than 2^30 bytes, or the file is damaged.
    pub fn bytes(&mut self, name: &str) -> io::Result<(Vec<u64>, Box<dyn Read + '_>)> {
        let mut entry = self.archive.by_name(&format!("{name}.npy"))?;
        let (size, mut taken) = (entry.size(), 0);
        let header = Header::read(&mut Counted { reader: &mut entry, taken: &mut taken });
        let Header { kind, column_major, shape } = header.map_err(of_array(name))?;
        if !kind.is_bytes() {
            return Err(invalid(format!(
                "`{name}` is an array of {}, not of bytes; make bytes from 0 to 255 of it, for values \
                 in [0, 1] by `(255 * x).round().astype('uint8')`",
                kind.text
            )));
        }
        let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent));
        let there = size.saturating_sub(taken);
        if count != Some(there) {
            return Err(invalid(format!(
                "`{name}` has {there} values, and its shape says {shape:?}"
            )));
        }
        if is_row_major(column_major, &shape) {
            return Ok((shape, Box::new(entry)));
        }
        let count = count.filter(|&count| count <= MAX_REORDERED).ok_or_else(|| {
            invalid(format!(
                "`{name}` is stored column by column and too large to turn; save \
                 `numpy.ascontiguousarray(x)`"
            ))
        })?;
        // To its end, for the checksum.
        let mut bytes = Vec::new();
        (&mut entry).take(count + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != count {
            return Err(invalid(format!("`{name}` is not as long as its shape says")));
        }
        let bytes = row_major(bytes, &shape);
        Ok((shape, Box::new(io::Cursor::new(bytes))))
    }

    fn read<T: Copy>(
        &mut self,
        name: &str,
        limit: usize,
        wanted: &str,
        numbers: impl Fn(&Kind, &[u8], usize) -> Option<io::Result<Vec<T>>>,
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
        let header = Header::read(&mut rest).map_err(of_array(name))?;
        let Header { kind, column_major, shape } = header;
        let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent));
        let count = count
            .filter(|&count| count <= rest.len() as u64)
            .ok_or_else(|| invalid(format!("`{name}` is shorter than its shape says")))?;
        let values = numbers(&kind, rest, count as usize)
            .ok_or_else(|| {
                invalid(format!("`{name}` is an array of {}, not of {wanted}", kind.text))
            })?
            .map_err(of_array(name))?;
        let values =
            if is_row_major(column_major, &shape) { values } else { row_major(values, &shape) };
        Ok((shape, values))
    }
}

/// A reader that counts the bytes taken from another.
struct Counted<'a, R> {
    reader: R,
    taken: &'a mut u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        *self.taken += read as u64;
        Ok(read)
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Says in which array something is wrong.
fn of_array(name: &str) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("`{name}`: {error}"))
}

/// Whether values stored in this order are in row-major order.
fn is_row_major(column_major: bool, shape: &[u64]) -> bool {
    !column_major || shape.iter().filter(|&&extent| extent != 1).count() < 2
}

/// The values of an array of this shape, stored with the first index running fastest, in row-major
/// order.
fn row_major<T: Copy>(values: Vec<T>, shape: &[u64]) -> Vec<T> {
    let shape: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
    let strides: Vec<usize> = shape
        .iter()
        .scan(1usize, |next, &extent| Some(std::mem::replace(next, next.saturating_mul(extent))))
        .collect();
    let mut turned = Vec::with_capacity(values.len());
    let (mut index, mut place) = (vec![0; shape.len()], 0);
    while turned.len() < values.len() {
        let Some(&value) = values.get(place) else { break };
        turned.push(value);
        // The next index in row-major order, like a mileage counter.
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                place += strides[axis];
                break;
            }
            place -= (shape[axis] - 1) * strides[axis];
            index[axis] = 0;
        }
    }
    turned
}

impl<W: Write + Seek> Arrays<'_, W> {
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
    pub fn add<T: Number>(
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
    pub fn add_pieces<T: Number>(
        &mut self,
        name: &str,
        shape: &[u64],
        pieces: impl IntoIterator<Item = io::Result<impl IntoIterator<Item = T>>>,
    ) -> io::Result<()> {
        self.begin(name)?;
        let mut writer = BufWriter::new(&mut *self.archive);
        Header::write(T::KIND, shape, &mut writer)?;
        let mut written = 0;
        for piece in pieces {
            for number in piece? {
                number.write(&mut writer)?;
                written += 1;
            }
        }
        let count: u64 = shape.iter().product();
        if written != count {
            return Err(invalid(format!(
                "`{name}` got {written} values, and its shape says {count}"
            )));
        }
        writer.flush()
    }

    /// Adds texts, as an array of fixed width, which no reader needs to unpickle.
    ///
    /// # Errors
    /// If the operating system fails.
    pub fn add_texts(&mut self, name: &str, texts: &[String]) -> io::Result<()> {
        let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        self.begin(name)?;
        let mut writer = BufWriter::new(&mut *self.archive);
        Header::write(&format!("<U{width}"), &[texts.len() as u64], &mut writer)?;
        for text in texts {
            // Four bytes a character, filled up with zeros.
            let filled = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width);
            for character in filled {
                writer.write_all(&character.to_le_bytes())?;
            }
        }
        writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::SeekFrom;

    use super::*;

    /// An `.npz` of one array, stored in either order.
    fn archive(kind: &str, fortran: bool, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let shape: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
        let order = if fortran { "True" } else { "False" };
        let mut header =
            format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({shape}), }}");
        while !(header.len() + 11).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut file = io::Cursor::new(Vec::new());
        archive::write(&mut file, |archive| {
            archive.start_file("x.npy", SimpleFileOptions::default())?;
            archive.write_all(b"\x93NUMPY\x01\0")?;
            archive.write_all(&(header.len() as u16).to_le_bytes())?;
            archive.write_all(header.as_bytes())?;
            archive.write_all(values)
        })
        .unwrap();
        file.into_inner()
    }

    fn open(bytes: &[u8]) -> ArchiveReader {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        ArchiveReader::open(file.path()).unwrap()
    }

    /// A small generator of numbers, for shapes.
    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) as usize
    }

    #[test]
    fn should_read_the_same_array_in_either_order() {
        let mut state = 7;
        for _ in 0..200 {
            let shape: Vec<usize> =
                (0..next(&mut state) % 5).map(|_| next(&mut state) % 4).collect();
            let count: usize = shape.iter().product();
            let rows: Vec<i16> = (0..count).map(|value| value as i16 - 3).collect();
            // Where each value stands when the first index runs fastest.
            let mut columns = vec![0i16; count];
            for (place, &value) in rows.iter().enumerate() {
                let (mut rest, mut target, mut stride) = (place, 0, 1);
                let mut index = vec![0; shape.len()];
                for axis in (0..shape.len()).rev() {
                    index[axis] = rest % shape[axis];
                    rest /= shape[axis];
                }
                for (index, extent) in index.iter().zip(&shape) {
                    target += index * stride;
                    stride *= extent;
                }
                columns[target] = value;
            }
            let bytes = |values: &[i16]| -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            };
            let read = |fortran, values: &[i16]| {
                open(&archive("<i2", fortran, &shape, &bytes(values))).integers("x", 1 << 10)
            };
            let (straight, turned) = (read(false, &rows).unwrap(), read(true, &columns).unwrap());
            assert_eq!(straight, turned, "{shape:?}");
            let pixels = |fortran, values: &[i16]| {
                let values: Vec<u8> = values.iter().map(|&value| value as u8).collect();
                let mut reader = open(&archive("|u1", fortran, &shape, &values));
                let (shape, mut bytes) = reader.bytes("x").unwrap();
                let mut read = Vec::new();
                bytes.read_to_end(&mut read).unwrap();
                (shape, read)
            };
            assert_eq!(pixels(false, &rows), pixels(true, &columns), "{shape:?}");
        }
    }

    #[test]
    fn should_say_how_to_make_bytes_and_what_is_no_archive() {
        let mut floats = open(&archive("<f4", false, &[1], &[0; 4]));
        let error = floats.bytes("x").err().unwrap().to_string();
        assert!(error.contains("astype('uint8')"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npz");
        for (content, said) in [
            (&b"\x93NUMPY\x01\0"[..], "numpy.savez"),
            (b"<html>", "web page"),
            (b"\x01\x02", "no complete .npz archive"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = ArchiveReader::open(&path).err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    /// A file that has room for so many bytes.
    struct Full(io::Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.get_ref().len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn should_fail_with_one_error_on_a_full_disk() {
        let whole = 1000;
        for room in (0..whole).step_by(37) {
            let mut file = Full(io::Cursor::new(Vec::new()), room);
            let written = write_to(&mut file, |arrays| {
                arrays.add("x", &[100], 0..100i64)?;
                arrays.add("y", &[1], 0..1i64)
            });
            let error = written.expect_err("it takes more than a thousand bytes");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{room}: {error}");
        }
    }
}
