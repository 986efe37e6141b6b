//! GPUs: which there are, how one is opened, and what can go wrong on it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use generator::{DeviceFailure, GenerateError};
#[cfg(not(target_family = "wasm"))]
use pollster::block_on;

/// What can go wrong on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no adapter.
    #[error(
        "no GPU was found: wgpu sees no adapter for Vulkan, Metal or Direct3D 12; install a driver, \
         or draw on the CPU"
    )]
    NoAdapter,
    /// No adapter has the wanted name or number.
    #[error("no GPU is called `{wanted}`; there are {}", found.join(", "))]
    NoSuchAdapter {
        /// The name or number.
        wanted: String,
        /// Number and name of each adapter.
        found: Vec<String>,
    },
    /// The driver refused to open the adapter.
    #[error("the GPU `{adapter}` could not be opened: {reason}")]
    Open {
        /// The adapter's name.
        adapter: String,
        /// What the driver says.
        reason: String,
    },
    /// The adapter cannot do what the shaders need.
    #[error("the GPU `{adapter}` has {got} of `{limit}`, and {needed} are needed")]
    Limit {
        /// The adapter's name.
        adapter: String,
        /// The limit's name in WebGPU.
        limit: &'static str,
        /// What is needed.
        needed: u64,
        /// What there is.
        got: u64,
    },
    /// Shaders read four numbers at a time.
    #[error(
        "the engine for GPUs needs heads whose width is a multiple of four and at most {most}; this \
         model's have {got} numbers; use the device `cpu`"
    )]
    Head {
        /// Numbers of a head.
        got: usize,
        /// Most of them.
        most: usize,
    },
    /// The GPU has no memory left.
    #[error(
        "the GPU has no memory for {what} of {bytes} bytes; draw fewer pictures at a time, or take a \
         smaller precision or model"
    )]
    Memory {
        /// What the memory was for.
        what: String,
        /// How much of it.
        bytes: u64,
    },
    /// A shader of this GPU cannot see so much memory at once.
    #[error(
        "{what} of {bytes} bytes is more than the {most} bytes that a shader of this GPU sees of one \
         buffer; draw fewer pictures at a time, or take a smaller model"
    )]
    TooLarge {
        /// What the memory was for.
        what: String,
        /// How much of it.
        bytes: u64,
        /// How much there can be.
        most: u64,
    },
    /// wgpu refused a shader, a buffer or a command: an error of this crate.
    #[error("the GPU refused {what}: {reason}; this is an error of the engine")]
    Validation {
        /// What was refused.
        what: String,
        /// What wgpu says.
        reason: String,
    },
    /// A browser does not let a program wait for its GPU.
    #[error("a browser lets no program wait for its GPU, which this needs; use the device `cpu`")]
    Waiting,
    /// The GPU was reset, removed, or taken by another program.
    #[error("the GPU was lost: {reason}; open it again")]
    Lost {
        /// What the driver says.
        reason: String,
    },
}

impl From<GpuError> for GenerateError {
    fn from(error: GpuError) -> Self {
        let failure = match error {
            GpuError::Lost { .. } => DeviceFailure::Lost,
            GpuError::Memory { .. } | GpuError::TooLarge { .. } => DeviceFailure::Memory,
            _ => DeviceFailure::Refused,
        };
        Self::Device { failure, reason: error.to_string() }
    }
}

/// A GPU that could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Its number, in the order of the drivers.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// The interface that it is reached by, such as Vulkan.
    pub backend: String,
    /// Its driver and the driver's version.
    pub driver: String,
    /// Whether it is a program on the CPU.
    pub software: bool,
    /// Most bytes of a buffer.
    pub buffer_bytes: u64,
    /// Bytes that a shader can see of one buffer.
    pub binding_bytes: u64,
    /// Whether shaders can compute in f16.
    pub half: bool,
    /// Least and most threads of a subgroup, where shaders can exchange numbers within one.
    pub subgroup: Option<[u32; 2]>,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

fn describe(number: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, features) = (adapter.get_info(), adapter.features());
    AdapterInfo {
        number,
        name: info.name,
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        software: info.device_type == wgpu::DeviceType::Cpu,
        buffer_bytes: adapter.limits().max_buffer_size,
        binding_bytes: adapter.limits().max_storage_buffer_binding_size,
        half: features.contains(wgpu::Features::SHADER_F16),
        subgroup: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some([info.subgroup_min_size, info.subgroup_max_size]),
    }
}

