//! Data sets of labelled pictures.

mod class_folder;
mod shard_set;

use std::path::{Path, PathBuf};

pub use class_folder::ClassFolder;
pub use shard_set::ShardSet;

use crate::bundle::Split;
use crate::bundled::bundled;
use crate::{Picture, PixelsError};

/// A picture with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture as it is stored, not yet cropped.
    pub picture: Picture,
    /// Index into [`DataSet::classes`].
    pub label: usize,
    /// What the picture is called in its data set.
    pub name: String,
}

/// Labelled pictures in a fixed order.
///
/// # Panics
/// Every method that takes an index panics if the index is not smaller than [`len`](Self::len).
pub trait DataSet: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples; [`open`] never returns such a data set.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes, in the order of their labels.
    fn classes(&self) -> &[String];

    /// The class of a sample; reads nothing.
    fn label(&self, index: usize) -> usize;

    /// What a sample is called; reads nothing.
    fn name(&self, index: usize) -> &str;

    /// What a sample shows, if the data set says so; reads nothing.
    fn caption(&self, _index: usize) -> Option<&str> {
        None
    }

    /// Reads and decodes the picture of a sample.
    ///
    /// # Errors
    /// Those of [`Picture::read`], naming the sample.
    fn picture(&self, index: usize) -> Result<Picture, PixelsError>;

    /// Reads a sample.
    ///
    /// # Errors
    /// Those of [`picture`](Self::picture).
    fn sample(&self, index: usize) -> Result<Sample, PixelsError> {
        let picture = self.picture(index)?;
        Ok(Sample { picture, label: self.label(index), name: self.name(index).to_owned() })
    }
}

/// Opens the data set that `source` names: `bundled` (its training side), `bundled:heldout`, a
/// folder with one sub-folder of pictures for each class, a `.tar` shard in the WebDataset layout,
/// or a pattern (`*`, `?`, `[…]`) that matches shards.
///
/// # Errors
/// [`PixelsError::Read`] or [`PixelsError::DataSet`], naming what is missing or wrong.
pub fn open(source: &str) -> Result<Box<dyn DataSet>, PixelsError> {
    let path = Path::new(source);
    match source {
        "bundled" | "bundled:train" => Ok(Box::new(bundled(Split::Train)?)),
        "bundled:heldout" => Ok(Box::new(bundled(Split::HeldOut)?)),
        _ if source.starts_with("bundled:") => {
            Err(PixelsError::data_set(source, "its sides are `bundled` and `bundled:heldout`"))
        }
        _ if path.is_dir() => Ok(Box::new(ClassFolder::open(path)?)),
        _ if path.exists() => Ok(Box::new(ShardSet::open(&[path.to_path_buf()])?)),
        _ => Ok(Box::new(ShardSet::open(&matching(source)?)?)),
    }
}

/// The files that match a pattern, sorted.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, PixelsError> {
    let paths = glob::glob(pattern).map_err(|error| PixelsError::data_set(pattern, error))?;
    let paths: Vec<PathBuf> =
        paths.collect::<Result<_, _>>().map_err(|error| PixelsError::data_set(pattern, error))?;
    if paths.is_empty() {
        let problem = "there is no such file or folder; give `bundled`, a folder with one \
                       sub-folder for each class, or the path or pattern of tar shards";
        return Err(PixelsError::data_set(pattern, problem));
    }
    Ok(paths)
}

/// Whether a file extension is that of a picture.
fn is_picture(extension: &str) -> bool {
    ["png", "jpg", "jpeg", "webp", "gif"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
