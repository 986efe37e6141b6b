//! Measures of pictures, one metric a file. Pictures are plain slices of 8-bit values, so that
//! these numbers can be checked against any other implementation.

mod error;
mod mean;
mod psnr;
mod ssim;

pub use error::MetricsError;
pub use mean::Mean;
pub use psnr::psnr;
pub use ssim::ssim;
