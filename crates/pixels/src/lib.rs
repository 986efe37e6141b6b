//! Pictures and the data sets they come from: decoding, crops equal to Pillow's to the bit,
//! augmentation, folders, WebDataset shards and the bundled pictures. No tensors here: models
//! receive [`Picture::to_unit_planes`].

pub mod augment;
pub mod bundle;
pub mod crop;
pub mod data;
mod error;
mod jpeg;
pub mod loader;
mod palette;
mod picture;
mod resample;
pub mod survey;
mod vectorized;

pub use data::{DataSet, Sample};
pub use error::PixelsError;
pub use picture::Picture;
