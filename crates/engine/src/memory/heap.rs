//! Memory of the allocator, where there are no mappings, as in a browser.
#![allow(unsafe_code)] // bytes that are allocated on cache lines

use std::{
    io,
    ops::{Deref, DerefMut},
};

use super::ALIGNMENT;

/// Hands out pieces of memory, each allocated on its own.
#[derive(Default)]
pub(crate) struct Arena;

impl Arena {
    /// Zeros.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn zeros(&mut self, bytes: usize) -> io::Result<Piece> {
        let (count, mut lines) = (bytes.div_ceil(ALIGNMENT), Vec::new());
        lines.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        lines.resize(count, Line([0; ALIGNMENT]));
        Ok(Piece { lines, length: bytes })
    }
}

#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Line([u8; ALIGNMENT]);

const _: () = assert!(align_of::<Line>() == ALIGNMENT && size_of::<Line>() == ALIGNMENT);

/// A piece of memory.
pub(crate) struct Piece {
    lines: Vec<Line>,
    length: usize,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the lines are at least as many bytes, one after the other.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
