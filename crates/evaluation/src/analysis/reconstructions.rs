//! Pictures beside their reconstructions, with a part enlarged (paper, Figs. 7 and 10).

use charts::{Figure, Picture as PicturePanel};
use model::Model;
use pipeline::{Compute, Decode, Encode};
use pixels::Picture;
use tokenizer::{DecoderKind, ImageSize};

use crate::EvaluationError;

/// A square of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Pixels to the left of it.
    pub left: usize,
    /// Pixels above it.
    pub top: usize,
    /// Its side in pixels.
    pub side: usize,
}

/// A column of the comparison.
struct Column {
    title: String,
    /// Which of the encoders.
    encoder: usize,
    decoder: Box<dyn Decode>,
}

/// Models whose reconstructions are compared: a column for each decoder of each.
#[allow(missing_debug_implementations)] // what encodes and decodes has nothing to show
pub struct Comparison {
    encoders: Vec<Box<dyn Encode>>,
    columns: Vec<Column>,
    image: ImageSize,
}

/// A picture beside its reconstructions.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The part that is enlarged.
    pub region: Region,
    /// A row: each picture as a whole, and its part beside it.
    pub panels: Vec<PicturePanel>,
}

impl Comparison {
    /// Opens models, each with its name, and of each the decoder that was asked for or all that it has.
    ///
    /// # Errors
    /// If a model lacks the decoder, or the models take pictures of different sizes.
    pub fn open(
        models: &[(String, Model)],
        decoder: Option<DecoderKind>,
        compute: &Compute,
    ) -> Result<Self, EvaluationError> {
        let mut encoders: Vec<Box<dyn Encode>> = Vec::new();
        let mut columns = Vec::new();
        for (name, model) in models {
            encoders.push(compute.encoder(model)?);
            let config = &model.config.tokenizer;
            let kinds: Vec<DecoderKind> = match decoder {
                Some(decoder) => vec![decoder],
                None => [DecoderKind::Causal, DecoderKind::Bidirectional]
                    .into_iter()
                    .filter(|&kind| config.decoder(kind).is_ok())
                    .collect(),
            };
            for kind in kinds {
                let decoder = compute.decoder(model, Some(kind))?;
                let title = format!("{name}, {kind}");
                columns.push(Column { title, encoder: encoders.len() - 1, decoder });
            }
        }
        let mut sizes = encoders.iter().map(|encoder| encoder.config().image);
        let image =
            sizes.next().ok_or_else(|| EvaluationError::impossible("there are no models"))?;
        if sizes.any(|other| other != image) {
            return Err(EvaluationError::impossible(
                "the models take pictures of different sizes; compare those of one size",
            ));
        }
        Ok(Self { encoders, columns, image })
    }

    /// Size of the pictures.
    pub fn image(&self) -> ImageSize {
        self.image
    }

    /// Rebuilds a picture of the models' size by all models. The part is the one that the last column
    /// rebuilds worst, unless one is given.
    ///
    /// # Errors
    /// If the part reaches beyond the picture, or the picture is of another size.
    pub fn compare(
        &self,
        original: &Picture,
        region: Option<Region>,
    ) -> Result<Compared, EvaluationError> {
        let image = self.image;
        let mut rebuilt = Vec::new();
        for column in &self.columns {
            let tokens = self.encoders[column.encoder].encode(original)?;
            rebuilt.push(column.decoder.decode(&tokens)?);
        }
        let region = match region {
            Some(region) => {
                let Region { left, top, side } = region;
                if left + side > image.width || top + side > image.height {
                    let problem = format!(
                        "it reaches beyond the picture of {} x {} pixels",
                        image.width, image.height
                    );
                    let option = format!("--region {left},{top},{side}");
                    return Err(EvaluationError::option(option, problem));
                }
                region
            }
            None => worst(original, rebuilt.last(), image.width.min(image.height).div_ceil(4)),
        };
        let mut row = vec![("original".to_owned(), original)];
        for (column, rebuilt) in self.columns.iter().zip(&rebuilt) {
            let psnr = metrics::psnr(original.rgb(), rebuilt.rgb())?;
            row.push((format!("{}, {psnr:.1} dB", column.title), rebuilt));
        }
        let Region { left, top, side } = region;
        let mut panels = Vec::new();
        for (title, picture) in &row {
            let mut panel = panel(title.clone(), picture);
            panel.boxes = vec![[left, top, side, side]];
            panels.push(panel);
            let times = three_figures(image.width.min(image.height) as f64 / side as f64);
            panels.push(self::panel(format!("{times} times"), &cut(picture, region)?));
        }
        Ok(Compared { region, panels })
    }

    /// The figure of several pictures.
    pub fn figure(&self, pictures: impl IntoIterator<Item = Compared>) -> Figure {
        let panels = pictures.into_iter().flat_map(|compared| compared.panels);
        Figure::new(panels).with_columns(2 * (self.columns.len() + 1)).with_panel_size(280, 300)
    }
}

/// A number without digits that say nothing: `4`, `2.67`.
fn three_figures(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn panel(title: String, picture: &Picture) -> PicturePanel {
    PicturePanel::new(title, picture.width(), picture.height(), picture.rgb())
}

/// The square of this side, on a lattice of quarters of it, where a reconstruction is farthest
/// from the original.
fn worst(original: &Picture, rebuilt: Option<&Picture>, side: usize) -> Region {
    let mut largest = (0, Region { left: 0, top: 0, side });
    let Some(rebuilt) = rebuilt else { return largest.1 };
    let (width, height) = (original.width(), original.height());
    let step = (side / 4).max(1);
    let error = |left: usize, top: usize| -> u64 {
        (top..top + side)
            .flat_map(|row| {
                let pixels = 3 * (row * width + left)..3 * (row * width + left + side);
                original.rgb()[pixels.clone()].iter().zip(&rebuilt.rgb()[pixels])
            })
            .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
            .sum()
    };
    for top in (0..=height - side).step_by(step) {
        for left in (0..=width - side).step_by(step) {
            let error = error(left, top);
            if error > largest.0 {
                largest = (error, Region { left, top, side });
            }
        }
    }
    largest.1
}

fn cut(picture: &Picture, Region { left, top, side }: Region) -> Result<Picture, EvaluationError> {
    let rows = (top..top + side).flat_map(|row| {
        let start = 3 * (row * picture.width() + left);
        &picture.rgb()[start..start + 3 * side]
    });
    Ok(Picture::new(side, side, rows.copied().collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_and_cut_the_worst_part() {
        let original = Picture::new(16, 16, vec![100; 16 * 16 * 3]).unwrap();
        let mut rgb = original.rgb().to_vec();
        rgb[3 * (9 * 16 + 13)] = 0;
        let rebuilt = Picture::new(16, 16, rgb).unwrap();
        let region = worst(&original, Some(&rebuilt), 4);
        let Region { left, top, side } = region;
        assert!((left..left + side).contains(&13) && (top..top + side).contains(&9), "{region:?}");
        let cut = cut(&rebuilt, region).unwrap();
        assert_eq!((cut.width(), cut.height()), (4, 4));
        assert_eq!(cut.rgb().iter().filter(|&&value| value == 0).count(), 1);
    }
}
