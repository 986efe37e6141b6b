//! How a process uses memory, threads and GPUs.

use std::{
    ffi::c_int,
    num::NonZero,
    sync::{Arc, OnceLock},
    thread,
};

use engine::Pool;

/// What `--threads` says.
static LIMIT: OnceLock<usize> = OnceLock::new();

/// Limits every pool that is made from now on to this many threads.
pub(crate) fn limit_threads(threads: usize) {
    // Only the first call counts; the command line is read once.
    let _ = LIMIT.set(threads);
}

/// What `--gpu` says.
static GPU: OnceLock<String> = OnceLock::new();

/// Takes this GPU whenever the device is `gpu`.
pub(crate) fn choose_gpu(gpu: String) {
    // Only the first call counts; the command line is read once.
    let _ = GPU.set(gpu);
}

/// The GPU that was asked for.
pub(crate) fn gpu() -> Option<&'static str> {
    GPU.get().map(String::as_str)
}

/// Threads to compute on: `--threads`, or as many as the machine runs at a time. On Linux the standard
/// library counts a container's processor quota and the process's affinity, too.
pub(crate) fn threads() -> usize {
    LIMIT.get().copied().unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// The engine's threads.
pub(crate) fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(threads()))
}

/// Makes Burn's backend for the CPU follow `--threads`. To be called before anything is computed.
pub(crate) fn for_inference() {
    if LIMIT.get().is_some() {
        // It fails only where the pool exists already.
        drop(rayon::ThreadPoolBuilder::new().num_threads(threads()).build_global());
    }
}

/// Sets memory and threads for training. To be called before anything is computed, on the thread that
/// trains.
pub(crate) fn for_training() {
    keep_freed_memory();
    train_on_this_thread_too();
}

/// Keeps freed memory for the next allocation instead of returning it to the kernel after some
/// milliseconds. A training step frees and allocates the same memory as the step before; fresh zeroed
/// pages would cost some percent of its time. The process never shrinks.
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of `mimalloc.h`.
    const PURGE_DELAY: c_int = 15;
    // SAFETY: stores one number in a table of the allocator before another thread could read it; −1 is
    // a documented value.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
    }
}

/// Makes this thread one of rayon's workers. Otherwise it sleeps while they work, and every operation
/// costs two context switches. In a one-thread pool this would be the only worker; a caller that it is
/// itself waiting on would deadlock.
fn train_on_this_thread_too() {
    let variable = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let threads = match (LIMIT.get(), variable) {
        (None, Some(threads)) if threads > 0 => threads,
        _ => threads(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    // Both fail only where the pool exists already; then it works as it is.
    if threads > 1 {
        drop(pool.use_current_thread().build_global());
    } else {
        drop(pool.build_global());
    }
}

/// Lets the process hold as many connections as the system allows it: a common limit is 1,024 files.
pub(crate) fn for_many_connections() {
    // It stays as it was where the system refuses.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
}
