//! The tokenizer on Burn: an [`Encoder`], a [`Quantizer`] and [`Decoder`]s.

mod attention;
mod block;
mod clustering;
mod decoder;
mod encoder;
mod inference;
mod initialization;
mod model;
pub mod patch;
mod quantizer;
mod resize;

pub use attention::{DecoderAttention, LocalPattern};
pub use clustering::{Anchor, Clustering, ClusteringConfig};
pub use decoder::{Decoder, Reconstruction};
pub use encoder::Encoder;
pub use initialization::{Initialization, Positions, Weights};
pub use model::{FrozenEncoder, Tokenizer};
pub use quantizer::{COMMITMENT, Quantized, Quantizer};
pub use resize::resize;
