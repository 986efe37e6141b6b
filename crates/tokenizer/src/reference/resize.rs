//! The parameters of a tokenizer for pictures of another size, or with more codes.

use files::{HostTensor, TensorMap};
use tokens::{TokenLayout, noise::Noise};

use crate::config::TokenizerConfig;

const CODEBOOK: &str = "quantizer.codebook";

/// Fits a tokenizer's parameters to pictures of another size, for training to go on from (paper,
/// 4.3, "Scalability in high-resolution generation"), or to a larger codebook.
///
/// Tables with a row a position are interpolated linearly: those of the grid in two dimensions,
/// those of the prefix in one, as PyTorch does with `align_corners=False`. A larger codebook
/// begins with the old codes, and splits them in turn for the rest. Leading tokens and all other
/// parameters stay as they are. What else differs between the two architectures is left for
/// strict loading to report.
pub fn resize(tensors: TensorMap, from: &TokenizerConfig, to: &TokenizerConfig) -> TensorMap {
    let (old, new) = (from.layout(), to.layout());
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let is_table = name.ends_with("positions") || name == "encoder.latents.tokens";
            let tensor = match name.as_str() {
                CODEBOOK => grow_codebook(tensor, to.codes),
                _ if is_table => resize_table(tensor, old, new),
                _ => tensor,
            };
            (name, tensor)
        })
        .collect()
}

/// Each new code lies beside an old one, in a random direction and at half the distance to that
/// one's nearest neighbour: near enough to share its features, far enough to share them out. That
/// is the splitting of Linde, Buzo and Gray (1980), by which a codebook grows without a new start.
///
/// # Shapes
/// `[old codes, size]` → `[codes, size]`; a codebook that is not smaller stays as it is.
fn grow_codebook(codebook: HostTensor, codes: usize) -> HostTensor {
    let [old, size] = codebook.shape[..] else { return codebook };
    if old < 2 || codes <= old {
        return codebook;
    }
    let code = |index: usize| &codebook.values[index * size..][..size];
    let distance = |a: usize, b: usize| -> f32 {
        code(a).iter().zip(code(b)).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    };
    let steps: Vec<f32> = (0..old)
        .map(|index| {
            let others = (0..old).filter(|&other| other != index);
            0.5 * others.map(|other| distance(index, other)).fold(f32::INFINITY, f32::min)
        })
        .collect();
    let mut values = codebook.values.clone();
    for index in old..codes {
        let mut noise = Noise::of_parameter(0, CODEBOOK, index as u64);
        let direction: Vec<f32> = (0..size).map(|_| noise.normal() as f32).collect();
        let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        let scale = steps[index % old] / norm;
        values.extend(code(index % old).iter().zip(direction).map(|(c, d)| c + d * scale));
    }
    HostTensor::new([codes, size], values)
}

/// # Shapes
/// `[leading + prefix + grid, width]`, or `[grid, width]` for a table of patches.
fn resize_table(table: HostTensor, old: TokenLayout, new: TokenLayout) -> HostTensor {
    let [rows, width] = table.shape[..] else { return table };
    // A table of patches has no row for the prefix, others have one for each token.
    let prefixes = if rows < old.len() { [0, 0] } else { [old.prefix(), new.prefix()] };
    let Some(leading) = rows.checked_sub(prefixes[0] + old.grid()) else { return table };
    let (leading, rest) = table.values.split_at(leading * width);
    let (prefix, grid) = rest.split_at(prefixes[0] * width);
    let mut values = leading.to_vec();
    values.extend(interpolate(prefix, prefixes[0], prefixes[1], 1, width));
    // Along the rows first: each row of the grid is one long vector.
    let grid = interpolate(grid, old.rows(), new.rows(), 1, old.columns() * width);
    values.extend(interpolate(&grid, old.columns(), new.columns(), new.rows(), width));
    HostTensor::new([values.len() / width, width], values)
}

