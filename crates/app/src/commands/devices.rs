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
    gpus()?;
    if let Err(error) = Device::Cuda.check() {
        not_compiled_in(Device::Cuda, error)?;
    }
    Ok(())
}

/// A line for each GPU, of which `--gpu` takes the number or a part of the name.
#[cfg(feature = "gpu")]
fn gpus() -> Result<()> {
    let found = pipeline::adapters();
    if found.is_empty() {
        return line(Device::Gpu, &format!("our shaders: {}", pipeline::GpuError::NoAdapter));
    }
    for gpu in found {
        let mut features = Vec::new();
        if gpu.half {
            features.push("f16".to_owned());
        }
        match gpu.subgroup {
            Some([least, most]) if least == most => features.push(format!("subgroups of {least}")),
            Some([least, most]) => features.push(format!("subgroups of {least} to {most}")),
            None => {}
        }
        if gpu.software {
            features.push("a program on the processor".to_owned());
        }
        line(
            Device::Gpu,
            &format!(
                "our shaders, --gpu {}: {}, {} by {}, buffers of up to {} of which a shader sees {}{}{}",
                gpu.number,
                gpu.name,
                gpu.backend,
                gpu.driver,
                ::machine::bytes(gpu.buffer_bytes),
                ::machine::bytes(gpu.binding_bytes),
                if features.is_empty() { "" } else { ", " },
                features.join(", "),
            ),
        )?;
    }
    Ok(())
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Result<()> {
    Device::Gpu.check().or_else(|error| not_compiled_in(Device::Gpu, error))
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
