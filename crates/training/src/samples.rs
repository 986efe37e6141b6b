//! Pictures that show how far a training is.

use burn::tensor::{Device, Tensor};
use pixels::{DataSet, Picture};
use tokenizer::ImageSize;

use crate::{
    TrainingError,
    loader::{ImageBatch, fitted},
};

/// Pictures in a row of a grid.
pub(crate) const COLUMNS: usize = 8;

/// The pictures of a data set that are always shown, evenly spread over it.
///
/// # Shapes
/// `[count, 3, height, width]` in [0, 1], at most [`COLUMNS`] of them.
pub(crate) fn originals(
    data: &dyn DataSet,
    image: ImageSize,
    device: &Device,
) -> Result<Tensor<4>, TrainingError> {
    let places = COLUMNS.min(data.len());
    let (mut values, mut count) = (Vec::new(), 0);
    for place in 0..places {
        // One that cannot be read is left out: training tells of it when it meets it.
        if let Ok(picture) = fitted(data, place * data.len() / places, image) {
            values.extend(picture.to_unit_planes());
            count += 1;
        }
    }
    if count == 0 {
        return Err(TrainingError::Data("none of the pictures to be shown can be read".into()));
    }
    let ImageSize { height, width } = image;
    Ok(ImageBatch::new(values, [count, 3, height, width]).into_tensor(device))
}

/// A grid with a row for each of `rows`.
///
/// # Shapes
/// Each `[count, 3, height, width]` in [0, 1].
pub(crate) fn grid(rows: Vec<Tensor<4>>) -> Result<Picture, TrainingError> {
    let columns = rows.first().map_or(0, |row| row.dims()[0]);
    let mut pictures = Vec::new();
    for row in rows {
        let [_, _, height, width] = row.dims();
        let values = operations::parameters::host_tensor(row).values;
        for planes in values.chunks_exact(3 * height * width) {
            pictures.push(Picture::from_unit_planes(width, height, planes)?);
        }
    }
    Ok(grid_of(&pictures, columns)?)
}

/// Pictures in rows on white.
pub(crate) fn grid_of(
    pictures: &[Picture],
    columns: usize,
) -> Result<Picture, pixels::PixelsError> {
    let gap = pictures.first().map_or(0, Picture::width) / 32;
    Picture::grid(pictures, columns, gap, [255; 3])
}
