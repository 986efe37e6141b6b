//! Initial values of a tokenizer's parameters, as a pure function of seed and name.

use std::{collections::BTreeMap, iter};

use burn::module::Module;
use files::HostTensor;
use operations::parameters::{replace, shapes};
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

/// How the weights of linear layers begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// Truncated normal of deviation 0.02 (paper and released code).
    #[default]
    Small,
    /// As small, except on the way from a picture to its codes and from codes to a picture, where
    /// they keep the size of what they are given: the patch embedding, which takes middle grey as
    /// nothing, the encoder's values and projections, the decoder's embedding, and colours that begin
    /// as they are. Small weights there shrink the content to a hundredth of the positions beside it, and
    /// hundreds of steps go by before a decoder draws anything but the mean picture. Where positions
    /// are sinusoids, the encoder's values and features begin blind to them, and latents begin with
    /// little else, so that codes tell of content.
    Even,
}

/// How a tokenizer's parameters begin: truncated normal of deviation 0.02 for linear layers and
/// codebook, zero biases, and position tables, latents and leading tokens of deviation
/// width^−½ (released code), or as [`Positions`] and [`Weights`] say.
#[derive(Debug, Clone, Copy)]
pub struct Initialization {
    /// Seed of all values.
    pub seed: u64,
    /// How position tables begin.
    pub positions: Positions,
    /// How the weights of linear layers begin.
    pub weights: Weights,
}

impl Initialization {
    /// Gives every parameter of a module of this crate its initial value.
    pub(crate) fn apply<M: Module>(&self, module: M, layout: TokenLayout) -> M {
        let shapes = shapes(&module);
        replace(module, |name, shape| {
            let mut noise = Noise::of_parameter(self.seed, name, 0);
            let count = shape.iter().product::<usize>();
            let values = match (Kind::of(name), self.positions) {
                (Kind::Norm, _) => return None,
                (Kind::Bias, _) => self.bias(name, count, &shapes, layout),
                (Kind::Weight, _) => self.weight(name, shape[0], shape[1], layout),
                (Kind::Positions, Positions::Sinusoid) => sinusoid(layout, shape[0], shape[1]),
                (Kind::Positions | Kind::Table, _) => {
                    // Latents that differ by their sinusoids need not differ by more.
                    let is_plain = self.weights == Weights::Even
                        && self.positions == Positions::Sinusoid
                        && name == "encoder.latents.tokens";
                    let scale = if is_plain { DEVIATION } else { (shape[1] as f64).powf(-0.5) };
                    (0..count).map(|_| (scale * noise.normal()) as f32).collect()
                }
            };
            Some(HostTensor::new(shape, values))
        })
    }

    /// The bias of a layer of so many `rows`: zero, except that an even patch embedding makes nothing of
    /// middle grey. What all pictures share would outweigh the rest.
    fn bias(
        &self,
        name: &str,
        rows: usize,
        shapes: &BTreeMap<String, Vec<usize>>,
        layout: TokenLayout,
    ) -> Vec<f32> {
        let weight = name.replace(".bias", ".weight");
        let is_even = self.weights == Weights::Even && Role::of(&weight) == Role::PatchEmbedding;
        match shapes.get(&weight).filter(|_| is_even) {
            Some(shape) => {
                let values = self.weight(&weight, rows, shape[1], layout);
                values.chunks(shape[1]).map(|row| -0.5 * row.iter().sum::<f32>()).collect()
            }
            None => vec![0.0; rows],
        }
    }

    /// The weight of a linear layer, `[rows, columns]`.
    fn weight(&self, name: &str, rows: usize, columns: usize, layout: TokenLayout) -> Vec<f32> {
        let noise = &mut Noise::of_parameter(self.seed, name, 0);
        let role = Role::of(name);
        let by_sinusoid = self.positions == Positions::Sinusoid;
        let mut values: Vec<f32> = match role {
            Role::EncoderAttention if by_sinusoid => equal_queries_and_keys(noise, columns),
            _ => (0..rows * columns).map(|_| truncated_normal(noise)).collect(),
        };
        if self.weights == Weights::Small {
            return values;
        }
        let narrow = (columns as f64).powf(-0.5);
        // Of queries, keys and values, the last third.
        let first = if role == Role::EncoderAttention { values.len() / 3 * 2 } else { 0 };
        let carrying = &mut values[first..];
        let deviation = match role {
            // Neighbouring pixels differ little, and pictures by about a quarter of what a pixel can be.
            Role::PatchEmbedding => 2.8 * narrow,
            Role::EncoderAttention | Role::EncoderProjection => narrow,
            // Features have a deviation of about a quarter.
            Role::CodeEmbedding => 4.0 * narrow,
            Role::Feature | Role::Color | Role::Other => DEVIATION,
        };
        let scale = (deviation / DEVIATION) as f32;
        carrying.iter_mut().for_each(|value| *value *= scale);
        if by_sinusoid && matches!(role, Role::EncoderAttention | Role::Feature) {
            blind_to(&sinusoid(layout, layout.len(), columns), carrying, columns);
        }
        if role == Role::Color {
            carrying.iter_mut().step_by(columns + 1).for_each(|value| *value += 1.0);
        }
        values
    }
}