/// The adapters of this machine, those on the CPU included.
#[cfg(not(target_family = "wasm"))]
pub fn adapters() -> Vec<AdapterInfo> {
    let found = block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    found.iter().enumerate().map(|(number, adapter)| describe(number, adapter)).collect()
}

/// An opened GPU.
///
/// Whatever wgpu refuses becomes a [`GpuError`]: a command that is refused would otherwise be skipped
/// in silence and leave old numbers behind.
#[derive(Clone)]
pub struct Device {
    info: Arc<AdapterInfo>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// The first error that no scope caught, or the loss of the device.
    failure: Arc<Mutex<Option<GpuError>>>,
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Device {{ {:?} }}", self.info)
    }
}

/// Threads of a workgroup that the shaders use.
pub(crate) const THREADS: u32 = 256;

/// Most bytes of one binding that the engine asks for: what every adapter of WebGPU has.
pub(crate) const BINDING_BYTES: u64 = 128 << 20;

impl Device {
    /// Opens the adapter of this number or (part of a) name; without one, the first that is no
    /// program on the CPU, else the first.
    ///
    /// # Errors
    /// If there is none, or it cannot be opened or does not reach the limits that shaders need.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(wanted: Option<&str>) -> Result<Self, GpuError> {
        block_on(Self::open_later(wanted))
    }

    /// [`open`](Self::open) for programs that must not block, such as those in a browser.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_later(wanted: Option<&str>) -> Result<Self, GpuError> {
        let mut found = instance().enumerate_adapters(wgpu::Backends::PRIMARY).await;
        let infos: Vec<_> =
            found.iter().enumerate().map(|(number, adapter)| describe(number, adapter)).collect();
        if infos.is_empty() {
            return Err(GpuError::NoAdapter);
        }
        let place = match wanted {
            None => infos.iter().position(|info| !info.software).unwrap_or(0),
            Some(wanted) => {
                let lower = wanted.to_lowercase();
                let named = |info: &AdapterInfo| {
                    info.number.to_string() == lower || info.name.to_lowercase().contains(&lower)
                };
                infos.iter().position(named).ok_or_else(|| GpuError::NoSuchAdapter {
                    wanted: wanted.to_owned(),
                    found: infos.iter().map(|i| format!("{} ({})", i.number, i.name)).collect(),
                })?
            }
        };
        let (adapter, info) = (found.swap_remove(place), infos[place].clone());
        Self::open_adapter(&adapter, info).await
    }

    async fn open_adapter(adapter: &wgpu::Adapter, info: AdapterInfo) -> Result<Self, GpuError> {
        let limits = adapter.limits();
        let needed = [
            (
                "maxComputeInvocationsPerWorkgroup",
                u64::from(THREADS),
                u64::from(limits.max_compute_invocations_per_workgroup),
            ),
            (
                "maxComputeWorkgroupStorageSize",
                16 << 10,
                u64::from(limits.max_compute_workgroup_storage_size),
            ),
            (
                "maxStorageBuffersPerShaderStage",
                8,
                u64::from(limits.max_storage_buffers_per_shader_stage),
            ),
            ("maxStorageBufferBindingSize", BINDING_BYTES, limits.max_storage_buffer_binding_size),
        ];
        if let Some(&(limit, needed, got)) = needed.iter().find(|(_, needed, got)| got < needed) {
            return Err(GpuError::Limit { adapter: info.name, limit, needed, got });
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("alitok"),
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|error| GpuError::Open {
            adapter: info.name.clone(),
            reason: error.to_string(),
        })?;
        let failure = Arc::new(Mutex::new(None));
        let note = {
            let failure = Arc::clone(&failure);
            move |error| {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        let lost = note.clone();
        // It is called as well when the last handle is dropped; then nobody asks any more.
        device.set_device_lost_callback(move |_, reason| lost(GpuError::Lost { reason }));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note(typed("work", 0, &error))
        }));
        Ok(Self { info: Arc::new(info), device, queue, failure })
    }

    /// What is known of it.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Looks whether attention can compute with heads of this width, and with it all else.
    ///
    /// # Errors
    /// If it cannot.
    pub(crate) fn check_head(&self, got: usize, most: usize) -> Result<(), GpuError> {
        if got > most || !got.is_multiple_of(4) {
            return Err(GpuError::Head { got, most });
        }
        Ok(())
    }

    pub(crate) fn wgpu(&self) -> &wgpu::Device {
        &self.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Gives the GPU up, as if it had been removed. All that is on it is lost.
    pub fn destroy(&self) {
        self.device.destroy();
        // Only a poll tells of it; an error of its own would say the same.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// The first error that was reported outside `checked`.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), GpuError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(Ok(()), Err)
    }

    /// Runs some calls of wgpu and turns what it refuses into an error. `bytes` is what they allocate.
    ///
    /// # Errors
    /// If anything was refused, there is no memory, or the device was lost before.
    pub(crate) fn checked<T>(
        &self,
        what: &str,
        bytes: u64,
        calls: impl FnOnce() -> T,
    ) -> Result<T, GpuError> {
        self.check()?;
        let filters = [
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Validation,
        ];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let result = calls();
        // Scopes are a stack: the last one is popped first.
        let scopes = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop);
        #[cfg(not(target_family = "wasm"))]
        if let Some(error) = scopes.fold(None, |first, scope| first.or(block_on(scope))) {
            return Err(typed(what, bytes, &error));
        }
        // A browser reports errors later. `check` finds them before anything is read.
        #[cfg(target_family = "wasm")]
        for scope in scopes {
            let (failure, what) = (Arc::clone(&self.failure), what.to_owned());
            wasm_bindgen_futures::spawn_local(async move {
                if let Some(error) = scope.await {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(typed(&what, bytes, &error));
                }
            });
        }
        self.check().map(|()| result)
    }

    /// Waits for all submitted work and copies this many bytes from the start of a buffer that can
    /// be mapped.
    ///
    /// # Errors
    /// If the device was lost or the work refused, or in a browser, which does not let a program wait.
    pub(crate) fn read(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
        take: impl FnOnce(&[u8]),
    ) -> Result<(), GpuError> {
        let reading = self.begin_read(buffer, bytes);
        if reading.finish(self, take)? { Ok(()) } else { Err(GpuError::Waiting) }
    }

    /// Asks for this many bytes from the start of a buffer that can be mapped, after all submitted work.
    pub(crate) fn begin_read(&self, buffer: &wgpu::Buffer, bytes: u64) -> Reading {
        let (sender, mapped) = mpsc::channel();
        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // Nobody listens where waiting has failed already.
            let _ = sender.send(result);
        });
        Reading { buffer: buffer.clone(), bytes, mapped: Mutex::new(mapped) }
    }
}

