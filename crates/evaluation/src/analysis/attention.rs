//! Where the patches of pictures look in a decoder (paper, Figs. 8 and 11).

use burn::tensor::Device;
use charts::{Figure, HeatMap, Panel, Picture as PicturePanel};
use model::Model;
use pipeline::decoder_kind;
use pixels::DataSet;
use serde::Serialize;
use tokenizer::{
    DecoderKind,
    reference::{DecoderAttention, LocalPattern, Tokenizer},
};
use tokens::TokenLayout;

use super::{picture, rows, tensor};
use crate::{EvaluationError, Observer};

/// Patches whose maps are drawn unless others are chosen: these parts of the way down and across.
const PLACES: [(f64, f64); 4] = [(0.2, 0.2), (0.35, 0.7), (0.65, 0.35), (0.8, 0.8)];

/// What is looked at.
#[derive(Debug, Clone)]
pub struct AttentionOptions {
    /// The decoder; the model's best without it.
    pub decoder: Option<DecoderKind>,
    /// Pictures that the mean is over, spread over the data set.
    pub count: usize,
    /// The picture of the maps: its number in the data set, from 0.
    pub picture: usize,
    /// Row and column of the patches to draw maps of, from 0; four patches without any.
    pub patches: Vec<(usize, usize)>,
    /// One layer instead of the mean of all, from 0.
    pub layer: Option<usize>,
}

/// The attention of one model's decoder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelAttention {
    /// The model, as it was named.
    pub model: String,
    /// The decoder's name.
    pub decoder: &'static str,
    /// Number of pictures.
    pub pictures: usize,
    /// What a patch gives to the 3 × 3 patches around it, by row and column.
    pub local_pattern: [[f64; 3]; 3],
    /// Of what goes to the eight neighbours, the share of the four before the patch.
    pub preceding_share: Option<f64>,
    /// The picture of the maps, with the patches framed and numbered.
    #[serde(skip)]
    pub picture: PicturePanel,
    /// The mean pattern, then a map for each patch, in percent. What is masked has no number.
    #[serde(skip)]
    pub maps: Vec<HeatMap>,
}

/// The figure of several models, a row each. All maps have the colours of one scale, which stands at
/// the end of each row.
pub fn figure(models: &[ModelAttention]) -> Figure {
    let maps = || models.iter().flat_map(|found| &found.maps);
    let all = maps().flat_map(|map| map.values.iter().flatten());
    let most = all.copied().filter(|value| value.is_finite()).fold(0.0_f64, f64::max);
    // Room for the legend in all panels, so that the maps are of one size.
    let masked = maps().flat_map(|map| map.values.iter().flatten()).any(|value| value.is_nan());
    let mut panels: Vec<Panel> = Vec::new();
    for found in models {
        panels.push(found.picture.clone().into());
        let last = found.maps.len().saturating_sub(1);
        panels.extend(found.maps.iter().enumerate().map(|(place, map)| {
            let mut map = map.clone();
            map.range = Some((0.0, most.max(f64::MIN_POSITIVE)));
            map.without_bar = place != last;
            if masked {
                map.missing = "masked".into();
            }
            map.into()
        }));
    }
    let columns = models.first().map_or(1, |found| 1 + found.maps.len());
    Figure::new(panels).with_columns(columns).with_panel_size(260, if masked { 260 } else { 240 })
}

/// Values of the grid without those of patches behind this one where the decoder is causal, which
/// cannot look there.
fn masked(kind: DecoderKind, layout: TokenLayout, patch: usize, values: &[f64]) -> Vec<Vec<f64>> {
    let mut grid = rows(layout, values);
    if kind == DecoderKind::Causal {
        let behind = grid.iter_mut().flatten().skip(patch + 1);
        behind.for_each(|value| *value = f64::NAN);
    }
    grid
}

