//! Devices that this build can compute on.

use burn::tensor::Device;
use clap::ValueEnum;

/// A device by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceName {
    /// The CPU, in pure Rust.
    Flex,
    /// An NVIDIA GPU through CUDA.
    #[cfg(feature = "cuda")]
    Cuda,
    /// An Apple GPU through Metal.
    #[cfg(feature = "metal")]
    Metal,
    /// An AMD GPU through ROCm.
    #[cfg(feature = "rocm")]
    Rocm,
    /// Any GPU through Vulkan.
    #[cfg(feature = "vulkan")]
    Vulkan,
    /// Any GPU through the graphics interface that the system has, with shaders in WGSL.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl DeviceName {
    pub(crate) fn device(self) -> Device {
        match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::cuda(0),
            #[cfg(feature = "metal")]
            Self::Metal => Device::metal(burn::tensor::DeviceKind::DefaultDevice),
            #[cfg(feature = "rocm")]
            Self::Rocm => Device::rocm(0),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        }
    }
}