/// Bytes on their way from a GPU.
#[derive(Debug)]
pub(crate) struct Reading {
    buffer: wgpu::Buffer,
    bytes: u64,
    mapped: Mutex<mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>>,
}

impl Reading {
    /// Waits for the bytes and copies them. In a browser it does not wait: it returns false until they are there.
    ///
    /// # Errors
    /// If the device was lost or the work refused.
    pub(crate) fn finish(
        &self,
        device: &Device,
        take: impl FnOnce(&[u8]),
    ) -> Result<bool, GpuError> {
        let lost = |reason: String| GpuError::Lost { reason };
        #[cfg(not(target_family = "wasm"))]
        device
            .device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| lost(error.to_string()))?;
        device.check()?;
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        match mapped {
            Ok(Ok(())) => {}
            Err(mpsc::TryRecvError::Empty) if cfg!(target_family = "wasm") => return Ok(false),
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(error) => return Err(lost(error.to_string())),
        }
        match self.buffer.get_mapped_range(..self.bytes) {
            Ok(range) => take(&range),
            Err(error) => return Err(lost(error.to_string())),
        }
        self.buffer.unmap();
        Ok(true)
    }
}

fn typed(what: &str, bytes: u64, error: &wgpu::Error) -> GpuError {
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::Memory { what: what.to_owned(), bytes },
        other => GpuError::Validation { what: what.to_owned(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_turn_what_is_refused_into_an_error() {
        let Some(device) = crate::kernels::tests::device() else { return };
        let too_large = wgpu::BufferDescriptor {
            label: None,
            size: u64::MAX / 4,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        };
        let refused = device.checked("a buffer", 1, || device.wgpu().create_buffer(&too_large));
        assert!(matches!(refused, Err(GpuError::Validation { .. } | GpuError::Memory { .. })));
        // The device goes on.
        device.check().unwrap();
    }

    #[test]
    fn should_name_the_adapters_that_there_are() {
        let Some(device) = crate::kernels::tests::device() else { return };
        let error = Device::open(Some("no such thing")).unwrap_err();
        assert!(error.to_string().contains(&device.info().name), "{error}");
        let number = device.info().number.to_string();
        assert_eq!(Device::open(Some(&number)).unwrap().info(), device.info());
    }
}