/// Measures the attention of a model's decoder, and draws maps of single patches.
///
/// # Errors
/// If the model lacks the decoder, or there is no such picture, patch or layer.
pub fn measure(
    name: &str,
    model: &Model,
    data: &dyn DataSet,
    options: &AttentionOptions,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<ModelAttention, EvaluationError> {
    if options.picture >= data.len() {
        let problem = format!("the data set has {} pictures, counted from 0", data.len());
        return Err(EvaluationError::option(format!("--picture {}", options.picture), problem));
    }
    let kind = decoder_kind(&model.config.tokenizer, options.decoder)?;
    let tokenizer = model.tokenizer(device)?;
    let config = tokenizer.config();
    let (image, layout) = (config.image, config.layout());
    let patches = patches(&options.patches, layout)?;
    let shown = picture(data, options.picture, image)?;
    let own = tokenizer.attention(tensor(&shown, device), kind)?;
    let layers = match options.layer {
        None => 0..own.layers(),
        Some(layer) if layer < own.layers() => layer..layer + 1,
        Some(layer) => {
            let problem =
                format!("the decoder of {name} has {} layers, counted from 0", own.layers());
            return Err(EvaluationError::option(format!("--layer {layer}"), problem));
        }
    };
    let count = data.len().min(options.count);
    // Evenly spread, so that all classes are among them.
    let indices = (0..count).map(|number| number * data.len() / count);
    let all = mean(&tokenizer, kind, data, indices, count, device, observer)?;
    let pattern = all.local_pattern(layers.clone());

    let patch = config.patch;
    let boxes = patches.iter().map(|&(row, column)| [column * patch, row * patch, patch, patch]);
    let mut input = PicturePanel::new(name, shown.width(), shown.height(), shown.rgb());
    (input.boxes, input.numbered) = (boxes.collect(), true);
    let around = TokenLayout::new(0, 3, 3);
    let percent = |weights: &[f64]| weights.iter().map(|weight| 100.0 * weight).collect();
    let weights: Vec<f64> = percent(pattern.weights.as_flattened());
    let mut maps = vec![HeatMap {
        digits: Some(2),
        frames: vec![(1, 1)],
        ..HeatMap::new(format!("{kind}: mean, % a patch"), masked(kind, around, 4, &weights))
    }];
    for (number, &(row, column)) in patches.iter().enumerate() {
        let weights: Vec<f64> = percent(&own.map(row, column, layers.clone()));
        let index = row * layout.columns() + column;
        let title = format!("{}: row {row}, column {column}, %", number + 1);
        maps.push(HeatMap {
            frames: vec![(row, column)],
            ..HeatMap::new(title, masked(kind, layout, index, &weights))
        });
    }
    Ok(ModelAttention {
        model: name.to_owned(),
        decoder: kind.name(),
        pictures: count,
        local_pattern: pattern.weights,
        preceding_share: pattern.preceding_share(),
        picture: input,
        maps,
    })
}

/// What the patches of pictures give to those around them, in the mean over all pictures of a data set
/// and all layers.
///
/// # Errors
/// If there are no pictures, or the tokenizer lacks the decoder.
pub fn local_pattern(
    tokenizer: &Tokenizer,
    kind: DecoderKind,
    data: &dyn DataSet,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<LocalPattern, EvaluationError> {
    let all = mean(tokenizer, kind, data, 0..data.len(), data.len(), device, observer)?;
    Ok(all.local_pattern(0..all.layers()))
}

/// The attention over several pictures.
fn mean(
    tokenizer: &Tokenizer,
    kind: DecoderKind,
    data: &dyn DataSet,
    indices: impl Iterator<Item = usize>,
    count: usize,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<DecoderAttention, EvaluationError> {
    let mut progress =
        |done: usize| observer.progress("looking at pictures", done as u64, count as u64);
    progress(0);
    let mut all: Option<DecoderAttention> = None;
    for (number, index) in indices.enumerate() {
        let picture = picture(data, index, tokenizer.config().image)?;
        let attention = tokenizer.attention(tensor(&picture, device), kind)?;
        match &mut all {
            None => all = Some(attention),
            Some(all) => all.merge(&attention),
        }
        progress(number + 1);
    }
    all.ok_or_else(|| EvaluationError::impossible("there are no pictures"))
}

/// Rows and columns of the chosen patches.
fn patches(
    chosen: &[(usize, usize)],
    layout: TokenLayout,
) -> Result<Vec<(usize, usize)>, EvaluationError> {
    if chosen.is_empty() {
        let at = |part: f64, extent: usize| (part * extent as f64) as usize;
        let place = |(down, across)| (at(down, layout.rows()), at(across, layout.columns()));
        return Ok(PLACES.map(place).to_vec());
    }
    for (row, column) in chosen {
        if *row >= layout.rows() || *column >= layout.columns() {
            let problem = format!(
                "the grid has {} rows and {} columns, counted from 0",
                layout.rows(),
                layout.columns()
            );
            return Err(EvaluationError::option(format!("--patch {row},{column}"), problem));
        }
    }
    Ok(chosen.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_tell_masked_places_from_small_ones() {
        let layout = TokenLayout::new(2, 2, 2);
        let values = [9.0, 9.0, 1.0, 0.0, 0.0, 0.0];
        let causal = masked(DecoderKind::Causal, layout, 1, &values);
        assert_eq!(causal[0], [1.0, 0.0]);
        assert!(causal[1].iter().all(|value| value.is_nan()));
        let bidirectional = masked(DecoderKind::Bidirectional, layout, 1, &values);
        assert_eq!(bidirectional, [[1.0, 0.0], [0.0, 0.0]]);
    }

    #[test]
    fn should_give_all_maps_one_scale_and_one_bar_a_row() {
        let of = |largest: f64| ModelAttention {
            model: "m".into(),
            decoder: "causal",
            pictures: 1,
            local_pattern: [[0.0; 3]; 3],
            preceding_share: None,
            picture: PicturePanel::new("m", 1, 1, &[0; 3]),
            maps: vec![
                HeatMap::new("a", vec![vec![1.0, f64::NAN]]),
                HeatMap::new("b", vec![vec![largest, 0.5]]),
            ],
        };
        let figure = figure(&[of(2.0), of(7.0)]);
        assert_eq!((figure.panels.len(), figure.columns), (6, 3));
        let maps = figure.panels.iter().filter_map(|panel| match panel {
            Panel::HeatMap(map) => Some((map.range, map.without_bar, &map.missing[..])),
            _ => None,
        });
        let scale = Some((0.0, 7.0));
        let (first, last) = ((scale, true, "masked"), (scale, false, "masked"));
        assert_eq!(maps.collect::<Vec<_>>(), [first, last, first, last]);
    }
}
