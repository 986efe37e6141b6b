//! Batches of pictures in a shuffled order, decoded ahead of the step that needs them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use pixels::{
    DataSet, Picture, PixelsError,
    augment::Augmentation,
    crop::Crop,
    loader::{BadSample, Loader, LoaderOptions, OnBad, Place},
};
use tokenizer::ImageSize;
use tokens::noise::{Noise, Permutation, Purpose};

use crate::{TrainingError, parallel::Split, telemetry::BadPicture};

/// The order in which samples are visited: every epoch each sample once, shuffled anew, as a
/// pure function of seed and position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    seed: u64,
    samples: usize,
}

impl Order {
    pub(crate) fn new(seed: u64, samples: usize) -> Self {
        Self { seed, samples }
    }

    /// The sample at `position`, counted over all epochs.
    pub(crate) fn at(self, position: u64) -> usize {
        let samples = self.samples as u64;
        let mut noise = Noise::new(self.seed, Purpose::Order, position / samples, 0);
        Permutation::new(&mut noise, self.samples).at((position % samples) as usize)
    }

    /// The sample that takes the place of a bad one at `position`, after `tries` others that were
    /// bad as well: any of the data set, so that no class and no neighbour is favoured. As every
    /// process finds the same samples bad, the order stays the same for any number of them, and
    /// for a resumed run.
    pub(crate) fn instead(self, position: u64, tries: u64) -> usize {
        Noise::new(self.seed, Purpose::Replacement, position, tries).below(self.samples)
    }
}

/// The pictures of one micro-batch.
#[derive(Debug)]
pub(crate) struct ImageBatch {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl ImageBatch {
    /// Values of this shape, planes of red, green and blue in [0, 1].
    pub(crate) fn new(values: Vec<f32>, shape: [usize; 4]) -> Self {
        Self { values, shape }
    }

    /// # Shapes
    /// `[batch, 3, height, width]` in [0, 1].
    pub(crate) fn into_tensor(self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.values, self.shape), device)
    }
}

/// Pictures to evaluate on, as they are: cropped, not augmented.
pub(crate) struct HeldoutImages {
    pub(crate) data: Arc<dyn DataSet>,
    image: ImageSize,
    bad: Vec<BadPicture>,
}

impl HeldoutImages {
    pub(crate) fn new(data: Arc<dyn DataSet>, image: ImageSize) -> Self {
        Self { data, image, bad: Vec::new() }
    }

    /// Those that could not be read since this was asked last.
    pub(crate) fn take_bad(&mut self) -> Vec<BadPicture> {
        std::mem::take(&mut self.bad)
    }

    /// The mean over all readable pictures of what `measure` says of a batch
    /// `[batch, 3, height, width]`, a value `[batch]` each. Unreadable ones end it if `strict`.
    pub(crate) fn mean(
        &mut self,
        split: &Split,
        strict: bool,
        device: &Device,
        measure: impl Fn(Tensor<4>) -> Result<Tensor<1>, TrainingError>,
    ) -> Result<f64, TrainingError> {
        let image = self.image;
        let on_bad = if strict { OnBad::Stop } else { OnBad::LeaveOut };
        let options = LoaderOptions::of_this_machine(2 * split.micro_batch());
        let share = split.share(self.data.len());
        let mut loader =
            Loader::start(Arc::clone(&self.data), share, options, on_bad, move |data, index| {
                Ok(fitted(data, index, image)?.to_unit_planes())
            });
        let mean = split.mean_over(self.data.len(), |samples| {
            let mut values = Vec::new();
            let mut count = 0;
            for item in loader.by_ref().take(samples.len()) {
                values.extend(item?.1);
                count += 1;
            }
            if count == 0 {
                return Ok(Vec::new());
            }
            let shape = [count, 3, image.height, image.width];
            let images = ImageBatch { values, shape };
            Ok(operations::parameters::host_tensor(measure(images.into_tensor(device))?).values)
        })?;
        self.bad.extend(named(self.data.as_ref(), loader.take_bad())?);
        Ok(mean)
    }
}

/// Bad samples by their names, unless the system is at fault.
pub(crate) fn named(
    data: &dyn DataSet,
    bad: Vec<BadSample>,
) -> Result<Vec<BadPicture>, PixelsError> {
    let name = |BadSample { index, error }: BadSample| match error.is_of_the_system() {
        true => Err(error),
        false => Ok(BadPicture { name: data.name(index).to_owned(), reason: error.to_string() }),
    };
    bad.into_iter().map(name).collect()
}

