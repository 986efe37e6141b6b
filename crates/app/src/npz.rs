//! Arrays for NumPy, several in one `.npz` file.

use std::{
    io::{self, Cursor, Write},
    path::Path,
};

use anyhow::{Context, Result};
use npyz::{WriterBuilder, npz::NpzWriter};

/// Arrays to be written together.
pub(crate) struct Arrays {
    writer: NpzWriter<Cursor<Vec<u8>>>,
}

impl Arrays {
    pub(crate) fn new() -> Self {
        Self { writer: NpzWriter::new(Cursor::new(Vec::new())) }
    }

    /// Adds an array.
    pub(crate) fn add<T: npyz::AutoSerialize + Copy>(
        &mut self,
        name: &str,
        shape: &[u64],
        values: &[T],
    ) -> io::Result<()> {
        let mut writer =
            self.writer.array(name, Default::default())?.default_dtype().shape(shape).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()
    }

    /// Adds texts, as an array of fixed width.
    pub(crate) fn add_texts(&mut self, name: &str, texts: &[String]) -> io::Result<()> {
        let width = texts.iter().map(|text| text.len()).max().unwrap_or(0).max(1);
        let kind = npyz::DType::Plain(
            format!("|S{width}").parse().map_err(|error| io::Error::other(format!("{error}")))?,
        );
        let mut writer = self
            .writer
            .array(name, Default::default())?
            .dtype(kind)
            .shape(&[texts.len() as u64])
            .begin_nd()?;
        for text in texts {
            writer.push(text.as_bytes())?;
        }
        writer.finish()
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(mut self, path: &Path) -> Result<()> {
        let content = self.writer.zip_writer().finish()?.into_inner();
        tokens::files::write_file(path, |file| file.write_all(&content))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
