//! Batches of pictures in a shuffled order, decoded ahead of the step that needs them.

use std::{
    ops::Range,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use burn::tensor::{Device, Tensor, TensorData};
use layers::parameters::HostTensor;
use pixels::{DataSet, Picture, augment::Augmentation, crop::Crop};
use rayon::prelude::*;
use tokenizer::ImageSize;
use tokens::noise::{Noise, Purpose};

use crate::{TrainingError, parallel::Split};

/// The order in which samples are visited: every epoch each sample once, shuffled anew, as a
/// pure function of seed and position.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    seed: u64,
    samples: usize,
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    pub(crate) fn new(seed: u64, samples: usize) -> Self {
        Self { seed, samples, epoch: None }
    }

    /// The sample at `position`, counted over all epochs.
    pub(crate) fn at(&mut self, position: u64) -> usize {
        let samples = self.samples as u64;
        let epoch = position / samples;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut noise = Noise::new(self.seed, Purpose::Order, epoch, 0);
            self.epoch = Some((epoch, noise.permutation(self.samples)));
        }
        let (_, order) = self.epoch.as_ref().expect("the epoch was just shuffled");
        order[(position % samples) as usize]
    }
}

/// The pictures of one micro-batch.
#[derive(Debug)]
pub(crate) struct ImageBatch {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl ImageBatch {
    /// # Shapes
    /// `[batch, 3, height, width]` in [0, 1].
    pub(crate) fn into_tensor(self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.values, self.shape), device)
    }
}

/// Pictures to evaluate on, as they are: cropped, not augmented.
pub(crate) struct HeldoutImages {
    pub(crate) data: Arc<dyn DataSet>,
    pub(crate) image: ImageSize,
}

impl HeldoutImages {
    /// The mean over all pictures of what `measure` says of a batch `[batch, 3, height, width]`, a
    /// value `[batch]` each.
    pub(crate) fn mean(
        &self,
        split: &Split,
        device: &Device,
        measure: impl Fn(Tensor<4>) -> Result<Tensor<1>, TrainingError>,
    ) -> Result<f64, TrainingError> {
        split.mean_over(self.data.len(), |samples| {
            let count = samples.len();
            let pictures: Vec<Vec<f32>> = samples
                .into_par_iter()
                .map(|index| {
                    let picture = fitted(self.data.as_ref(), index, self.image)?;
                    Ok(picture.to_unit_planes())
                })
                .collect::<Result<_, TrainingError>>()?;
            let ImageSize { height, width } = self.image;
            let images = ImageBatch { values: pictures.concat(), shape: [count, 3, height, width] };
            Ok(HostTensor::from_tensor(measure(images.into_tensor(device))?).values)
        })
    }
}

/// What tells a data set from another: how many pictures of which classes and names.
pub(crate) fn description(data: &dyn DataSet) -> String {
    let mut checksum = 0;
    for index in 0..data.len() {
        checksum = crc32c::crc32c_append(checksum, data.name(index).as_bytes());
        checksum = crc32c::crc32c_append(checksum, &[0, data.label(index) as u8]);
    }
    let (pictures, classes) = (data.len(), data.classes().len());
    format!("{pictures} pictures in {classes} classes, checksum {checksum:08x}")
}

/// What a step's pictures are made of.
#[derive(Clone)]
pub(crate) struct ImageSource {
    pub(crate) data: Arc<dyn DataSet>,
    pub(crate) image: ImageSize,
    pub(crate) split: Split,
    pub(crate) seed: u64,
    pub(crate) augmentation: Augmentation,
}

impl ImageSource {
    /// The micro-batches of this process.
    fn step(&self, order: &mut Order, step: u64) -> Result<Vec<ImageBatch>, TrainingError> {
        let micro_batches = self.split.micro_batches();
        micro_batches.map(|samples| self.batch(order, step, samples)).collect()
    }

    fn batch(
        &self,
        order: &mut Order,
        step: u64,
        samples: Range<usize>,
    ) -> Result<ImageBatch, TrainingError> {
        let first = step * self.split.batch() as u64;
        let indices: Vec<usize> = samples.map(|sample| order.at(first + sample as u64)).collect();
        let pictures: Vec<Vec<f32>> = indices
            .par_iter()
            .map(|&index| self.picture(index, step).map(|picture| picture.to_unit_planes()))
            .collect::<Result<_, _>>()?;
        let ImageSize { height, width } = self.image;
        Ok(ImageBatch { values: pictures.concat(), shape: [indices.len(), 3, height, width] })
    }

    fn picture(&self, index: usize, step: u64) -> Result<Picture, TrainingError> {
        let picture = self.data.picture(index)?;
        let mut noise = Noise::new(self.seed, Purpose::Augmentation, step, index as u64);
        let (size, name) = ((self.image.width, self.image.height), self.data.name(index));
        Ok(self.augmentation.view(picture, size, name, &mut noise)?)
    }
}

/// A picture of a data set at the tokenizer's size: cropped as ADM does where that is a square,
/// as it is otherwise.
pub(crate) fn fitted(
    data: &dyn DataSet,
    index: usize,
    image: ImageSize,
) -> Result<Picture, TrainingError> {
    let picture = data.picture(index)?;
    Ok(Crop::Center.fit(picture, image.width, image.height, data.name(index))?)
}

/// Batches made on a thread of their own, at most two ahead.
pub(crate) struct ImageLoader {
    batches: Option<mpsc::Receiver<Result<Vec<ImageBatch>, TrainingError>>>,
    thread: Option<JoinHandle<()>>,
}

impl ImageLoader {
    /// Starts with the pictures of step `first`.
    pub(crate) fn start(source: ImageSource, first: u64) -> Self {
        let (sender, batches) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut order = Order::new(source.seed, source.data.len());
            for step in first.. {
                // The receiver is gone when the run has ended.
                if sender.send(source.step(&mut order, step)).is_err() {
                    return;
                }
            }
        });
        Self { batches: Some(batches), thread: Some(thread) }
    }

    /// The micro-batches of the next step.
    pub(crate) fn next(&mut self) -> Result<Vec<ImageBatch>, TrainingError> {
        self.batches
            .as_ref()
            .and_then(|batches| batches.recv().ok())
            .unwrap_or_else(|| Err(TrainingError::Data("the loader's thread has ended".into())))
    }
}

impl Drop for ImageLoader {
    fn drop(&mut self) {
        // Closing the channel ends the thread.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_visit_every_sample_once_an_epoch_and_repeat_from_any_position() {
        let mut order = Order::new(5, 7);
        let visited: Vec<usize> = (0..21).map(|position| order.at(position)).collect();
        for epoch in visited.chunks(7) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(visited[..7], visited[7..14]);
        let mut late = Order::new(5, 7);
        assert_eq!(late.at(16), visited[16]);
        assert_eq!(late.at(3), visited[3]);
    }
}
