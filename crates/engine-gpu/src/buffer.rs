//! Memory on a GPU.

use crate::device::{Device, GpuError};

/// Numbers of 32 bits on a GPU.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    inner: wgpu::Buffer,
    words: usize,
}

impl Buffer {
    /// Room for this many words, all zero.
    ///
    /// # Errors
    /// If there is no memory, or a shader could not see all of it.
    pub(crate) fn zeros(device: &Device, what: &str, words: usize) -> Result<Self, GpuError> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        Self::create(device, what, words, usage)
    }

    /// Memory that the CPU reads.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn readable(device: &Device, what: &str, words: usize) -> Result<Self, GpuError> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Self::create(device, what, words, usage)
    }

    /// Four words that a shader reads as a uniform.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn uniform(device: &Device, what: &str, words: [u32; 4]) -> Result<Self, GpuError> {
        let usage = wgpu::BufferUsages::UNIFORM
            | wgpu::BufferUsages::COPY_DST
            | wgpu::BufferUsages::COPY_SRC;
        let buffer = Self::create(device, what, words.len(), usage)?;
        buffer.write(device, &words)?;
        Ok(buffer)
    }

    /// Replaces the first numbers, before the next submitted work.
    ///
    /// # Errors
    /// If the GPU refuses it.
    pub(crate) fn write<T: bytemuck::NoUninit>(
        &self,
        device: &Device,
        values: &[T],
    ) -> Result<(), GpuError> {
        let bytes = bytemuck::cast_slice(values);
        device.checked("a write", 0, || device.queue().write_buffer(&self.inner, 0, bytes))
    }

    fn create(
        device: &Device,
        what: &str,
        words: usize,
        usage: wgpu::BufferUsages,
    ) -> Result<Self, GpuError> {
        // A shader reads four words at once, and an empty binding is refused.
        let words = words.max(1).next_multiple_of(4);
        let size = 4 * words as u64;
        let most = device.info().binding_bytes;
        if size > most {
            return Err(GpuError::TooLarge { what: what.to_owned(), bytes: size, most });
        }
        let descriptor =
            wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let inner = device.checked(what, size, || device.wgpu().create_buffer(&descriptor))?;
        Ok(Self { inner, words })
    }

    /// A copy of these numbers.
    ///
    /// # Errors
    /// As for [`zeros`](Self::zeros).
    pub(crate) fn of<T: bytemuck::NoUninit>(
        device: &Device,
        what: &str,
        values: &[T],
    ) -> Result<Self, GpuError> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = Self::zeros(device, what, bytes.len().div_ceil(4))?;
        buffer.write(device, values)?;
        Ok(buffer)
    }

    pub(crate) fn bytes(&self) -> u64 {
        4 * self.words as u64
    }

    pub(crate) fn wgpu(&self) -> &wgpu::Buffer {
        &self.inner
    }
}
