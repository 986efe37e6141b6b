//! What trains, and what the networks of measures compute on.

use anyhow::{Result, bail};
use burn::tensor::Device as BurnDevice;
use pipeline::{Device, ReferenceBackend};

use crate::processes;

/// The device for work that only the models on Burn do, such as training.
pub(crate) fn training(asked: Option<Device>, work: &str) -> Result<BurnDevice> {
    let device = asked.unwrap_or(Device::REFERENCE);
    let instead = match device {
        Device::Reference { backend, index } => return open(backend, index),
        Device::Cpu => "reference",
        Device::Gpu => "reference:wgpu",
        Device::Cuda => "reference:cuda",
    };
    bail!("{work} runs on `{instead}`, not on `{device}`; write --device {instead}")
}

/// The device for networks that compare pictures: they are on Burn, whatever draws the pictures.
pub(crate) fn networks(asked: Option<Device>) -> Result<BurnDevice> {
    let device = asked.unwrap_or_default();
    device.check()?;
    match device {
        Device::Reference { backend, index } => open(backend, index),
        _ => Ok(BurnDevice::flex()),
    }
}

fn open(backend: ReferenceBackend, index: Option<usize>) -> Result<BurnDevice> {
    Device::Reference { backend, index }.check()?;
    let index = index.or_else(processes::local_rank);
    Ok(pipeline::reference_device(backend, index))
}
