//! From a request to pictures.
//!
//! [`Compute`] is what computes: a [`Device`], a precision and a number of threads. It opens the parts of a
//! [`Model`](model::Model) as [`Encode`], [`Decode`] and [`Draw`], which do not say what is behind them:
//! the engine for the CPU or, with the feature `gpu`, that for GPUs, or, with the feature `reference`,
//! the models on Burn. A [`Drawing`] is an
//! iterator over what happens while pictures are drawn. The command line, a server and any other door
//! use the same iterator.
//!
//! ```
//! use files::Home;
//! use model::Model;
//! use pipeline::{Compute, Drawing, Event, SamplingChanges, class_requests, sampling};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
//! # let folder = tempfile::tempdir()?;
//! # let out = folder.path();
//! let model = Model::named("mini", &Home::at(checkout))?;
//! let compute = Compute::default();
//! let generator = compute.drawer(&model)?;
//! let decoder = compute.decoder(&model, None)?;
//!
//! let class = model.classes.resolve("Flags")?;
//! let requests = class_requests(&[class], 1, 42);
//! let sampling = sampling(&model, &SamplingChanges::default())?;
//! for event in Drawing::of(&*generator, &requests, &sampling, 1)? {
//!     match event {
//!         Event::Finished { picture, tokens } => {
//!             decoder.decode(&tokens)?.write_png(out.join(format!("{picture}.png")))?;
//!         }
//!         Event::Failed { error, .. } => return Err(error.into()),
//!         Event::Row { .. } | Event::Preview { .. } => {}
//!     }
//! }
//! # assert!(out.join("0.png").exists());
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "cache")]
pub mod cache;
mod compute;
mod cpu;
mod decode;
mod device;
mod draw;
mod encode;
mod error;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "reference")]
mod reference;
mod request;
#[cfg(feature = "write")]
pub mod samples;
mod scheduled;
pub mod token_file;

pub use compute::{Compute, DraftSource, decoder_kind};
pub use cpu::PROMPT_ROOM;
pub use decode::Decode;
pub use device::{Device, DeviceError, ReferenceBackend};
pub use draw::{Batch, Draw, Drawing, Event};
pub use encode::Encode;
pub use engine::Precision;
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub use engine_gpu::adapters;
#[cfg(feature = "gpu")]
pub use engine_gpu::{AdapterInfo, Device as GpuDevice, GpuError};
pub use error::PipelineError;
#[cfg(feature = "reference")]
pub use reference::device as reference_device;
pub use request::{
    SamplingChanges, check_count, class_requests, prompt_requests, requests_without_class,
    requests_without_prompt, sampling,
};
#[cfg(feature = "write")]
pub use samples::{PreviewWriter, SampleError, SampleWriter};
pub use token_file::TokenFileError;
