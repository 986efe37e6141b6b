//! Initial values of a tokenizer's parameters, as a pure function of seed and name.

use burn::module::Module;
use files::HostTensor;
use operations::parameters::replace;
use serde::{Deserialize, Serialize};
use tokens::{TokenLayout, TokenPosition, noise::Noise};

/// Standard deviation of the truncated normal distribution of weights (released code).
const DEVIATION: f64 = 0.02;

/// Standard deviation of a query's values where keys begin equal to queries.
const QUERY_DEVIATION: f64 = 1.2;

/// How position tables begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Independent normal noise (paper and released code).
    Random,
    /// One two-dimensional sinusoid for patches, latents and the decoder's tokens alike, the
    /// prefix as a row above the picture; and in the encoder keys that begin equal to queries
    /// (as in Trockman and Kolter 2023). A token then attends to where it stands itself, and a
    /// latent to its patch, from the first step; at random, finding it takes hundreds.
    Sinusoid,
}

/// How a tokenizer's parameters begin: truncated normal of deviation 0.02 for linear layers and
/// codebook, zero biases, and position tables, latents and leading tokens of deviation
/// width^−½ (released code), or positions by sinusoid.
#[derive(Debug, Clone, Copy)]
pub struct Initialization {
    /// Seed of all values.
    pub seed: u64,
    /// How position tables begin.
    pub positions: Positions,
}

impl Initialization {
    /// Gives every parameter of a module of this crate its initial value.
    pub(crate) fn apply<M: Module>(&self, module: M, layout: TokenLayout) -> M {
        replace(module, |name, shape| {
            let mut noise = Noise::of_parameter(self.seed, name, 0);
            let count = shape.iter().product::<usize>();
            let kind = Kind::of(name);
            let positional = self.positions == Positions::Sinusoid
                && name.starts_with("encoder.blocks.")
                && name.ends_with("query_key_value.weight");
            if positional {
                return Some(HostTensor::new(shape, equal_queries_and_keys(&mut noise, shape[1])));
            }
            let values = match (kind, self.positions) {
                (Kind::Norm, _) => return None,
                (Kind::Bias, _) => vec![0.0; count],
                (Kind::Weight, _) => (0..count).map(|_| truncated_normal(&mut noise)).collect(),
                (Kind::Positions, Positions::Sinusoid) => sinusoid(layout, shape[0], shape[1]),
                (Kind::Positions | Kind::Table, _) => {
                    let scale = (shape[1] as f64).powf(-0.5);
                    (0..count).map(|_| (scale * noise.normal()) as f32).collect()
                }
            };
            Some(HostTensor::new(shape, values))
        })
    }
}

enum Kind {
    Weight,
    Bias,
    Norm,
    Positions,
    Table,
}

impl Kind {
    fn of(name: &str) -> Self {
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        match last {
            "positions" => Self::Positions,
            "tokens" | "leading" => Self::Table,
            _ if parent.ends_with("norm") => Self::Norm,
            "bias" => Self::Bias,
            _ => Self::Weight,
        }
    }
}

/// Normal with [`DEVIATION`], cut at ±2 as PyTorch's `trunc_normal_` does by default, which at
/// this deviation cuts nothing.
fn truncated_normal(noise: &mut Noise) -> f32 {
    loop {
        let value = DEVIATION * noise.normal();
        if value.abs() <= 2.0 {
            return value as f32;
        }
    }
}

/// The weight of queries, keys and values, `[3·width, width]`, with keys equal to queries and
/// both so large that attention tells positions apart.
fn equal_queries_and_keys(noise: &mut Noise, width: usize) -> Vec<f32> {
    let scale = QUERY_DEVIATION / (width as f64).sqrt();
    let queries: Vec<f32> = (0..width * width).map(|_| (scale * noise.normal()) as f32).collect();
    let mut weight = queries.repeat(2);
    weight.extend((0..width * width).map(|_| truncated_normal(noise)));
    weight
}

/// A table of `rows` positions whose last ones are those of the layout (or of its grid), the
/// ones before them zero.
fn sinusoid(layout: TokenLayout, rows: usize, width: usize) -> Vec<f32> {
    let first = if rows < layout.len() { layout.prefix() } else { 0 };
    let known = layout.len() - first;
    let mut values = vec![0.0; (rows - known) * width];
    for index in first..layout.len() {
        let (row, column) = match layout.position(index) {
            TokenPosition::Grid { row, column } => (row as f64, column as f64),
            TokenPosition::Prefix { index } => {
                (-1.0, (index * layout.columns()) as f64 / layout.prefix() as f64)
            }
        };
        for (place, extent) in [(row, layout.rows()), (column, layout.columns())] {
            let half = width / 2;
            for channel in 0..half {
                // Wavelengths from 2π patches up to nearly 2π times the picture.
                let octave = (channel / 2) as f64 / (half as f64 / 2.0);
                let angle = place / (extent as f64).powf(octave);
                let value = if channel % 2 == 0 { angle.sin() } else { angle.cos() };
                values.push(value as f32);
            }
        }
        values.resize(values.len().div_ceil(width) * width, 0.0);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_give_a_patch_and_its_latent_the_same_sinusoid() {
        let (layout, width) = (TokenLayout::new(4, 4, 4), 12);
        let patches = sinusoid(layout, layout.grid(), width);
        let latents = sinusoid(layout, layout.len(), width);
        let decoder = sinusoid(layout, layout.len() + 3, width);
        assert_eq!(patches, latents[layout.prefix() * width..]);
        assert_eq!(latents, decoder[3 * width..]);
        assert!(decoder[..3 * width].iter().all(|&value| value == 0.0));
    }

    #[test]
    fn should_tell_all_positions_apart() {
        let (layout, width) = (TokenLayout::new(8, 8, 8), 32);
        let table = sinusoid(layout, layout.len(), width);
        let rows: Vec<&[f32]> = table.chunks(width).collect();
        for (index, row) in rows.iter().enumerate() {
            for other in &rows[index + 1..] {
                let distance: f32 = row.iter().zip(*other).map(|(a, b)| (a - b).powi(2)).sum();
                assert!(distance > 0.05);
            }
        }
    }
}