/// What tells a data set from another, as runs before [`labels`] have it: how many pictures of which
/// names and classes, of whose numbers only the lowest 8 bits count.
pub(crate) fn description(data: &dyn DataSet) -> String {
    let mut checksum = 0;
    for index in 0..data.len() {
        checksum = crc32c::crc32c_append(checksum, data.name(index).as_bytes());
        checksum = crc32c::crc32c_append(checksum, &[0, data.label(index) as u8]);
    }
    let (pictures, classes) = (data.len(), data.classes().len());
    format!("{pictures} pictures in {classes} classes, checksum {checksum:08x}")
}

/// A checksum of the pictures' names and classes and of the classes' names.
pub(crate) fn labels(data: &dyn DataSet) -> String {
    let mut checksum = 0;
    let mut add = |bytes: &[u8]| checksum = crc32c::crc32c_append(checksum, bytes);
    for class in data.classes() {
        add(class.as_bytes());
        add(&[0]);
    }
    for index in 0..data.len() {
        add(data.name(index).as_bytes());
        add(&[0]);
        add(&(data.label(index) as u64).to_le_bytes());
    }
    format!("checksum {checksum:08x}")
}

/// What a step's pictures are made of: each picture of a batch is one of the data set's, in a view of
/// its own.
#[derive(Clone)]
pub(crate) struct ImageSource {
    pub(crate) data: Arc<dyn DataSet>,
    pub(crate) image: ImageSize,
    pub(crate) split: Split,
    pub(crate) seed: u64,
    pub(crate) augmentation: Augmentation,
    /// Whether a bad picture ends the training; otherwise another takes its place.
    pub(crate) strict: bool,
}

/// A sample of a step.
#[derive(Debug, Clone, Copy)]
struct Visit {
    step: u64,
    /// Its place in the whole step.
    sample: u64,
    /// Its place in the order of the whole training.
    position: u64,
    index: usize,
}

impl Place for Visit {
    fn index(&self) -> usize {
        self.index
    }
}

impl ImageSource {
    /// The pictures of a data set, in the order and the views of this seed.
    ///
    /// # Errors
    /// If there are no pictures.
    pub(crate) fn new(
        data: Arc<dyn DataSet>,
        image: ImageSize,
        split: Split,
        seed: u64,
        augmentation: Augmentation,
    ) -> Result<Self, TrainingError> {
        if data.is_empty() {
            return Err(TrainingError::Data("the data set holds no pictures".into()));
        }
        Ok(Self { data, image, split, seed, augmentation, strict: false })
    }

    fn picture(&self, visit: Visit) -> Result<Vec<f32>, PixelsError> {
        let picture = self.data.picture(visit.index)?;
        let mut noise = Noise::new(self.seed, Purpose::Augmentation, visit.step, visit.sample);
        let (size, name) = ((self.image.width, self.image.height), self.data.name(visit.index));
        Ok(self.augmentation.view(picture, size, name, &mut noise)?.to_unit_planes())
    }
}

/// A picture of a data set at the tokenizer's size: cropped as ADM does where that is a square,
/// as it is otherwise.
pub(crate) fn fitted(
    data: &dyn DataSet,
    index: usize,
    image: ImageSize,
) -> Result<Picture, PixelsError> {
    let picture = data.picture(index)?;
    Crop::Center.fit(picture, image.width, image.height, data.name(index))
}

/// Batches whose pictures are made ahead, as many as two steps have.
pub(crate) struct ImageLoader {
    source: ImageSource,
    loader: Loader<Visit, Vec<f32>>,
    bad: Vec<BadPicture>,
}

impl ImageLoader {
    /// Starts with the pictures of step `first`.
    pub(crate) fn start(source: ImageSource, first: u64) -> Self {
        let order = Order::new(source.seed, source.data.len());
        let split = source.split.clone();
        let visits = (first..).flat_map(move |step| {
            let start = step * split.batch() as u64;
            split.micro_batches().flatten().map(move |sample| {
                let (sample, position) = (sample as u64, start + sample as u64);
                Visit { step, sample, position, index: order.at(position) }
            })
        });
        let on_bad = match source.strict {
            true => OnBad::Stop,
            false => OnBad::Replace(Box::new(move |visit: Visit, tries| Visit {
                index: order.instead(visit.position, tries),
                ..visit
            })),
        };
        let a_step: usize = source.split.micro_batches().map(|samples| samples.len()).sum();
        let options = LoaderOptions::of_this_machine(2 * a_step);
        let maker = source.clone();
        let data = Arc::clone(&source.data);
        let loader =
            Loader::start(data, visits, options, on_bad, move |_, visit| maker.picture(visit));
        Self { source, loader, bad: Vec::new() }
    }

