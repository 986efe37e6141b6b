//! Rotary positions (paper, appendix A.3; Su et al. 2024).
//!
//! Numbers 2i and 2i + 1 of a query or key form a pair that is rotated by its token's position
//! times the pair's frequency. Prefix tokens have one position for all pairs of a head; grid
//! tokens turn the first half of the pairs by their row and the second half by their column.
//! The class token, and any other condition id, has no position: its cosine and sine are both zero,
//! as in LlamaGen and the released code. So its query and key vanish, and every query gives it a
//! score of 0.

use tokens::{TokenLayout, TokenPosition};

/// Base of the frequencies (Su et al. 2024).
const BASE: f64 = 10000.0;

/// Cosines and sines of every position of a picture, after those of a condition id. Kept on the host,
/// because a table on one device would not follow the model to another.
#[derive(Debug, Clone)]
pub struct Rotary {
    head: usize,
    /// `[1 + tokens, head]`: each pair's cosine twice.
    cosines: Vec<f32>,
    /// `[1 + tokens, head]`: each pair's sine twice, the first one negated.
    sines: Vec<f32>,
}

impl Rotary {
    /// Tables for heads of `head` numbers, a multiple of 4.
    pub fn new(layout: &TokenLayout, head: usize) -> Self {
        let mut rotary = Self { head, cosines: vec![0.0; head], sines: vec![0.0; head] };
        for token in 0..layout.len() {
            match layout.rotary_position(token) {
                TokenPosition::Prefix { index } => rotary.extend(index, head),
                TokenPosition::Grid { row, column } => {
                    rotary.extend(row, head / 2);
                    rotary.extend(column, head / 2);
                }
            }
        }
        rotary
    }

    /// Adds one position's rotations of `span` numbers, half as many pairs.
    fn extend(&mut self, position: usize, span: usize) {
        for pair in 0..span / 2 {
            let frequency = BASE.powf(-((2 * pair) as f64) / span as f64);
            let (sine, cosine) = (position as f64 * frequency).sin_cos();
            self.cosines.extend([cosine as f32; 2]);
            self.sines.extend([-sine as f32, sine as f32]);
        }
    }

    /// Width of the heads.
    pub fn head(&self) -> usize {
        self.head
    }

    /// The row of the tables for `position` of a sequence that begins with `condition` condition
    /// ids: 0 for each of these, t + 1 for token t of the picture.
    pub const fn row(condition: usize, position: usize) -> usize {
        (position + 1).saturating_sub(condition)
    }

    /// What each number of a head is multiplied with in a [`row`](Self::row): each pair's cosine
    /// twice.
    pub fn cosines(&self, row: usize) -> &[f32] {
        &self.cosines[row * self.head..][..self.head]
    }

    /// What the other number of its pair is multiplied with in a [`row`](Self::row): each pair's
    /// sine twice, the first one negated.
    pub fn sines(&self, row: usize) -> &[f32] {
        &self.sines[row * self.head..][..self.head]
    }
}
