//! Looking into models: where patches look, which codes are used, how well tokens are predicted, and
//! what reconstructions lose.

#[cfg(feature = "reference")]
pub mod attention;
pub mod codes;
#[cfg(feature = "reference")]
pub mod predictability;
pub mod reconstructions;

use pixels::{DataSet, Picture, crop::Crop};
use tokenizer::ImageSize;

use crate::EvaluationError;

/// A picture of a data set, cropped to a tokenizer's size.
///
/// # Errors
/// If it cannot be read.
pub fn picture(
    data: &dyn DataSet,
    index: usize,
    image: ImageSize,
) -> Result<Picture, EvaluationError> {
    let picture = data.picture(index)?;
    Ok(Crop::Center.fit(picture, image.width, image.height, data.name(index))?)
}

/// # Shapes
/// `[1, 3, height, width]` in [0, 1].
#[cfg(feature = "reference")]
fn tensor(picture: &Picture, device: &burn::tensor::Device) -> burn::tensor::Tensor<4> {
    let shape = [1, 3, picture.height(), picture.width()];
    let data = burn::tensor::TensorData::new(picture.to_unit_planes(), shape);
    burn::tensor::Tensor::from_data(data, device)
}

/// The grid's values, row by row, of one value a token.
#[cfg(feature = "reference")]
fn rows(layout: tokens::TokenLayout, values: &[f64]) -> Vec<Vec<f64>> {
    values[layout.grid_range()].chunks(layout.columns()).map(<[f64]>::to_vec).collect()
}
