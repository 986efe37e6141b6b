//! `alitok weights`

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use metrics::networks::EfficientNetLiteConfig;
use weights::{Checkpoint, Precision, safetensors_file};

use crate::args::WeightsVerb;

pub(crate) fn run(verb: &WeightsVerb) -> Result<()> {
    match verb {
        WeightsVerb::Bundle { weights, out } => bundle(weights, out),
    }
}

/// Writes the tensors that the truncated network uses, and nothing else.
fn bundle(path: &Path, out: &Path) -> Result<()> {
    let config = EfficientNetLiteConfig::lite0();
    let tensors = config.select(Checkpoint::read(path)?.tensors);
    // Refuses a file that is not the network's.
    config.load(tensors.clone(), &Device::flex())?;
    safetensors_file::write(out, &tensors, Precision::F32, &Default::default())?;
    Ok(())
}