/// What a linear layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// From a patch's pixels to the encoder's width.
    PatchEmbedding,
    /// Queries, keys and values of the encoder.
    EncoderAttention,
    /// From the encoder's values back to its width.
    EncoderProjection,
    /// From the encoder's width to a feature.
    Feature,
    /// From a code to the decoder's width.
    CodeEmbedding,
    /// From three colours to three.
    Color,
    Other,
}

impl Role {
    /// Of a parameter of a tokenizer, or of a decoder alone.
    fn of(name: &str) -> Self {
        let Some(layer) = name.strip_suffix(".weight") else { return Self::Other };
        let (parent, last) = layer.rsplit_once('.').unwrap_or(("", layer));
        let is_encoder = parent.starts_with("encoder");
        match last {
            "patch_embedding" => Self::PatchEmbedding,
            "query_key_value" if is_encoder => Self::EncoderAttention,
            "projection" if is_encoder => Self::EncoderProjection,
            "to_code" => Self::Feature,
            "embedding" => Self::CodeEmbedding,
            "color" => Self::Color,
            _ => Self::Other,
        }
    }
}

/// Makes rows of a weight answer nothing to any row of a table, nor to a constant, which is what a
/// layer norm adds to it: takes out what lies in the space that they span.
fn blind_to(table: &[f32], weight: &mut [f32], width: usize) {
    let dot =
        |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(a, b)| a * b).sum() };
    let take_out = |basis: &[Vec<f64>], vector: &mut [f64]| {
        for direction in basis {
            let along = dot(direction, vector);
            vector.iter_mut().zip(direction).for_each(|(value, part)| *value -= along * part);
        }
    };
    let wide = |row: &[f32]| -> Vec<f64> { row.iter().map(|&value| f64::from(value)).collect() };
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for mut vector in iter::once(vec![1.0; width]).chain(table.chunks(width).map(wide)) {
        let before = dot(&vector, &vector);
        take_out(&basis, &mut vector);
        let left = dot(&vector, &vector);
        // Less than that is rounding: the row is a sum of earlier ones.
        if left > 1e-6 * before {
            let length = left.sqrt();
            basis.push(vector.into_iter().map(|value| value / length).collect());
        }
    }
    for row in weight.chunks_mut(width) {
        let mut vector = wide(row);
        take_out(&basis, &mut vector);
        row.iter_mut().zip(vector).for_each(|(value, new)| *value = new as f32);
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

    #[test]
    fn should_be_blind_to_a_table_and_to_constants_and_to_nothing_else() {
        let (layout, width) = (TokenLayout::new(4, 4, 4), 48);
        let table = sinusoid(layout, layout.len(), width);
        let mut noise = Noise::of_parameter(3, "weight", 0);
        let before: Vec<f32> = (0..5 * width).map(|_| noise.normal() as f32).collect();
        let mut weight = before.clone();
        blind_to(&table, &mut weight, width);
        let answers = |weight: &[f32], input: &[f32]| -> Vec<f32> {
            weight
                .chunks(width)
                .map(|row| row.iter().zip(input).map(|(a, b)| a * b).sum())
                .collect()
        };
        for input in table.chunks(width).chain([&vec![1.0; width][..]]) {
            assert!(answers(&weight, input).iter().all(|answer| answer.abs() < 1e-5));
            assert!(answers(&before, input).iter().any(|answer| answer.abs() > 0.1));
        }
        let size = |weight: &[f32]| weight.iter().map(|value| value * value).sum::<f32>();
        assert!(size(&weight) > 0.5 * size(&before), "most directions are left");
    }

    #[test]
    fn should_know_what_a_layer_is_for_in_a_tokenizer_and_in_a_decoder_alone() {
        let roles = [
            ("encoder.patch_embedding.weight", Role::PatchEmbedding),
            ("encoder.blocks.3.attention.query_key_value.weight", Role::EncoderAttention),
            ("causal_decoder.blocks.3.attention.query_key_value.weight", Role::Other),
            ("blocks.3.attention.projection.weight", Role::Other),
            ("encoder.blocks.0.attention.projection.weight", Role::EncoderProjection),
            ("encoder.to_code.weight", Role::Feature),
            ("causal_decoder.embedding.weight", Role::CodeEmbedding),
            ("embedding.weight", Role::CodeEmbedding),
            ("prefix_head.color.weight", Role::Color),
            ("quantizer.codebook", Role::Other),
        ];
        for (name, role) in roles {
            assert_eq!(Role::of(name), role, "{name}");
        }
    }
}
