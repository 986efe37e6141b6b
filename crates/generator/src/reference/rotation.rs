//! Rotary positions as tensors.

use std::ops::Range;

use burn::{
    nn::RmsNorm,
    tensor::{Device, Tensor, TensorData},
};
use operations::fused;

use crate::rotary::Rotary;

/// What [`Rotary`] holds of some positions, on a device.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    cosines: Tensor<4>,
    sines: Tensor<4>,
    exchange: Tensor<4>,
}

impl Rotation {
    /// The rotations of positions `range` of sequences that begin with `condition` condition ids.
    pub(crate) fn new(
        rotary: &Rotary,
        condition: usize,
        range: Range<usize>,
        device: &Device,
    ) -> Self {
        let head = rotary.head();
        let table = |row: fn(&Rotary, usize) -> &[f32]| {
            let rows = range.clone().map(|position| Rotary::row(condition, position));
            let values = rows.flat_map(|place| row(rotary, place)).copied();
            let values: Vec<f32> = values.collect();
            Tensor::from_data(TensorData::new(values, [1, 1, range.len(), head]), device)
        };
        let mut exchange = vec![0.0f32; head * head];
        for number in 0..head {
            exchange[(number ^ 1) * head + number] = 1.0;
        }
        Self {
            cosines: table(Rotary::cosines),
            sines: table(Rotary::sines),
            exchange: Tensor::from_data(TensorData::new(exchange, [1, 1, head, head]), device),
        }
    }

    /// Norms and rotates the queries and keys of whole sequences, side by side as a linear layer
    /// leaves them; values are kept.
    ///
    /// # Shapes
    /// `[batch, positions, 3·width]`, kept.
    pub(crate) fn apply_to_all(
        &self,
        query_key_value: Tensor<3>,
        query_norm: &RmsNorm,
        key_norm: &RmsNorm,
    ) -> Tensor<3> {
        let [_, _, positions, head] = self.cosines.dims();
        let table = |table: &Tensor<4>| table.clone().reshape([positions, head]);
        fused::normalize_and_rotate(
            query_key_value,
            query_norm.gamma.val(),
            key_norm.gamma.val(),
            table(&self.cosines),
            table(&self.sines),
            query_norm.epsilon,
        )
    }

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
    use tokens::TokenLayout;

    use super::*;

    fn rotated(layout: &TokenLayout, head: usize, x: &[f32]) -> Vec<f32> {
        let device = Device::flex();
        let positions = layout.len() + 1;
        let x: Vec<f32> = x.iter().copied().cycle().take(positions * head).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [1, 1, positions, head]), &device);
        let rotation = Rotation::new(&Rotary::new(layout, head), 1, 0..positions, &device);
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
