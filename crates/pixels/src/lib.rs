//! Pictures and the data sets they come from.
//!
//! [`Picture`] decodes PNG, JPEG, WebP and GIF to the bits of Pillow, whatever machine it runs on, and
//! encodes PNG. [`crop`] holds the crops of ADM and of ten-crop training, [`augment`] the random
//! views that training takes. There are no tensors here: models receive
//! [`Picture::to_unit_planes`].
//!
//! ```
//! use pixels::{Picture, crop::center_crop};
//!
//! let picture = Picture::new(96, 64, vec![200; 96 * 64 * 3])?;
//! let square = center_crop(&picture, 32)?;
//! let bytes = square.encode_png();
//! assert_eq!(Picture::decode(&bytes, "square.png")?, square);
//! # Ok::<(), pixels::PixelsError>(())
//! ```
//!
//! | feature | adds |
//! | --- | --- |
//! | none | pictures in memory; builds for `wasm32-unknown-unknown` |
//! | `data` (default) | [`data`]: class folders, flat folders, WebDataset shards and the bundled pictures; [`shapes`]; [`loader`], [`survey`], and [`Picture::write_png`] |
//! | `parquet` | data sets in Parquet files, as Hugging Face stores them |

pub mod augment;
#[cfg(feature = "data")]
pub mod bundle;
pub mod crop;
#[cfg(feature = "data")]
pub mod data;
mod error;
mod formats;
#[cfg(feature = "data")]
pub mod loader;
#[cfg(feature = "data")]
mod palette;
mod picture;
mod resample;
#[cfg(feature = "data")]
pub mod shapes;
#[cfg(feature = "data")]
pub mod survey;

#[cfg(feature = "data")]
pub use data::{DataSet, Sample};
pub use error::PixelsError;
pub use picture::Picture;
