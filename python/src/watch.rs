//! What a person may want of work that takes long: to stop it, and to see how far it is.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::failure::Failure;

/// Time between two looks: short for a person, long for the work.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks for Ctrl-C and reports progress, from work that does not hold Python's lock.
pub(crate) struct Watch {
    progress: Option<Py<PyAny>>,
    total: usize,
    last: Instant,
    told: Option<usize>,
}

impl Watch {
    /// Watches work of so many steps; `progress` is called with those done and their number.
    pub(crate) fn new(progress: Option<Py<PyAny>>, total: usize) -> Self {
        Self { progress, total, last: Instant::now(), told: None }
    }

    /// Looks, if it is time to.
    ///
    /// # Errors
    /// If Ctrl-C was pressed, or what `progress` raises: the work must end.
    pub(crate) fn look(&mut self, done: usize) -> Result<(), Failure> {
        let is_end = done >= self.total && self.told != Some(done);
        if self.last.elapsed() < PERIOD && !is_end {
            return Ok(());
        }
        Python::attach(|py| {
            py.check_signals()?;
            if let Some(progress) = &self.progress
                && self.told != Some(done)
            {
                progress.call1(py, (done, self.total))?;
                self.told = Some(done);
            }
            Ok::<_, PyErr>(())
        })?;
        self.told = if is_end { Some(done) } else { self.told };
        self.last = Instant::now();
        Ok(())
    }
}
