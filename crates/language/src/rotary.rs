//! Rotary positions of prompts and pictures.
//!
//! Numbers 2i and 2i + 1 of a query or key form a pair that is turned by a position times
//! θ^(−2i / head). All ids of a prompt and, unless the configuration says otherwise, all tokens of a
//! picture have one position each, counted from the prompt's start.

use tokens::{TokenLayout, TokenPosition};

use crate::{LanguageConfig, PicturePositions};

/// Cosines and sines of all positions.
#[derive(Debug, Clone)]
pub struct Rotary {
    layout: TokenLayout,
    picture: PicturePositions,
    pairs: usize,
    /// `[positions, pairs]`: cosine and sine.
    turns: Vec<[f32; 2]>,
}

impl Rotary {
    /// Tables for the longest prompt and a picture.
    pub fn new(config: &LanguageConfig) -> Self {
        let (layout, pairs) = (config.layout, config.head() / 2);
        // Rounded to f32 where `transformers` does so, since weights have learned those angles.
        let frequencies: Vec<f32> = (0..pairs)
            .map(|pair| 1.0 / config.rotary_base.powf(pair as f64 / pairs as f64) as f32)
            .collect();
        let positions = config.most_prompt_ids() + layout.len();
        let turn = |position: usize| {
            frequencies.iter().map(move |frequency| {
                let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
                [cosine as f32, sine as f32]
            })
        };
        let turns = (0..positions).flat_map(turn).collect();
        Self { layout, picture: config.picture_positions, pairs, turns }
    }

    /// Writes what each number of a head is multiplied with at `position` of a sequence that begins
    /// with `condition` ids of a prompt, and what the other number of its pair is: each pair's cosine
    /// twice, and its sine twice, the first one negated.
    ///
    /// # Panics
    /// If the position is beyond the longest sequence.
    pub fn write(&self, condition: usize, position: usize, cosines: &mut [f32], sines: &mut [f32]) {
        let [row, column] = self.axes(condition, position);
        let of = |position: usize| &self.turns[position * self.pairs..][..self.pairs];
        let (rows, columns) = (of(row), of(column));
        let outs = cosines.as_chunks_mut::<2>().0.iter_mut().zip(sines.as_chunks_mut::<2>().0);
        for (pair, (cosines, sines)) in outs.enumerate() {
            let [cosine, sine] = if pair % 2 == 0 { rows[pair] } else { columns[pair] };
            *cosines = [cosine; 2];
            *sines = [-sine, sine];
        }
    }

    /// Whether the length of a prompt matters to what a position's number turns by.
    #[cfg(feature = "reference")]
    pub(crate) fn depends_on_condition(&self) -> bool {
        self.picture == PicturePositions::Grid
    }

    /// The positions by which the even and the odd pairs are turned.
    fn axes(&self, condition: usize, position: usize) -> [usize; 2] {
        match (self.picture, position.checked_sub(condition)) {
            (PicturePositions::Grid, Some(token)) if token < self.layout.len() => {
                match self.layout.rotary_position(token) {
                    TokenPosition::Prefix { index } => [condition + index; 2],
                    TokenPosition::Grid { row, column } => [condition + row, condition + column],
                }
            }
            _ => [position; 2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn should_turn_text_by_one_position_and_a_grid_by_two() {
        let layout = TokenLayout::new(2, 3, 4);
        let sequence = presets::qwen2_half_billion(layout, 16, 8);
        let grid = LanguageConfig { picture_positions: PicturePositions::Grid, ..sequence.clone() };
        let (sequence, grid) = (Rotary::new(&sequence), Rotary::new(&grid));
        let at = |rotary: &Rotary, position| {
            let mut out = [[0.0; 64]; 2];
            let [cosines, sines] = &mut out;
            rotary.write(5, position, cosines, sines);
            out
        };
        for position in 0..7 {
            assert_eq!(at(&sequence, position), at(&grid, position), "prompt and prefix");
        }
        // Row 1, column 2, both counted on from five ids and two tokens of the prefix.
        let (cell, row, column) = (at(&grid, 5 + 2 + 4 + 2), at(&sequence, 8), at(&sequence, 9));
        for part in 0..2 {
            for number in 0..64 {
                let axis = if number / 2 % 2 == 0 { row } else { column };
                assert_eq!(cell[part][number], axis[part][number]);
            }
        }
        let angle = f64::from(9.0 * (1.0 / 1e6f64.powf(3.0 / 32.0) as f32));
        assert_eq!(column[0][7], angle.cos() as f32);
        assert_eq!(column[1][6], -angle.sin() as f32);
    }
}
