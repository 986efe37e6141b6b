//! Zip archives whose errors are ours alone.

use std::{
    io::{self, Seek, SeekFrom, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use zip::ZipWriter;

/// Where an archive is written to. Once an operation has failed, it pretends that all goes well: the
/// zip library tries again to finish an archive that it drops, and prints its own text where that
/// fails too.
#[derive(Debug)]
pub struct Latched<W> {
    inner: W,
    failed: Arc<AtomicBool>,
    /// Where the next byte would go, and where the file would end.
    position: u64,
    end: u64,
}

impl<W> Latched<W> {
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn latch<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.failed.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl<W: Write> Write for Latched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.has_failed() {
            bytes.len()
        } else {
            let written = self.inner.write(bytes);
            self.latch(written)?
        };
        self.position += written as u64;
        self.end = self.end.max(self.position);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.has_failed() {
            return Ok(());
        }
        let flushed = self.inner.flush();
        self.latch(flushed)
    }
}

impl<W: Seek> Seek for Latched<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = if self.has_failed() {
            let place = match to {
                SeekFrom::Start(place) => Some(place),
                SeekFrom::Current(by) => self.position.checked_add_signed(by),
                SeekFrom::End(by) => self.end.checked_add_signed(by),
            };
            place.ok_or(io::ErrorKind::InvalidInput)?
        } else {
            let place = self.inner.seek(to);
            self.latch(place)?
        };
        Ok(self.position)
    }
}

/// Writes a zip archive into a file that is open.
///
/// # Errors
/// If `add` or the operating system fails.
pub fn write<W: Write + Seek>(
    file: W,
    add: impl FnOnce(&mut ZipWriter<Latched<W>>) -> io::Result<()>,
) -> io::Result<()> {
    let failed = Arc::new(AtomicBool::new(false));
    let file = Latched { inner: file, failed: Arc::clone(&failed), position: 0, end: 0 };
    let mut archive = ZipWriter::new(file);
    let added = add(&mut archive);
    if added.is_err() {
        failed.store(true, Ordering::Relaxed);
    }
    added?;
    archive.finish()?.flush()
}
