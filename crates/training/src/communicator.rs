//! How the processes of a training talk to each other.

#[cfg(feature = "mpi")]
mod mpi;
mod threads;

#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use threads::Threads;

/// Why ranks could not work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParallelError {
    /// A step cannot be cut into equal parts.
    #[error(
        "a batch of {batch} cannot be shared by {ranks} processes with {accumulate} micro-batches \
         each; make `batch` a multiple of {}",
        .ranks * .accumulate
    )]
    Indivisible {
        /// Samples a step.
        batch: usize,
        /// Number of processes.
        ranks: usize,
        /// Micro-batches of each.
        accumulate: usize,
    },
    /// Another rank has ended, with an error of its own.
    #[error("another process of this training has ended; its message says why")]
    Gone,
    /// Ranks came to one operation with different numbers of values.
    #[error("rank {rank} brought {got} values where rank 0 brought {expected}")]
    Length {
        /// The rank that differs.
        rank: usize,
        /// How many values rank 0 has.
        expected: usize,
        /// How many this one has.
        got: usize,
    },
    /// What the transport said.
    #[error("processes cannot talk to each other: {0}")]
    Transport(String),
}

/// Talks to the other processes of a training.
///
/// Results are the same bits on every rank; sums run in the order of ranks.
pub trait Communicator: Send + Sync {
    /// This process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn ranks(&self) -> usize;

    /// Replaces values by their sums over ranks.
    ///
    /// # Errors
    /// If a rank is gone or brings another number of values.
    fn sum(&self, values: &mut [f32]) -> Result<(), ParallelError>;

    /// The values of all ranks, in the order of ranks; not all need bring equally many.
    ///
    /// # Errors
    /// If a rank is gone.
    fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError>;

    /// Replaces values by those of the rank `root`.
    ///
    /// # Errors
    /// If a rank is gone or brings another number of values.
    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), ParallelError>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// If a rank is gone.
    fn barrier(&self) -> Result<(), ParallelError>;

    /// Tells the others that this rank will not come any more. Over MPI, where they could not go
    /// on nor find out, this ends the whole job, this process included.
    fn abort(&self);
}

/// A training in one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn ranks(&self) -> usize {
        1
    }
    fn sum(&self, _values: &mut [f32]) -> Result<(), ParallelError> {
        Ok(())
    }
    fn gather(&self, values: &[f32]) -> Result<Vec<f32>, ParallelError> {
        Ok(values.to_vec())
    }
    fn broadcast(&self, _root: usize, _values: &mut [f32]) -> Result<(), ParallelError> {
        Ok(())
    }
    fn barrier(&self) -> Result<(), ParallelError> {
        Ok(())
    }
    fn abort(&self) {}
}

/// The bytes of all ranks, in the order of ranks.
///
/// # Errors
/// If the other ranks cannot be reached.
pub(crate) fn gather_bytes(
    communicator: &dyn Communicator,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, ParallelError> {
    // Communicators carry numbers of single precision, which hold a byte.
    let values: Vec<f32> = bytes.into_iter().map(f32::from).collect();
    let values = communicator.gather(&values)?;
    Ok(values.into_iter().map(|value| value as u8).collect())
}
