//! What does not survive a fork: threads, and whatever waits for them.

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::Python;

use crate::failure::{Failure, Kind};

/// Something with threads, which belongs to the process that made it. In a forked child its threads do not
/// exist, and to drop it would wait for them for ever: there it is left alone.
pub(crate) struct OfProcess<T> {
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> OfProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { process: std::process::id(), value: ManuallyDrop::new(value) }
    }

    /// Whether this is the process that made it.
    pub(crate) fn is_of_this(&self) -> bool {
        self.process == std::process::id()
    }
}

impl<T> DerefMut for OfProcess<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Deref for OfProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.is_of_this() {
            #[allow(unsafe_code)] // the only way to drop what is dropped by choice
            // SAFETY: `drop` is called once, and nothing reads the value afterwards.
            unsafe {
                ManuallyDrop::drop(&mut self.value);
            }
        }
    }
}

type Workers = Mutex<Option<(usize, OfProcess<Arc<rayon::ThreadPool>>)>>;

/// Runs work that rayon shares out on this many threads, all of the machine's where none are given. To be
/// called with Python's lock let go.
pub(crate) fn on_threads<R: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> R + Send,
) -> Result<R, Failure> {
    static WORKERS: Workers = Mutex::new(None);
    let threads = threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    // With Python's lock held, so that nobody forks meanwhile: the child could never take it again.
    let pool = Python::attach(|_| {
        let mut workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
        match &*workers {
            Some((count, pool)) if *count == threads && pool.is_of_this() => Ok(Arc::clone(pool)),
            _ => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let pool = pool.map_err(|error| Failure::new(Kind::Unavailable, error))?;
                let pool = Arc::new(pool);
                *workers = Some((threads, OfProcess::new(Arc::clone(&pool))));
                Ok::<_, Failure>(pool)
            }
        }
    })?;
    Ok(pool.install(work))
}
