//! What can go wrong between a file and a picture. Every message names the file and the fix.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PixelsError {
    /// A file or folder that cannot be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that cannot be written; nothing was left behind.
    #[error(
        "cannot write {}: {source}; check that the folder exists, may be written and has space left",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Bytes that are no picture of a known format.
    #[error(
        "{name} is not a PNG, JPEG, WebP or GIF picture but {kind}; convert it to one of these formats"
    )]
    NotAPicture {
        /// Where the bytes come from.
        name: String,
        /// What they seem to be: "a TIFF picture".
        kind: &'static str,
    },
    /// A picture of a known format that does not decode.
    #[error(
        "the picture {name} is truncated, damaged or of an unsupported kind ({reason}); get it again or convert it to PNG"
    )]
    Damaged {
        /// Where the bytes come from.
        name: String,
        /// What the decoder says.
        reason: String,
    },
    /// A picture beyond the decoder's limits.
    #[error("the picture {name} is too large ({reason}); scale it down first")]
    TooLarge {
        /// Where the bytes come from.
        name: String,
        /// Its size and the limit.
        reason: String,
    },
    /// Parquet files, in a program without the feature `parquet`.
    #[error(
        "{name} is Parquet, which this program was built without; build it with `--features reference`"
    )]
    WithoutParquet {
        /// The files, as the caller named them.
        name: String,
    },
    /// A crop larger than anybody looks at, and than memory may hold.
    #[error("a crop of {size} pixels a side is too large; {limit} is the most")]
    CropSize {
        /// The side that was asked for.
        size: usize,
        /// The longest side.
        limit: usize,
    },
    /// Numbers that do not fill a picture of the given size.
    #[error("a picture of {width} x {height} needs {expected} values, got {got}")]
    Values {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// How many values it needs; 0 for a size that is no picture.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// A grid of no pictures.
    #[error("a grid needs at least one picture")]
    EmptyGrid,
    /// A picture of the wrong size that may not, or cannot, be cropped.
    #[error(
        "{name} is {width} x {height} pixels and the model wants {} x {}; resize it first, or \
         allow the centre crop if that is a square",
        wanted.0, wanted.1
    )]
    WrongSize {
        /// The picture.
        name: String,
        /// Its width in pixels.
        width: usize,
        /// Its height in pixels.
        height: usize,
        /// The wanted width and height in pixels.
        wanted: (usize, usize),
    },
    /// A data set that cannot be used, or one of its samples.
    #[error("data set {set}: {problem}")]
    DataSet {
        /// The folder, shard, pattern or name that was asked for.
        set: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl PixelsError {
    /// Whether the system failed (a disk, a network, too many open files) and not the picture. A
    /// picture that is missing, forbidden, cut or damaged is the same on every day and on every
    /// machine; what the system does is not, and must not decide which pictures are learned from.
    pub fn is_of_the_system(&self) -> bool {
        use std::io::ErrorKind::{
            InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof,
        };
        let of_the_file =
            [InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied, UnexpectedEof];
        matches!(self, Self::Read { source, .. } if !of_the_file.contains(&source.kind()))
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read { path: path.to_path_buf(), source }
    }

    #[cfg(feature = "data")]
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_path_buf(), source }
    }

    #[cfg(feature = "data")]
    pub(crate) fn data_set(set: impl ToString, problem: impl ToString) -> Self {
        Self::DataSet { set: set.to_string(), problem: problem.to_string() }
    }
}
