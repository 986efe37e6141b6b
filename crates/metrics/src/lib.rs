//! Measures of pictures, one metric a file. Pictures are plain slices of 8-bit values, so that
//! these numbers can be checked against any other implementation. The networks that some of them
//! rest on, and the distances that training minimizes, are in [`networks`] and [`perceptual`].

mod error;
mod mean;
pub mod networks;
pub mod perceptual;
mod psnr;
mod ssim;

pub use error::MetricsError;
pub use mean::Mean;
pub use psnr::psnr;
pub use ssim::ssim;
