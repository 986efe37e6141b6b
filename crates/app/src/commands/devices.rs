//! `alitok devices`

use anyhow::Result;
use pipeline::{Device, DeviceError, ReferenceBackend};

use crate::{machine, progress, tuning};

pub(crate) fn run() -> Result<()> {
    line(
        Device::Cpu,
        &format!(
            "our engine: {}, {} kernels, {} threads, {} of memory",
            machine::processor(),
            engine::instruction_set()?,
            tuning::threads(),
            machine::memory(),
        ),
    )?;
    for backend in ReferenceBackend::ALL {
        let device = Device::Reference { backend, index: None };
        match device.check() {
            Ok(()) => line(device, "the models on Burn; they train, too")?,
            // Whoever asks for it gets it: this program hands over.
            Err(_) if backend == ReferenceBackend::Flex => {
                line(
                    device,
                    "the models on Burn, by the program alitok-reference; they train, too",
                )?;
            }
            Err(error) => not_compiled_in(device, error)?,
        }
    }
    for device in [Device::Gpu, Device::Cuda] {
        if let Err(error) = device.check() {
            not_compiled_in(device, error)?;
        }
    }
    Ok(())
}

fn line(device: Device, what: &str) -> Result<()> {
    progress::result(&format!("{:<18} {what}", device.to_string()))
}

fn not_compiled_in(device: Device, error: DeviceError) -> Result<()> {
    match error {
        DeviceError::NotCompiledIn { how, .. } => line(device, &format!("not compiled in; {how}")),
        other => Err(other.into()),
    }
}
