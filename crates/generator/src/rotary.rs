//! Rotary positions (paper, appendix A.3; Su et al. 2024).
//!
//! Numbers 2i and 2i + 1 of a query or key form a pair that is rotated by its token's position
//! times the pair's frequency. Prefix tokens have one position for all pairs of a head; grid
//! tokens turn the first half of the pairs by their row and the second half by their column.
//! The class token stands at no position: its cosine and sine are both zero, as in LlamaGen and
//! the released code, so its query and key vanish, and whoever looks at it gives it a score of 0.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use tokens::{TokenLayout, TokenPosition};

/// Base of the frequencies (Su et al. 2024).
const BASE: f64 = 10000.0;

/// Cosines and sines of every position of a sequence, the class token first. Kept on the host,
/// because a table on one device would not follow the model to another.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    head: usize,
    /// `[1 + tokens, head]`: each pair's cosine twice.
    cosines: Vec<f32>,
    /// `[1 + tokens, head]`: each pair's sine twice, the first one negated.
    sines: Vec<f32>,
}

/// What [`Rotary`] holds of some positions, on a device.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
    exchange: Tensor<4>,
}

impl Rotary {
    /// Tables for heads of `head` numbers, a multiple of 4.
    pub(crate) fn new(layout: &TokenLayout, head: usize) -> Self {
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

    /// The rotations of positions `range` of the sequence, where the class token is position 0
    /// and token t is position t + 1.
    pub(crate) fn rotation(&self, range: Range<usize>, device: &Device) -> Rotation {
        let head = self.head;
        let table = |values: &[f32]| {
            let values = values[range.start * head..range.end * head].to_vec();
            Tensor::from_data(TensorData::new(values, [1, 1, range.len(), head]), device)
        };
        let mut exchange = vec![0.0f32; head * head];
        for number in 0..head {
            exchange[(number ^ 1) * head + number] = 1.0;
        }
        Rotation {
            cosines: table(&self.cosines),
            sines: table(&self.sines),
            exchange: Tensor::from_data(TensorData::new(exchange, [1, 1, head, head]), device),
        }
    }
}

impl Rotation {
    /// Rotates queries or keys.
    ///
    /// # Shapes
    /// `x [batch, heads, positions, head]`, kept.
    pub(crate) fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        // A product with a permutation exchanges the numbers of each pair exactly, and is the
        // one way to do so that is fast on every device, forward and backward.
        let exchanged = x.clone().matmul(self.exchange.clone());
        x * self.cosines.clone() + exchanged * self.sines.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(layout: &TokenLayout, head: usize, x: &[f32]) -> Vec<f32> {
        let device = Device::flex();
        let positions = layout.len() + 1;
        let x: Vec<f32> = x.iter().copied().cycle().take(positions * head).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [1, 1, positions, head]), &device);
        let rotation = Rotary::new(layout, head).rotation(0..positions, &device);
        rotation.apply(x).into_data().try_into_vec().unwrap()
    }

    #[test]
    fn should_rotate_prefix_pairs_by_one_position_and_grid_pairs_by_row_and_column() {
        let layout = TokenLayout::new(3, 2, 5);
        let head = 8;
        let rows = rotated(&layout, head, &[1.0, 0.0]);
        let angle = |row: usize, pair: usize| {
            let at = row * head + 2 * pair;
            f64::from(rows[at + 1]).atan2(f64::from(rows[at]))
        };
        let close = |got: f64, want: f64| {
            let turn = (got - want).rem_euclid(std::f64::consts::TAU);
            assert!(turn.min(std::f64::consts::TAU - turn) < 1e-6, "{got} {want}");
        };
        // Prefix token 2: four frequencies, base^(-2i/8).
        for pair in 0..4 {
            close(angle(3, pair), 2.0 * 10f64.powi(-(pair as i32)));
        }
        // Grid cell (1, 4) stands at row 3 + 1 and column 3 + 4: two frequencies each.
        let row = 1 + layout.len() - 1;
        close(angle(row, 0), 4.0);
        close(angle(row, 1), 0.04);
        close(angle(row, 2), 7.0);
        close(angle(row, 3), 0.07);
    }

    #[test]
    fn should_turn_the_second_of_a_pair_too() {
        let layout = TokenLayout::new(2, 1, 1);
        let rows = rotated(&layout, 4, &[0.0, 1.0]);
        let (sine, cosine) = 1f32.sin_cos();
        assert!((rows[8] + sine).abs() < 1e-6 && (rows[9] - cosine).abs() < 1e-6);
    }

    #[test]
    fn should_make_the_class_token_vanish() {
        let rows = rotated(&TokenLayout::new(2, 1, 1), 4, &[3.0, -2.0]);
        assert_eq!(rows[..4], [0.0; 4]);
        assert_eq!(rows[4..8], [3.0, -2.0, 3.0, -2.0]); // position 0 stays as it is
    }
}
