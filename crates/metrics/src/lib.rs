//! Measures of pictures and of sets of pictures, one metric per file. Pictures are plain slices of
//! 8-bit values and features are plain rows of numbers, so the measures can be checked against any
//! other implementation. A [`FeatureExtractor`] turns pictures into features.
//!
//! The feature `networks` adds the networks of the field and the distances that training minimizes,
//! on Burn: the modules `networks` and `perceptual`. Without it the crate does not depend on Burn.

mod bootstrap;
mod divergence;
mod error;
mod features;
mod frechet;
mod inception_score;
pub mod json;
mod kernel_distance;
mod mean;
mod moments;
#[cfg(feature = "networks")]
pub mod networks;
mod numpy_random;
#[cfg(feature = "networks")]
pub mod perceptual;
mod precision_recall;
mod psnr;
mod reference;
mod ssim;
mod tsne;

pub use bootstrap::bootstrap_deviation;
pub use divergence::{divergence, log_softmax};
pub use error::MetricsError;
pub use features::{FeatureExtractor, FeatureMatrix, Features, Images, extractor};
pub use frechet::frechet_distance;
pub use inception_score::{Score, ScoreSplits, inception_score};
pub use kernel_distance::{KernelSubsets, kernel_distance};
pub use mean::Mean;
pub use moments::{Gaussian, Moments};
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use psnr::psnr;
pub use reference::{NumpyBatch, Purpose, ReferenceError, Statistics};
pub use ssim::ssim;
pub use tsne::Tsne;
