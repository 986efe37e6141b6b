//! How a process that trains for long uses memory and threads.

use std::{ffi::c_int, num::NonZero, thread};

/// Sets both for training. To be called before anything is computed, on the thread that trains.
pub(crate) fn for_training() {
    keep_freed_memory();
    work_along();
}

/// Keeps what is freed from now on for the next allocation, instead of giving it back to the kernel
/// after some milliseconds. A training step frees and takes the same memory as the one before: getting
/// zeroed pages for it anew costs some percent of its time. The process stays as large as it ever was.
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

/// Makes this thread one of those that share parallel work. Otherwise it sleeps while they do it, and every
/// operation costs two changes of threads. Of one thread alone it would be the only one, and
/// whoever handed it work from elsewhere while it waits for him would wait for ever.
fn work_along() {
    let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
    let threads = match wanted {
        Some(threads) if threads > 0 => threads,
        _ => thread::available_parallelism().map_or(1, NonZero::get),
    };
    if threads > 1 {
        // It fails where threads were started before; then they work as ever.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        drop(pool.use_current_thread().build_global());
    }
}
