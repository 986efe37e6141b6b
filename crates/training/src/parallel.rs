//! How the work of a step is shared: over processes that each hold the whole model (ranks), and
//! over micro-batches that one process works through in a row.
//!
//! Rank r takes the r-th contiguous share of a step's samples and cuts it into micro-batches.
//! Gradients and measures are means over all of them, so that a split changes a step by rounding
//! alone. All ranks must make the same calls in the same order.

mod gradients;
#[cfg(feature = "mpi")]
mod mpi;
mod threads;

use std::{ops::Range, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use files::HostTensor;
use operations::tape::{Keep, Tape};

pub use gradients::StepGradients;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use threads::Threads;

use crate::{TrainingError, recipe::Schedule, telemetry::Measures};

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

/// The part of every step that this process does, and means over all parts.
#[derive(Clone)]
pub struct Split {
    communicator: Arc<dyn Communicator>,
    batch: usize,
    accumulate: usize,
}

impl Split {
    /// Cuts steps of a schedule for this rank.
    ///
    /// # Errors
    /// If the batch cannot be cut into equal parts.
    pub fn new(
        communicator: Arc<dyn Communicator>,
        schedule: &Schedule,
    ) -> Result<Self, ParallelError> {
        let Schedule { batch, accumulate, .. } = *schedule;
        let ranks = communicator.ranks();
        if accumulate == 0 || !batch.is_multiple_of(ranks * accumulate) {
            return Err(ParallelError::Indivisible { batch, ranks, accumulate });
        }
        Ok(Self { communicator, batch, accumulate })
    }

    /// Talks to the other ranks.
    pub fn communicator(&self) -> &Arc<dyn Communicator> {
        &self.communicator
    }

    /// Samples a step, over all ranks.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of micro-batches of a step, over all ranks.
    fn parts(&self) -> usize {
        self.communicator.ranks() * self.accumulate
    }

    /// The samples, counted within the step, of each micro-batch of this rank, in order.
    pub fn micro_batches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let size = self.micro_batch();
        let first = self.communicator.rank() * self.accumulate;
        (first..first + self.accumulate).map(move |part| part * size..(part + 1) * size)
    }

    /// Begins to collect the gradients of a step.
    pub fn gradients(&self) -> StepGradients {
        StepGradients::new(Arc::clone(&self.communicator), self.accumulate)
    }

    /// A tape for a micro-batch's forward pass, if one serves: to keep the inputs of blocks alone,
    /// or to exchange gradients while the backward pass goes on.
    pub fn tape<'a>(&self, activation_checkpointing: bool) -> Option<Tape<'a>> {
        match (activation_checkpointing, self.communicator.ranks()) {
            (true, _) => Some(Tape::new(Keep::Inputs)),
            (false, 1) => None,
            (false, _) => Some(Tape::new(Keep::Activations)),
        }
    }

    /// Mean measures over all micro-batches of all ranks, from those of this rank's.
    ///
    /// # Errors
    /// If the other ranks cannot be reached.
    pub fn mean_measures(&self, parts: Vec<Measures>) -> Result<Measures, ParallelError> {
        let Some(first) = parts.first() else { return Ok(Measures::new()) };
        let names: Vec<&'static str> = first.iter().map(|(name, _)| *name).collect();
        let mut values: Vec<f64> = parts.iter().flatten().map(|(_, value)| *value).collect();
        if self.communicator.ranks() > 1 {
            // What is measured on a device has single precision; means have double.
            let single: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let all = self.communicator.gather(&single)?;
            values = all.into_iter().map(f64::from).collect();
        }
        let count = values.len() / names.len().max(1);
        let mean = |place: usize| {
            values.iter().skip(place).step_by(names.len()).sum::<f64>() / count as f64
        };
        Ok(names.iter().enumerate().map(|(place, name)| (*name, mean(place))).collect())
    }

    /// Samples of a micro-batch.
    pub(crate) fn micro_batch(&self) -> usize {
        self.batch / self.parts()
    }

    /// Those of `count` samples that this rank measures.
    pub(crate) fn share(&self, count: usize) -> Range<usize> {
        let (rank, ranks) = (self.communicator.rank(), self.communicator.ranks());
        rank * count / ranks..(rank + 1) * count / ranks
    }

    /// The mean of a measure over `count` samples, each of which one rank measures, as many at once
    /// as a micro-batch has. `measure` is given samples of this rank's [`share`](Self::share), in
    /// order, and returns a value for each that is not to be left out.
    ///
    /// # Errors
    /// If a sample cannot be measured, all are left out, or the other ranks cannot be reached.
    pub(crate) fn mean_over(
        &self,
        count: usize,
        mut measure: impl FnMut(Range<usize>) -> Result<Vec<f32>, TrainingError>,
    ) -> Result<f64, TrainingError> {
        let share = self.share(count);
        let mut values = Vec::with_capacity(share.len());
        for first in share.clone().step_by(self.micro_batch()) {
            values.extend(measure(first..(first + self.micro_batch()).min(share.end))?);
        }
        let values = self.communicator.gather(&values)?;
        if values.is_empty() {
            return Err(TrainingError::Data("there is nothing readable to evaluate on".into()));
        }
        Ok(values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64)
    }

    /// Joins what the micro-batches of all ranks made, in the order of samples.
    ///
    /// # Shapes
    /// Parts `[samples, …]` of one shape → `[batch, …]`.
    ///
    /// # Errors
    /// If the other ranks cannot be reached.
    ///
    /// # Panics
    /// If there are no parts.
    pub fn join<const D: usize>(
        &self,
        mut parts: Vec<Tensor<D>>,
    ) -> Result<Tensor<D>, ParallelError> {
        let share = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
        let ranks = self.communicator.ranks();
        if ranks == 1 {
            return Ok(share);
        }
        let device = share.device();
        let HostTensor { mut shape, values } = operations::parameters::host_tensor(share);
        let values = self.communicator.gather(&values)?;
        shape[0] *= ranks;
        Ok(Tensor::from_data(TensorData::new(values, shape), &device))
    }
}
