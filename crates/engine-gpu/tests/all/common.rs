//! What the tests share.

use std::io::Write;

use engine_gpu::{Device, GpuError};
use files::safetensors::TensorFile;
use serde::de::DeserializeOwned;

/// The first GPU, or the driver on the CPU. Tests that find neither do nothing and say so.
pub(crate) fn device() -> Option<Device> {
    match Device::open(None) {
        Ok(device) => Some(device),
        Err(GpuError::NoAdapter) => {
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: no GPU and no software driver; install mesa-vulkan-drivers"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Weights and architecture of a part of the bundled model, `tokenizer` or `generator`.
pub(crate) fn mini<C: DeserializeOwned>(part: &str) -> (TensorFile, C) {
    let folder = fixtures::repository().join("models/mini");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let config = serde_json::from_value(config[part].clone()).unwrap();
    (TensorFile::open(folder.join(format!("{part}.safetensors"))).unwrap(), config)
}
