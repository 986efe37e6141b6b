//! Memory of the operating system, in large pages.
#![allow(unsafe_code)] // pieces of one mapping that are owned apart

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use memmap2::{MmapMut, MmapRaw};

use super::ALIGNMENT;

/// Bytes of a large page.
pub(super) const LARGE_PAGE: usize = 1 << 21;

/// Bytes that are taken from the system together.
pub(super) const CHUNK: usize = 16 * LARGE_PAGE;

/// Hands out pieces of large mappings, one after the other.
///
/// The system backs only whole large pages by large pages, so what is allocated on its own has
/// small ones at its ends, or everywhere; and with small pages alone a step that streams all
/// weights takes almost half as long again, for address translations (docs/log.md).
#[derive(Default)]
pub(crate) struct Arena {
    chunk: Option<Arc<MmapRaw>>,
    used: usize,
}

impl Arena {
    /// Zeros, which become memory when they are first touched.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn zeros(&mut self, bytes: usize) -> io::Result<Piece> {
        let chunk = match &self.chunk {
            Some(chunk) if bytes <= chunk.len() - self.used => chunk,
            _ => {
                self.used = 0;
                self.chunk.insert(Arc::new(map(bytes)?))
            }
        };
        let (chunk, start) = (Arc::clone(chunk), self.used);
        self.used = (start + bytes).next_multiple_of(ALIGNMENT).min(chunk.len());
        Ok(Piece { chunk, start, length: bytes })
    }
}

/// A mapping with room for this many bytes.
fn map(bytes: usize) -> io::Result<MmapRaw> {
    let memory = MmapMut::map_anon(bytes.next_multiple_of(LARGE_PAGE).max(CHUNK))?;
    #[cfg(target_os = "linux")]
    {
        // Best effort: without large pages everything works, a little slower.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok(memory.into())
}

/// A piece of a mapping, which goes when its last piece does.
pub(crate) struct Piece {
    chunk: Arc<MmapRaw>,
    start: usize,
    length: usize,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, which lives as long as this, and belongs to no
        // other piece.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start), self.length) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.chunk.as_mut_ptr();
        // SAFETY: as above; and a mutable borrow is the only borrow.
        unsafe { std::slice::from_raw_parts_mut(start.add(self.start), self.length) }
    }
}
