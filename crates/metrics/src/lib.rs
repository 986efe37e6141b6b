//! Measures of pictures and of sets of pictures, one metric per file. Pictures are plain slices of
//! 8-bit values and features are plain rows of numbers, so the measures can be checked against any
//! other implementation. A [`FeatureExtractor`] turns pictures into features.
//!
//! The feature `sets` adds what compares sets of pictures, which needs linear algebra.
//!
//! The feature `networks` adds the networks of the field and the distances that training minimizes,
//! on Burn: the modules `networks` and `perceptual`. Without it the crate does not depend on Burn.

mod bootstrap;
mod divergence;
mod error;
mod features;
#[cfg(feature = "sets")]
mod frechet;
mod inception_score;
pub mod json;
#[cfg(feature = "sets")]
mod kernel_distance;
mod mean;
#[cfg(feature = "sets")]
mod moments;
#[cfg(feature = "networks")]
pub mod networks;
mod numpy_random;
#[cfg(feature = "networks")]
pub mod perceptual;
#[cfg(feature = "sets")]
mod precision_recall;
mod psnr;
#[cfg(feature = "sets")]
mod reference;
mod ssim;
mod tsne;

pub use bootstrap::bootstrap_deviation;
pub use divergence::{divergence, log_softmax};
pub use error::MetricsError;
pub use features::{FeatureExtractor, FeatureMatrix, Features, Images, extractor};
#[cfg(feature = "sets")]
pub use frechet::frechet_distance;
pub use inception_score::{Score, ScoreSplits, inception_score};
#[cfg(feature = "sets")]
pub use kernel_distance::{KernelSubsets, kernel_distance};
pub use mean::Mean;
#[cfg(feature = "sets")]
pub use moments::{Gaussian, Moments};
#[cfg(feature = "sets")]
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use psnr::psnr;
#[cfg(feature = "sets")]
pub use reference::{NumpyBatch, Purpose, ReferenceError, Statistics};
pub use ssim::ssim;
pub use tsne::Tsne;
