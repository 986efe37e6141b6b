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
}
