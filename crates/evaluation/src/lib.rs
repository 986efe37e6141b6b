//! Measures models, and looks into them.
//!
//! | module | what it measures |
//! | --- | --- |
//! | [`generation`] | samples against a reference: FID, sFID, Inception Score, KID, precision, recall |
//! | [`reconstruction`] | what a tokenizer loses: PSNR, SSIM, LPIPS, rFID, use of the codebook |
//! | [`run`] | a model by a [`protocol`], beside the published numbers, in [`parts`] that survive a kill |
//! | [`sweep`] | the best guidance, power and temperature; the checkpoints of a run |
//! | [`shapes`] | whether pictures of shapes show what their prompts ask for |
//! | [`text`] | a model of prompts: the likelihood of captioned pictures, and drawings of shapes that are scored |
//! | [`precision`] | what bf16 and int8 change |
//! | [`analysis`] | attention, codes, predictability, reconstructions side by side |
//!
//! Pictures are compared by the features of a network, an [`Extractor`]. Its [`Description`] says which
//! features serve which measure, and whether a distance may be called FID. Nothing is printed: an
//! [`Observer`] is told how far the work is, results are plain data for `serde`, and figures are
//! returned as [`charts::Figure`].
//!
//! ```
//! use evaluation::{Extractor, comparison::Reference, generation, pictures::Pictures};
//! use files::Home;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "networks")]
//! # {
//! # let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
//! let device = burn::tensor::Device::flex();
//! let home = Home::at(checkout);
//! let extractor = Extractor::open("lite", &home, &device)?;
//! let samples = Pictures::open("bundled:heldout", &home)?;
//! let reference = Reference::open("bundled:heldout", &home, &extractor)?;
//! // `()` watches nothing; `false` only notes what departs from the protocol of gFID.
//! let result = generation::evaluate(&samples, reference, &extractor, false, &mut ())?;
//! let distance = result.measures.get("lite_frechet_distance").unwrap();
//! assert!(distance.abs() < 1e-6);
//! println!("{}", serde_json::to_value(&result)?);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The features `networks` (the networks by name) and `reference` (what needs the models on Burn) are on
//! by default. Without them the crate has no Burn, and takes an implementation of
//! [`metrics::FeatureExtractor`] of the caller's.

pub mod analysis;
mod classes;
pub mod comparison;
mod error;
pub mod extractor;
pub mod generation;
#[cfg(feature = "networks")]
pub mod networks;
mod observer;
pub mod parts;
pub mod pictures;
pub mod precision;
pub mod protocol;
pub mod reconstruction;
pub mod run;
pub mod shapes;
pub mod sweep;
pub mod text;

pub use error::EvaluationError;
pub use extractor::{Description, Extractor};
pub use observer::Observer;
