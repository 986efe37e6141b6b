//! Where models are computed.

use std::{fmt, str::FromStr};

/// A device, as `--device` names it: `cpu`, `gpu`, `cuda` or `reference[:NAME[:INDEX]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The engine for the CPU.
    #[default]
    Cpu,
    /// The engine for any GPU.
    Gpu,
    /// The engine for NVIDIA's GPUs.
    Cuda,
    /// The models on Burn, with one of its backends. They train, and engines are compared with them.
    Reference {
        /// The backend.
        backend: ReferenceBackend,
        /// Which of the backend's devices; `None` leaves the choice to the program.
        index: Option<usize>,
    },
}

/// A backend of Burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReferenceBackend {
    /// The CPU, in pure Rust.
    #[default]
    Flex,
    /// NVIDIA's GPUs.
    Cuda,
    /// Apple's GPUs.
    Metal,
    /// AMD's GPUs.
    Rocm,
    /// GPUs through Vulkan, with shaders in SPIR-V.
    Vulkan,
    /// GPUs through the system's graphics interface, with shaders in WGSL.
    Wgpu,
}

/// A device that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device.
    #[error(
        "`{name}` is no device; the devices are cpu, gpu, cuda and reference[:NAME[:INDEX]], where NAME \
         is flex, cuda, metal, rocm, vulkan or wgpu"
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The device had this name before the devices `cpu`, `gpu` and `cuda` came.
    #[error(
        "the device `{name}` is now called `reference:{name}`{}",
        if name == "flex" { "; its default engine is now the device `cpu`" } else { "" }
    )]
    Renamed {
        /// Its old name.
        name: String,
    },
    /// This program was built without it.
    #[error("this alitok was built without the device `{device}`; {how}")]
    NotCompiledIn {
        /// The device.
        device: Device,
        /// How to get it.
        how: String,
    },
    /// It tries no tokens ahead of their turn.
    #[error("drafts need the device `cpu`, not `{device}`; leave out the device or the drafts")]
    Drafts {
        /// The device.
        device: Device,
    },
    /// It computes no language models.
    #[error("prompts are drawn on the device `cpu`, not on `{device}`; leave out the device")]
    Prompts {
        /// The device.
        device: Device,
    },
    /// It does not compute in the precision.
    #[error(
        "the device `{device}` computes in {} only; leave out the precision, or use the device `cpu`",
        if *device == Device::Gpu { "f32, bf16 and int8" } else { "f32" }
    )]
    Precision {
        /// The device.
        device: Device,
    },
    /// A GPU was named beside another device.
    #[error("`{wanted}` names a GPU, and the device is `{device}`; write the device `gpu`")]
    NoGpu {
        /// What was asked for.
        wanted: String,
        /// The device.
        device: Device,
    },
    /// The GPU cannot be had, or has failed.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] engine_gpu::GpuError),
}

impl ReferenceBackend {
    /// Every backend.
    pub const ALL: [Self; 6] =
        [Self::Flex, Self::Cuda, Self::Metal, Self::Rocm, Self::Vulkan, Self::Wgpu];

    /// What the backend is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
        }
    }

    /// Whether this program was built with it.
    pub const fn is_compiled_in(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "reference"),
            Self::Cuda => cfg!(feature = "reference-cuda"),
            Self::Metal => cfg!(feature = "reference-metal"),
            Self::Rocm => cfg!(feature = "reference-rocm"),
            Self::Vulkan => cfg!(feature = "reference-vulkan"),
            Self::Wgpu => cfg!(feature = "reference-wgpu"),
        }
    }
}

impl Device {
    /// The reference on the CPU.
    pub const REFERENCE: Self = Self::Reference { backend: ReferenceBackend::Flex, index: None };

    /// Checks that this program was built with the device.
    ///
    /// # Errors
    /// If it was not; the error says how to get it.
    pub fn check(self) -> Result<(), DeviceError> {
        let how = match self {
            Self::Cpu => return Ok(()),
            Self::Reference { backend, .. } if backend.is_compiled_in() => return Ok(()),
            Self::Reference { backend: ReferenceBackend::Flex, .. } => {
                "build it with the feature `reference`".to_owned()
            }
            Self::Reference { backend, .. } => {
                format!(
                    "build it with `cargo build --release --features reference-{}`",
                    backend.name()
                )
            }
            Self::Gpu if cfg!(feature = "gpu") => return Ok(()),
            Self::Gpu => "build it with `cargo build --release --features gpu`".to_owned(),
            Self::Cuda => {
                "there are no CUDA kernels yet; `reference:cuda` computes on NVIDIA's GPUs"
                    .to_owned()
            }
        };
        Err(DeviceError::NotCompiledIn { device: self, how })
    }
}

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown { name: name.to_owned() };
        let backend =
            |name: &str| ReferenceBackend::ALL.into_iter().find(|backend| backend.name() == name);
        let mut parts = name.split(':');
        let device = match parts.next().unwrap_or_default() {
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            "cuda" => Self::Cuda,
            "reference" => {
                let backend = match parts.next() {
                    None => ReferenceBackend::default(),
                    Some(name) => backend(name).ok_or_else(unknown)?,
                };
                let index = parts.next().map(str::parse).transpose().map_err(|_| unknown())?;
                Self::Reference { backend, index }
            }
            old if backend(old).is_some() => {
                return Err(DeviceError::Renamed { name: name.to_owned() });
            }
            _ => return Err(unknown()),
        };
        if parts.next().is_some() { Err(unknown()) } else { Ok(device) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Gpu => formatter.write_str("gpu"),
            Self::Cuda => formatter.write_str("cuda"),
            Self::Reference { backend, index: None } => {
                write!(formatter, "reference:{}", backend.name())
            }
            Self::Reference { backend, index: Some(index) } => {
                write!(formatter, "reference:{}:{index}", backend.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_what_it_prints() {
        let reference = |backend, index| Device::Reference { backend, index };
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("gpu", Device::Gpu),
            ("cuda", Device::Cuda),
            ("reference:flex", Device::REFERENCE),
            ("reference:wgpu", reference(ReferenceBackend::Wgpu, None)),
            ("reference:cuda:3", reference(ReferenceBackend::Cuda, Some(3))),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("reference".parse(), Ok(Device::REFERENCE));
    }

    #[test]
    fn should_say_what_to_write_for_an_old_or_unknown_name() {
        let error = |text: &str| text.parse::<Device>().unwrap_err().to_string();
        assert!(error("wgpu").contains("`reference:wgpu`"));
        for unknown in
            ["", "tpu", "cpu:1", "reference:tpu", "reference:cuda:x", "reference:cuda:0:1"]
        {
            assert!(error(unknown).contains("is no device"), "{unknown}");
        }
    }

    #[test]
    fn should_say_how_to_get_what_is_not_compiled_in() {
        assert_eq!(Device::Cpu.check(), Ok(()));
        let error = Device::Cuda.check().unwrap_err().to_string();
        assert!(error.contains("reference:cuda"), "{error}");
        #[cfg(not(feature = "gpu"))]
        {
            let error = Device::Gpu.check().unwrap_err().to_string();
            assert!(error.contains("cargo build --release --features gpu"), "{error}");
        }
        let metal = Device::Reference { backend: ReferenceBackend::Metal, index: None };
        let error = metal.check().unwrap_err().to_string();
        assert!(error.contains("--features reference-metal"), "{error}");
    }
}
