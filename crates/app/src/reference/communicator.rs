//! The processes that train together, where an MPI launcher has started several.

use std::sync::Arc;

use anyhow::Result;
use training::communicator::Communicator;

/// What launchers tell a process: Open MPI's own, the process managers PMIx and PMI (Slurm, MPICH).
const LAUNCHED: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_SIZE"];

/// Talks to the other processes of this job, or to nobody.
#[cfg(feature = "mpi")]
pub(crate) fn communicator() -> Result<Arc<dyn Communicator>> {
    use training::communicator::{Alone, Mpi};
    if LAUNCHED.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(Arc::new(Mpi::start()?));
    }
    Ok(Arc::new(Alone))
}

/// Talks to nobody: this build cannot.
#[cfg(not(feature = "mpi"))]
pub(crate) fn communicator() -> Result<Arc<dyn Communicator>> {
    let several = |name: &&str| {
        let number = std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
        // A size of one, or the first rank, may be alone.
        number.unwrap_or(0) > u32::from(name.ends_with("SIZE"))
    };
    if let Some(name) = LAUNCHED.iter().find(|name| several(name)) {
        anyhow::bail!(
            "{name} says that an MPI launcher has started several processes, and this alitok was \
             built without MPI: build it with --features mpi, or start it without a launcher"
        );
    }
    Ok(Arc::new(training::communicator::Alone))
}
