//! Pictures that cannot be compared.

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Pictures of different sizes, or of no pixels.
    #[error(
        "pictures of {reference} and {picture} values cannot be compared; give two of one size"
    )]
    Sizes {
        /// Values of the reference.
        reference: usize,
        /// Values of the picture.
        picture: usize,
    },
    /// Values that do not fill the pictures.
    #[error(
        "{values} values do not make a picture of {width} x {height} pixels and {channels} channels"
    )]
    Shape {
        /// Values of each picture.
        values: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Channels of a pixel.
        channels: usize,
    },
    /// A picture that is smaller than the window of the metric.
    #[error(
        "SSIM needs pictures of at least {window} x {window} pixels, these are {width} x {height}"
    )]
    TooSmall {
        /// Side of the window in pixels.
        window: usize,
        /// Width of the pictures in pixels.
        width: usize,
        /// Height of the pictures in pixels.
        height: usize,
    },
    /// Rows of another width than expected.
    #[error("features of width {expected} were expected, these have {got} values")]
    Width {
        /// Values that a row must have.
        expected: usize,
        /// Values that there are.
        got: usize,
    },
    /// A feature that is infinite or no number.
    #[error("row {row} of the features holds a value that is not a finite number")]
    NotFinite {
        /// The row, counted in its batch.
        row: usize,
    },
    /// A sample that is counted twice.
    #[error(
        "row {row} of the features was taken in before; shards of one set must not share samples"
    )]
    Overlap {
        /// The row, counted in the whole set.
        row: u64,
    },
    /// Too few samples for a metric.
    #[error("{what} needs at least {needed} samples, there are {got}")]
    TooFew {
        /// The metric.
        what: &'static str,
        /// Samples it needs.
        needed: usize,
        /// Samples there are.
        got: usize,
    },
    /// A covariance that has no eigen-decomposition.
    #[error("a covariance has values that are not finite numbers; its statistics are damaged")]
    NoConvergence,
}
