//! The order of a picture's tokens: a one-dimensional prefix, then the grid in raster order.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Where a token of the sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenPosition {
    /// The `index`-th prefix token, counted from 0.
    Prefix {
        /// Position inside the prefix.
        index: usize,
    },
    /// The token of one patch of the picture.
    Grid {
        /// Row of the patch, from the top.
        row: usize,
        /// Column of the patch, from the left.
        column: usize,
    },
}

/// The layout of a picture's token sequence (paper, section 3.2, "Definition"): `prefix` (K)
/// tokens, then `rows` × `columns` (H × W) tokens in raster order.
///
/// This type alone knows segment lengths, orders and positions; nothing else in the workspace
/// counts tokens. The paper's layout at 256 pixels is `TokenLayout::new(16, 16, 16)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLayout {
    prefix: usize,
    rows: usize,
    columns: usize,
}

impl TokenLayout {
    /// A layout of `prefix` tokens followed by a grid of `rows` × `columns`.
    pub const fn new(prefix: usize, rows: usize, columns: usize) -> Self {
        Self { prefix, rows, columns }
    }

    /// Number of prefix tokens, K.
    pub const fn prefix(&self) -> usize {
        self.prefix
    }

    /// Rows of the grid, H.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the grid, W.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Number of grid tokens, H·W.
    pub const fn grid(&self) -> usize {
        self.rows * self.columns
    }

    /// Length of the whole sequence, K + H·W.
    #[allow(clippy::len_without_is_empty)] // a layout without tokens is not a layout
    pub const fn len(&self) -> usize {
        self.prefix + self.grid()
    }

    /// Indices of the prefix tokens in the sequence.
    pub const fn prefix_range(&self) -> Range<usize> {
        0..self.prefix
    }

    /// Indices of the grid tokens in the sequence.
    pub const fn grid_range(&self) -> Range<usize> {
        self.prefix..self.len()
    }

    /// Indices of the tokens of one grid row in the sequence.
    pub const fn row_range(&self, row: usize) -> Range<usize> {
        let start = self.prefix + row * self.columns;
        start..start + self.columns
    }

    /// How many leading tokens hold the prefix and the first `rows` grid rows.
    pub const fn len_of_rows(&self, rows: usize) -> usize {
        self.prefix + rows * self.columns
    }

    /// Where token `index` of the sequence stands.
    ///
    /// # Panics
    /// If `index` is not smaller than [`len`](Self::len).
    pub fn position(&self, index: usize) -> TokenPosition {
        assert!(index < self.len(), "token {index} of a sequence of {}", self.len());
        match index.checked_sub(self.prefix) {
            None => TokenPosition::Prefix { index },
            Some(cell) => {
                TokenPosition::Grid { row: cell / self.columns, column: cell % self.columns }
            }
        }
    }

    /// The rotary positions of token `index` for the two halves of an attention head
    /// (paper, A.3): a prefix token has its index on both, as one-dimensional positions; a grid
    /// token has its row and its column, both counted on from the end of the prefix.
    pub fn rotary_position(&self, index: usize) -> TokenPosition {
        match self.position(index) {
            prefix @ TokenPosition::Prefix { .. } => prefix,
            TokenPosition::Grid { row, column } => {
                TokenPosition::Grid { row: self.prefix + row, column: self.prefix + column }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_cover_every_token_exactly_once() {
        let layout = TokenLayout::new(3, 2, 5);
        let mut seen: Vec<usize> = layout.prefix_range().collect();
        for row in 0..layout.rows() {
            seen.extend(layout.row_range(row));
        }
        assert_eq!(seen, (0..layout.len()).collect::<Vec<_>>());
        assert_eq!(layout.grid_range().len(), layout.grid());
        assert_eq!(layout.len_of_rows(layout.rows()), layout.len());
    }

    #[test]
    fn should_place_tokens_in_raster_order() {
        let layout = TokenLayout::new(3, 2, 5);
        assert_eq!(layout.position(2), TokenPosition::Prefix { index: 2 });
        assert_eq!(layout.position(3), TokenPosition::Grid { row: 0, column: 0 });
        assert_eq!(layout.position(9), TokenPosition::Grid { row: 1, column: 1 });
        assert_eq!(layout.rotary_position(9), TokenPosition::Grid { row: 4, column: 4 });
        assert_eq!(layout.rotary_position(1), TokenPosition::Prefix { index: 1 });
    }
}
