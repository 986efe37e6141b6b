//! How the work of a step is shared: over processes that each hold the whole model (ranks), and
//! over micro-batches that one process works through in a row.
//!
//! Rank r takes the r-th contiguous share of a step's samples and cuts it into micro-batches.
//! Gradients and measures are means over all of them, so that a split changes a step by rounding
//! alone. All ranks must make the same calls in the same order.

mod gradients;

use std::{ops::Range, sync::Arc};

use burn::tensor::{Tensor, TensorData};
use files::HostTensor;
use operations::tape::{Keep, Tape};

pub use gradients::StepGradients;

use crate::{
    TrainingError,
    communicator::{Communicator, ParallelError},
    measures::Measures,
    schedule::Schedule,
};

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
        Self { communicator, batch, accumulate }.checked()
    }

    /// The same steps, shared with the other ranks of a communicator.
    ///
    /// # Errors
    /// If the batch cannot be cut into equal parts.
    pub(crate) fn over(&self, communicator: Arc<dyn Communicator>) -> Result<Self, ParallelError> {
        Self { communicator, ..self.clone() }.checked()
    }

    fn checked(self) -> Result<Self, ParallelError> {
        let (batch, accumulate, ranks) = (self.batch, self.accumulate, self.communicator.ranks());
        if accumulate == 0 || !batch.is_multiple_of(ranks * accumulate) {
            return Err(ParallelError::Indivisible { batch, ranks, accumulate });
        }
        Ok(self)
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
