//! The mean of gradients over ranks, in buckets: while one is being summed over ranks, the next is
//! copied from the device.
//!
//! Sums do not overlap with the backward pass: Burn hands out gradients when all of them are
//! there.

use std::sync::mpsc;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use layers::parameters::HostTensor;

use super::{Communicator, ParallelError};

/// Values of a bucket at least: 16 MiB of gradients, enough to be limited by the network's
/// bandwidth and not by its latency.
const BUCKET: usize = 1 << 22;

/// Replaces gradients by their sums over ranks times `scale`.
pub(super) fn mean<M: Module>(
    communicator: &dyn Communicator,
    scale: f32,
    module: &M,
    gradients: GradientsParams,
) -> Result<GradientsParams, ParallelError> {
    let (to_sum, buckets) = mpsc::channel::<Vec<f32>>();
    let (summed, sums) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for mut bucket in buckets {
                let result = communicator.sum(&mut bucket).map(|()| bucket);
                let failed = result.is_err();
                if summed.send(result).is_err() || failed {
                    return;
                }
            }
        });
        let mut flatten = Flatten { gradients: &gradients, bucket: Vec::new(), to_sum };
        module.visit(&mut flatten);
        flatten.flush();
        drop(flatten);
        let mut rebuild = Rebuild { gradients, sums, bucket: Vec::new(), scale, failed: None };
        module.visit(&mut rebuild);
        match rebuild.failed {
            None => Ok(rebuild.gradients),
            Some(error) => Err(error),
        }
    })
}

/// Sends all gradients one after another, in the order of parameters.
struct Flatten<'a> {
    gradients: &'a GradientsParams,
    bucket: Vec<f32>,
    to_sum: mpsc::Sender<Vec<f32>>,
}

impl Flatten<'_> {
    fn flush(&mut self) {
        if !self.bucket.is_empty() {
            // Nobody listens after a failure, which `Rebuild` will meet.
            let _ = self.to_sum.send(std::mem::take(&mut self.bucket));
        }
    }
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.bucket.extend(HostTensor::from_tensor(gradient).values);
            if self.bucket.len() >= BUCKET {
                self.flush();
            }
        }
    }
}

/// Puts sums into gradients, one after another in the order of parameters.
struct Rebuild {
    gradients: GradientsParams,
    sums: mpsc::Receiver<Result<Vec<f32>, ParallelError>>,
    bucket: Vec<f32>,
    scale: f32,
    failed: Option<ParallelError>,
}

impl ModuleVisitor for Rebuild {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.failed.is_some() {
            return;
        }
        let Some(old) = self.gradients.remove::<D>(param.id) else { return };
        // Buckets end where gradients end.
        if self.bucket.is_empty() {
            match self.sums.recv() {
                Ok(Ok(bucket)) => self.bucket = bucket,
                Ok(Err(error)) => return self.failed = Some(error),
                Err(_) => return self.failed = Some(ParallelError::Gone),
            }
        }
        let (shape, device) = (old.shape(), old.device());
        let rest = self.bucket.split_off(shape.num_elements());
        let mut values = std::mem::replace(&mut self.bucket, rest);
        values.iter_mut().for_each(|value| *value *= self.scale);
        let new = Tensor::<D>::from_data(TensorData::new(values, shape), &device);
        self.gradients.register(param.id, new);
    }
}