    /// The micro-batches of this process for the next step.
    pub(crate) fn next(&mut self) -> Result<Vec<ImageBatch>, TrainingError> {
        let ImageSize { height, width } = self.source.image;
        let mut batches = Vec::new();
        for samples in self.source.split.micro_batches() {
            let shape = [samples.len(), 3, height, width];
            let mut values = Vec::with_capacity(shape.iter().product());
            for _ in samples {
                // The order has no end; the loader ends with an error, which ends the training.
                let ended = || TrainingError::Data("the loader of the pictures has ended".into());
                let (_, planes) = self.loader.next().ok_or_else(ended)??;
                values.extend(planes);
            }
            batches.push(ImageBatch { values, shape });
        }
        self.bad.extend(named(self.source.data.as_ref(), self.loader.take_bad())?);
        Ok(batches)
    }

    /// The pictures that were replaced since this was asked last.
    pub(crate) fn take_bad(&mut self) -> Vec<BadPicture> {
        std::mem::take(&mut self.bad)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::{
        communicator::Threads,
        recipe::{self, StageOneRecipe},
    };

    #[test]
    fn should_visit_every_sample_once_an_epoch_and_repeat_from_any_position() {
        let order = Order::new(5, 7);
        let visited: Vec<usize> = (0..21).map(|position| order.at(position)).collect();
        for epoch in visited.chunks(7) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(visited[..7], visited[7..14]);
    }

    /// Two pictures of the class 0 and another, without content.
    struct TwoClasses(Vec<String>, usize);

    impl DataSet for TwoClasses {
        fn len(&self) -> usize {
            2
        }
        fn classes(&self) -> &[String] {
            &self.0
        }
        fn label(&self, index: usize) -> usize {
            index * self.1
        }
        fn name(&self, index: usize) -> &str {
            ["a", "b"][index]
        }
        fn picture(&self, _: usize) -> Result<Picture, PixelsError> {
            Picture::new(1, 1, vec![0; 3])
        }
    }

    #[test]
    fn should_tell_labels_apart_that_differ_by_256() {
        let set = |label| {
            let classes = (0..600).map(|number| number.to_string()).collect();
            TwoClasses(classes, label)
        };
        // As runs have recorded it: the rule of an old checkpoint must not change.
        assert_eq!(description(&set(3)), description(&set(259)));
        assert_ne!(labels(&set(3)), labels(&set(259)));
        assert_ne!(labels(&set(3)), labels(&set(4)));
        assert_eq!(labels(&set(3)), labels(&set(3)));
    }

    /// Pictures of one colour, half of which cannot be read.
    struct HalfBad(Vec<String>);

    impl DataSet for HalfBad {
        fn len(&self) -> usize {
            10
        }
        fn classes(&self) -> &[String] {
            &self.0
        }
        fn label(&self, _: usize) -> usize {
            0
        }
        fn name(&self, _: usize) -> &str {
            "picture"
        }
        fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
            let rgb = if index.is_multiple_of(2) {
                vec![20 * index as u8; 3 * 20 * 16]
            } else {
                Vec::new()
            };
            Picture::new(20, 16, rgb)
        }
    }

    /// The pictures of steps, in order, and how many were bad.
    fn read(ranks: usize, accumulate: usize, steps: Range<u64>) -> (Vec<Vec<f32>>, usize) {
        let mut recipe: StageOneRecipe = recipe::read("mini", &[]).unwrap();
        (recipe.schedule.batch, recipe.schedule.accumulate) = (8, accumulate);
        let mut loaders: Vec<ImageLoader> = Threads::group(ranks)
            .into_iter()
            .map(|communicator| {
                let source = ImageSource {
                    data: Arc::new(HalfBad(vec!["all".into()])),
                    image: ImageSize { height: 16, width: 16 },
                    split: Split::new(Arc::new(communicator), &recipe.schedule).unwrap(),
                    seed: 3,
                    augmentation: recipe.augmentation,
                    strict: false,
                };
                ImageLoader::start(source, steps.start)
            })
            .collect();
        let pictures = steps
            .map(|_| {
                let batches = loaders.iter_mut().flat_map(|loader| loader.next().unwrap());
                batches.flat_map(|batch| batch.values).collect()
            })
            .collect();
        (pictures, loaders.iter_mut().map(|loader| loader.take_bad().len()).sum())
    }

    #[test]
    fn should_read_the_same_pictures_however_a_step_is_cut_and_from_any_step() {
        let (pictures, bad) = read(1, 1, 0..6);
        assert!(pictures.iter().all(|step| step.len() == 8 * 3 * 16 * 16));
        assert!(bad >= 20, "{bad} of 48 places had one of five bad pictures of ten");
        for (ranks, accumulate) in [(2, 1), (1, 4), (4, 2)] {
            assert_eq!(read(ranks, accumulate, 0..6), (pictures.clone(), bad));
        }
        assert_eq!(read(2, 2, 4..6).0, pictures[4..]);
    }
}
