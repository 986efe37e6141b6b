//! Pictures as Python gives them: files, or bytes with a height and a width.

use pixels::{Picture, crop::Crop};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use tokenizer::ImageSize;

use crate::{array::Array, failure::Failure};

/// One picture. It holds nothing that needs Python's lock.
#[derive(FromPyObject)]
pub(crate) enum Source {
    /// The name of a file.
    File(String),
    /// 8-bit RGB, `[height, width, 3]`, then height and width.
    Pixels(PyBackedBytes, usize, usize),
}

impl Source {
    /// The picture.
    pub(crate) fn read(&self) -> Result<Picture, Failure> {
        match self {
            Self::File(path) => Ok(Picture::read(path)?),
            Self::Pixels(bytes, height, width) => {
                Ok(Picture::new(*width, *height, bytes.to_vec())?)
            }
        }
    }

    /// The picture at the size of a model; `number` is its place among those that were given.
    pub(crate) fn fitted(
        &self,
        image: ImageSize,
        crop: bool,
        number: usize,
    ) -> Result<Picture, Failure> {
        let crop = if crop { Crop::Center } else { Crop::Never };
        let name = match self {
            Self::File(path) => path.clone(),
            Self::Pixels(..) => format!("picture {number}"),
        };
        Ok(crop.fit(self.read()?, image.width, image.height, &name)?)
    }
}

/// A picture as an array `[height, width, 3]`.
pub(crate) fn array(picture: Picture) -> Array {
    Array::u8([picture.height(), picture.width(), 3], picture.into_rgb())
}

/// Pictures of one size as an array `[count, height, width, 3]`.
pub(crate) fn arrays(pictures: Vec<Picture>, image: ImageSize) -> Array {
    let count = pictures.len();
    let mut values = Vec::with_capacity(count * image.height * image.width * 3);
    for picture in pictures {
        values.extend_from_slice(picture.rgb());
    }
    Array::u8([count, image.height, image.width, 3], values)
}
