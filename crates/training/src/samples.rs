//! Pictures that show how far a training is.

use burn::tensor::{Device, Tensor};
use charts::Sheet;
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

/// A sheet with a row for each of `rows`, which have names.
///
/// # Shapes
/// Each `[count, 3, height, width]` in [0, 1].
pub(crate) fn sheet_of_rows(rows: Vec<(&str, Tensor<4>)>) -> Result<Picture, TrainingError> {
    let columns = rows.first().map_or(0, |(_, row)| row.dims()[0]);
    let (mut names, mut pictures) = (Vec::new(), Vec::new());
    for (name, row) in rows {
        names.push(name.to_owned());
        let [_, _, height, width] = row.dims();
        let values = operations::parameters::host_tensor(row).values;
        for planes in values.chunks_exact(3 * height * width) {
            pictures.push(Picture::from_unit_planes(width, height, planes)?);
        }
    }
    sheet(&pictures, Sheet { columns, row_names: names, ..Sheet::default() })
}

/// A sheet of pictures, with the words of one without.
pub(crate) fn sheet(pictures: &[Picture], words: Sheet) -> Result<Picture, TrainingError> {
    let pictures = pictures
        .iter()
        .map(|picture| charts::Picture::new("", picture.width(), picture.height(), picture.rgb()));
    let (width, height, rgb) = Sheet { pictures: pictures.collect(), ..words }.to_rgb()?;
    Ok(Picture::new(width, height, rgb)?)
}
