//! Measures of pictures and of sets of pictures, one metric a file. Pictures are plain slices of
//! 8-bit values and features plain rows of numbers, so that these numbers can be checked against
//! any other implementation. The networks behind some of them, and the distances that training
//! minimizes, are in [`networks`] and [`perceptual`]; what turns pictures into features stands
//! behind [`FeatureExtractor`].

mod bootstrap;
mod divergence;
mod error;
mod features;
mod frechet;
mod inception_score;
mod kernel_distance;
mod mean;
mod moments;
pub mod networks;
mod numpy_random;
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
