//! Which tensors a model has, in a few bytes.

use files::{HostTensor, TensorMap, floats::encode_f32};
use sha2::{Digest, Sha256};

/// SHA-256, in hexadecimal, over what decides which tokens a picture gets: names, shapes and
/// values (as f32) of encoder, latents and codebook. Tokens cached with one decoder serve the
/// other, and bf16 weights have a digest of their own.
pub fn tokenizer_digest(tensors: &TensorMap) -> String {
    let decides = |name: &str| name.starts_with("encoder.") || name.starts_with("quantizer.");
    digest(tensors.iter().filter(|(name, _)| decides(name)))
}

/// SHA-256, in hexadecimal, over names, shapes and values (as f32) of all tensors.
pub fn tensors_digest(tensors: &TensorMap) -> String {
    digest(tensors.iter())
}

fn digest<'a>(tensors: impl Iterator<Item = (&'a String, &'a HostTensor)>) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for &extent in &tensor.shape {
            hash.update((extent as u64).to_le_bytes());
        }
        for values in tensor.values.chunks(1 << 14) {
            hash.update(encode_f32(values));
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
