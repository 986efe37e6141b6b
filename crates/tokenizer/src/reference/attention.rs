//! Where patches look in a decoder: maps of single patches and the mean pattern around a patch
//! (paper, "Visualization of attention maps", Figs. 8 and 11).

use std::ops::Range;

use burn::tensor::Tensor;
use tokens::TokenLayout;

/// The attention of each patch's position to each token, over pictures and heads, by layer.
///
/// What a position gives to the decoder's leading tokens is left out, so that its weights add up
/// to at most 1.
#[derive(Debug, Clone)]
pub struct DecoderAttention {
    layout: TokenLayout,
    /// Means over heads, added up over pictures: `[grid, length]` each.
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    pictures: u64,
    sums: Vec<f64>,
}

impl DecoderAttention {
    /// Of no pictures.
    pub(crate) fn new(layout: TokenLayout, layers: usize) -> Self {
        let layer = Layer { pictures: 0, sums: vec![0.0; layout.grid() * layout.len()] };
        Self { layout, layers: vec![layer; layers] }
    }

    /// # Shapes
    /// `weights [batch, grid, length]`.
    pub(crate) fn add(&mut self, layer: usize, weights: Tensor<3>) {
        let [batch, _, _] = weights.dims();
        let layer = &mut self.layers[layer];
        layer.pictures += batch as u64;
        let weights = operations::parameters::host_tensor(weights).values;
        for picture in weights.chunks_exact(layer.sums.len()) {
            for (sum, &weight) in layer.sums.iter_mut().zip(picture) {
                *sum += f64::from(weight);
            }
        }
    }

    /// Takes in other pictures' attention.
    ///
    /// # Panics
    /// If it is that of a decoder with other tokens or layers.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.layout, other.layout, "tokens of both decoders");
        assert_eq!(self.layers.len(), other.layers.len(), "layers of both decoders");
        for (layer, other) in self.layers.iter_mut().zip(&other.layers) {
            layer.pictures += other.pictures;
            for (sum, other) in layer.sums.iter_mut().zip(&other.sums) {
                *sum += other;
            }
        }
    }

    /// How many layers the decoder has.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// How the tokens lie.
    pub fn layout(&self) -> TokenLayout {
        self.layout
    }

    /// What the patch at `row` and `column` takes of each token, in the mean over pictures, heads
    /// and the given layers.
    ///
    /// # Shapes
    /// `[length]`: the prefix, then the grid in raster order.
    ///
    /// # Panics
    /// If there is no such patch or layer.
    pub fn map(&self, row: usize, column: usize, layers: Range<usize>) -> Vec<f64> {
        assert!(row < self.layout.rows() && column < self.layout.columns(), "a patch of the grid");
        let length = self.layout.len();
        let patch = row * self.layout.columns() + column;
        let mut map = vec![0.0; length];
        let count = layers.len() as f64;
        for layer in &self.layers[layers] {
            let weights = &layer.sums[patch * length..(patch + 1) * length];
            for (mean, &sum) in map.iter_mut().zip(weights) {
                *mean += sum / layer.pictures.max(1) as f64 / count;
            }
        }
        map
    }

    /// What patches take of those around them, in the mean over patches, pictures, heads and the
    /// given layers.
    ///
    /// The paper does not say what becomes of patches at the border; here each neighbour's mean is
    /// over those patches that have it.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn local_pattern(&self, layers: Range<usize>) -> LocalPattern {
        let (rows, columns) = (self.layout.rows(), self.layout.columns());
        let mut sums = [[0.0; 3]; 3];
        let mut counts = [[0_u32; 3]; 3];
        for row in 0..rows {
            for column in 0..columns {
                let map = self.map(row, column, layers.clone());
                let grid = &map[self.layout.grid_range()];
                for (down, (sums, counts)) in sums.iter_mut().zip(&mut counts).enumerate() {
                    for (right, (sum, count)) in sums.iter_mut().zip(counts).enumerate() {
                        let (row, column) = (row + down, column + right);
                        if (1..=rows).contains(&row) && (1..=columns).contains(&column) {
                            *sum += grid[(row - 1) * columns + column - 1];
                            *count += 1;
                        }
                    }
                }
            }
        }
        for (sums, counts) in sums.iter_mut().zip(counts) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum /= f64::from(count.max(1));
            }
        }
        LocalPattern { weights: sums }
    }
}

/// What a patch takes of the 3 × 3 patches around it (paper, Fig. 8b).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalPattern {
    /// By row and column; the patch itself is in the middle.
    pub weights: [[f64; 3]; 3],
}

impl LocalPattern {
    /// Of what goes to the eight neighbours, the share of the four that come before the patch in
    /// raster order: a half if both directions count alike, 1 in a causal decoder. `None` if
    /// nothing goes to any of them.
    pub fn preceding_share(&self) -> Option<f64> {
        let [above, [left, _, right], below] = self.weights;
        let preceding = above.iter().sum::<f64>() + left;
        let following = right + below.iter().sum::<f64>();
        let all = preceding + following;
        (all > 0.0).then(|| preceding / all)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Every patch of a grid of 3 × 4 looks at the neighbour at (down, right), if it has one.
    fn looking(down: isize, right: isize) -> DecoderAttention {
        let layout = TokenLayout::new(2, 3, 4);
        let mut weights = vec![0.0_f32; layout.grid() * layout.len()];
        for patch in 0..layout.grid() {
            let row = (patch / 4).checked_add_signed(down).filter(|&row| row < 3);
            let column = (patch % 4).checked_add_signed(right).filter(|&column| column < 4);
            if let (Some(row), Some(column)) = (row, column) {
                weights[patch * layout.len() + layout.prefix() + row * 4 + column] = 1.0;
            }
        }
        let mut attention = DecoderAttention::new(layout, 1);
        let shape = [1, layout.grid(), layout.len()];
        attention.add(0, Tensor::from_data(TensorData::new(weights, shape), &Device::flex()));
        attention
    }

    #[test]
    fn should_tell_the_neighbours_apart() {
        for (row, down) in [-1, 0, 1].into_iter().enumerate() {
            for (column, right) in [-1, 0, 1].into_iter().enumerate() {
                let mut expected = [[0.0; 3]; 3];
                expected[row][column] = 1.0;
                let pattern = looking(down, right).local_pattern(0..1);
                assert_eq!(pattern.weights, expected, "({down}, {right})");
                let share = match (down, right) {
                    (0, 0) => None,
                    (-1, _) | (0, -1) => Some(1.0),
                    _ => Some(0.0),
                };
                assert_eq!(pattern.preceding_share(), share, "({down}, {right})");
            }
        }
    }

    #[test]
    fn should_take_the_mean_over_pictures() {
        let mut both = looking(0, 0);
        both.merge(&looking(-1, 0));
        assert_eq!(
            both.local_pattern(0..1).weights,
            [[0.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]
        );
        let map = both.map(1, 2, 0..1);
        assert_eq!(map.iter().sum::<f64>(), 1.0);
        assert_eq!((map[2 + 2], map[2 + 6]), (0.5, 0.5));
    }
}
