//! Arrays for NumPy, several in one `.npz` file.

use std::{
    fs::File,
    io::{self, BufWriter},
    path::Path,
};

use anyhow::{Context, Result};
use npyz::{AutoSerialize, DType, NpyWriter, TypeStr, WriteOptions, WriterBuilder};
use tokens::files;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// An `.npz` file that is being written.
pub(crate) struct Arrays<'a, 'b> {
    archive: ZipWriter<&'a mut BufWriter<&'b File>>,
}

/// Writes a file of arrays, whole or not at all.
pub(crate) fn write(
    path: &Path,
    add: impl FnOnce(&mut Arrays<'_, '_>) -> io::Result<()>,
) -> Result<()> {
    files::write_file(path, |file| {
        let mut arrays = Arrays { archive: ZipWriter::new(file) };
        add(&mut arrays)?;
        arrays.archive.finish()?;
        Ok(())
    })
    .with_context(|| format!("cannot write {}", path.display()))
}

impl Arrays<'_, '_> {
    /// Begins an array, uncompressed and without a time.
    fn begin(&mut self, name: &str) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(true);
        Ok(self.archive.start_file(format!("{name}.npy"), options)?)
    }

    /// Adds an array of numbers, in row-major order.
    pub(crate) fn add<T: AutoSerialize>(
        &mut self,
        name: &str,
        shape: &[u64],
        values: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        self.add_pieces(name, shape, std::iter::once(Ok(values)))
    }

    /// Adds an array of numbers that come piece by piece.
    pub(crate) fn add_pieces<T: AutoSerialize>(
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
    pub(crate) fn add_texts(&mut self, name: &str, texts: &[String]) -> io::Result<()> {
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
