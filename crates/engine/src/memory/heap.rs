//! Memory of the allocator, where there are no mappings, as in a browser.

use std::{
    io,
    ops::{Deref, DerefMut, Range},
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
        let (length, mut memory) = (bytes + ALIGNMENT, Vec::<u8>::new());
        memory.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        memory.resize(length, 0);
        // The vector never grows, so its memory stays where it is.
        let start = memory.as_ptr().addr().next_multiple_of(ALIGNMENT) - memory.as_ptr().addr();
        Ok(Piece { memory, range: start..start + bytes })
    }
}

/// A piece of memory.
pub(crate) struct Piece {
    memory: Vec<u8>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.range.clone()]
    }
}