/// Linear interpolation of vectors, with pixel centres at half numbers and the first and last
/// vector beyond them.
///
/// # Shapes
/// `[blocks, old, width]` → `[blocks, new, width]`.
fn interpolate(values: &[f32], old: usize, new: usize, blocks: usize, width: usize) -> Vec<f32> {
    if old == new {
        return values.to_vec();
    }
    let mut resized = Vec::with_capacity(blocks * new * width);
    if old == 0 {
        // There is nothing to go by.
        resized.resize(blocks * new * width, 0.0);
        return resized;
    }
    for block in values.chunks_exact(old * width) {
        for index in 0..new {
            let centre = (index as f64 + 0.5) * old as f64 / new as f64 - 0.5;
            let centre = centre.clamp(0.0, (old - 1) as f64);
            let first = centre as usize;
            let second = (first + 1).min(old - 1);
            let weight = (centre - first as f64) as f32;
            let vector = |index: usize| &block[index * width..][..width];
            let pairs = vector(first).iter().zip(vector(second));
            resized.extend(pairs.map(|(first, second)| first + (second - first) * weight));
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Initialization, Positions, Weights};
    use crate::{DecoderKind, presets};
    use burn::tensor::Device;
    use operations::parameters::{collect, load};

    fn assert_close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
        }
    }

    /// The numbers are those of `torch.nn.functional.interpolate`, modes `bilinear` and `linear`,
    /// of a grid of 2 × 3 to 4 × 5, back to 2 × 3, and of three prefix tokens to five.
    #[test]
    fn should_interpolate_as_pytorch_does() {
        let small = TokenLayout::new(3, 2, 3);
        let large = TokenLayout::new(5, 4, 5);
        let grid = [1.0, 2.0, 4.0, 8.0, 3.0, -5.0];
        let up = [
            [1.0, 1.4, 2.0, 3.2, 4.0],
            [2.75, 2.55, 2.25, 1.95, 1.75],
            [6.25, 4.85, 2.75, -0.550_000_7, -2.75],
            [8.0, 6.0, 3.0, -1.800_001_1, -5.0],
        ]
        .concat();
        let table = |values: &[f32]| HostTensor::new([values.len(), 1], values.to_vec());
        assert_close(&resize_table(table(&grid), small, large).values, &up);
        let down = [1.908_333_3, 2.125, 2.775, 6.558_333_4, 2.875, -2.975];
        assert_close(&resize_table(table(&up), large, small).values, &down);
        // Two leading tokens, then the prefix, then the grid.
        let all = [&[7.0, 9.0][..], &[1.0, 2.0, 4.0], &grid].concat();
        let expected = [&[7.0, 9.0][..], &[1.0, 1.4, 2.0, 3.2, 4.0], &up].concat();
        assert_close(&resize_table(table(&all), small, large).values, &expected);
    }

    #[test]
    fn should_split_each_code_at_half_the_distance_to_its_neighbour() {
        let codebook = HostTensor::new([3, 2], vec![0.0, 0.0, 4.0, 0.0, 0.0, 1.0]);
        let grown = grow_codebook(codebook.clone(), 8);
        assert_eq!(grown.shape, [8, 2]);
        assert_eq!(grown.values[..6], codebook.values);
        for (index, step) in [(3, 0.5), (4, 2.0), (5, 0.5), (6, 0.5), (7, 2.0)] {
            let of = |index: usize| &grown.values[index * 2..][..2];
            let [x, y] = [0, 1].map(|at| of(index)[at] - of(index % 3)[at]);
            assert!((x.hypot(y) - step).abs() < 1e-5, "code {index}: {x} {y}");
        }
        // Two that split one code part from each other, too.
        assert_ne!(grown.values[6..8], grown.values[12..14]);
        assert_eq!(grow_codebook(codebook.clone(), 2), codebook);
    }

    #[test]
    fn should_fit_every_parameter_to_the_larger_picture_and_keep_the_others() {
        let device = Device::flex();
        let small = presets::mini();
        let mut large = small.clone();
        large.image = crate::ImageSize { height: 128, width: 96 };
        large.prefix = 12;
        let initialization =
            Initialization { seed: 1, positions: Positions::Random, weights: Weights::Small };
        let before = collect(&small.initialize(&initialization, &device).unwrap());
        let after = resize(before.clone(), &small, &large);
        let model = load(large.build(&device).unwrap(), after.clone()).unwrap();
        assert!(model.decoder(DecoderKind::Bidirectional).is_ok());
        let changed: Vec<&str> =
            before.iter().filter(|(n, t)| after[*n] != **t).map(|(n, _)| n.as_str()).collect();
        let expected = [
            "bidirectional_decoder.positions",
            "causal_decoder.positions",
            "encoder.latents.positions",
            "encoder.latents.tokens",
            "encoder.positions",
        ];
        assert_eq!(changed, expected);
        // To the same size, nothing changes.
        assert_eq!(resize(before.clone(), &small, &small), before);
    }
}
