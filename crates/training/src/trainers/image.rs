//! What both stages of a tokenizer's training do with a batch of pictures.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use files::Home;
use operations::tape::Tape;
use pixels::{DataSet, Picture, augment::Augmentation};
use tokenizer::{ImageSize, TokenizerConfig, reference::patch::patchify};

use super::BEGAN_WITH;
use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    communicator::{Alone, Communicator, ParallelError},
    learner::Learner,
    loader::{HeldoutImages, ImageBatch, ImageLoader, ImageSource, description, fitted, labels},
    losses::squared_errors,
    measures::{Measures, scalar},
    objective::{Objective, Rebuilt},
    optimizer::AdamWConfig,
    parallel::Split,
    phases::{DiscriminatorRecipe, Phase},
    plan::Scope,
    run::{HELDOUT_LABELS, LABELS, Limit, Step, Trainer},
    samples::{originals, sheet_of_rows},
    schedule::Schedule,
    telemetry::BadPicture,
};

/// What a stage does with a micro-batch, and with what it learned from a step.
pub trait Stage {
    /// What the optimizer changes.
    type Model: Module;

    /// The architecture of the tokenizer that comes out.
    fn config(&self) -> &TokenizerConfig;

    /// What is trained, in words.
    fn trains(&self) -> &'static str;

    /// Numbers that a sample leaves for the backward pass.
    fn activations(&self) -> usize;

    /// What is allowed and probably not meant, for steps of `batch` pictures.
    fn warnings(&self, _batch: usize) -> Vec<String> {
        Vec::new()
    }

    /// The loss of a micro-batch without its perceptual and adversarial terms.
    ///
    /// # Shapes
    /// `images [batch, 3, height, width]` in [0, 1], without gradients.
    fn forward<'a>(
        &mut self,
        model: &'a Self::Model,
        images: Tensor<4>,
        tape: Option<&mut Tape<'a>>,
    ) -> Result<Forward, TrainingError>;

    /// Reconstructions of a micro-batch in a step in which only the discriminator learns from
    /// gradients. `model` has none.
    ///
    /// # Shapes
    /// `[batch, 3, height, width]` in [0, 1] → the same.
    fn reconstruct(
        &mut self,
        model: &Self::Model,
        images: Tensor<4>,
    ) -> Result<Tensor<4>, TrainingError>;

    /// Changes the model by other means than gradients, after all micro-batches of a step and
    /// before the optimizer's step. Returns what was measured.
    fn follow(
        &mut self,
        _learner: &mut Learner<Self::Model>,
        _split: &Split,
        _address: u64,
    ) -> Result<Measures, TrainingError> {
        Ok(Measures::new())
    }

    /// The patches that a model without gradients makes of pictures.
    ///
    /// # Shapes
    /// `[batch, 3, height, width]` in [0, 1] → `[batch, rows·columns, patch·patch·3]`.
    fn patches(&self, model: &Self::Model, images: Tensor<4>) -> Result<Tensor<3>, TrainingError>;

    /// Rows of pictures to show below these originals, and what each is.
    fn samples(
        &self,
        model: &Self::Model,
        originals: Tensor<4>,
    ) -> Result<Vec<(&'static str, Tensor<4>)>, TrainingError>;

    /// What it is made from besides data, recipe and networks of the loss.
    fn inputs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The smallest healthy values of some measures, for steps of `batch` pictures.
    fn limits(&self, _batch: usize) -> Vec<Limit> {
        Vec::new()
    }

    /// Adds what changes in training, besides model and discriminator, to a checkpoint.
    fn save(&self, _checkpoint: &mut Checkpoint) {}

    /// Takes it from a checkpoint.
    fn restore(&mut self, _checkpoint: &mut Checkpoint) -> Result<(), TrainingError> {
        Ok(())
    }

    /// Writes the model as a model folder.
    fn export(&self, model: &Self::Model, folder: &Path) -> Result<(), TrainingError>;
}

/// A micro-batch on its way to a loss.
pub struct Forward {
    /// Reconstructions `[batch, 3, height, width]` in [0, 1].
    pub(crate) picture: Tensor<4>,
    /// Reconstructions that a second perceptual loss compares, and its weight.
    pub(crate) with_prefix: Option<(Tensor<4>, f64)>,
    /// The weighted sum of the terms so far.
    pub(crate) loss: Tensor<1>,
    /// The terms.
    pub(crate) measures: Measures,
}

/// What the recipes of both stages have in common.
pub(super) struct Common<'a> {
    pub(super) schedule: &'a Schedule,
    pub(super) augmentation: Augmentation,
    pub(super) optimizer: AdamWConfig,
    pub(super) phases: &'a [Phase],
    pub(super) discriminator: Option<DiscriminatorRecipe>,
}

/// Trains a part of a tokenizer on pictures: [`StageOne`](super::StageOne) or
/// [`StageTwo`](super::StageTwo).
pub struct ImageTrainer<S: Stage> {
    pub(super) stage: S,
    pub(super) learner: Learner<S::Model>,
    /// Digest of the model that it began with.
    pub(super) initial: Option<String>,
    objective: Objective,
    source: ImageSource,
    loader: Option<ImageLoader>,
    heldout: Option<HeldoutImages>,
    /// Where pictures are put before the model sees them, without gradients.
    device: Device,
    /// `[1, 3, height, width]`
    mean_picture: Tensor<4>,
    /// Of the whole data set.
    pictures: usize,
}

impl<S: Stage> ImageTrainer<S> {
    /// Prepares a training on `data`. Networks that are bundled are below `home`; `initialize` makes the model on a differentiable device.
    pub(super) fn prepare(
        stage: S,
        recipe: Common<'_>,
        data: Arc<dyn DataSet>,
        home: &Home,
        device: &Device,
        initialize: impl FnOnce(&S, &Device) -> Result<S::Model, TrainingError>,
    ) -> Result<Self, TrainingError> {
        let Common { schedule, augmentation, optimizer, phases, discriminator } = recipe;
        let image = stage.config().image;
        let split = Split::new(Arc::new(Alone), schedule)?;
        let source = ImageSource::new(data, image, split, schedule.seed, augmentation)?;
        let device = device.clone().autodiff();
        let model = initialize(&stage, &device)?;
        let objective =
            Objective::new(phases, discriminator, schedule, optimizer, image, home, &device)?;
        let pictures = source.data.len();
        let mean_picture = mean_picture(source.data.as_ref(), image, &device.clone().inner());
        Ok(Self {
            learner: Learner::new("", model, optimizer, schedule)?,
            stage,
            initial: None,
            objective,
            source,
            loader: None,
            heldout: None,
            device: device.inner(),
            mean_picture,
            pictures,
        })
    }

    /// The same training, shared with the other ranks of a communicator.
    ///
    /// # Errors
    /// If a step cannot be cut into equal parts.
    pub fn with_communicator(
        mut self,
        communicator: Arc<dyn Communicator>,
    ) -> Result<Self, ParallelError> {
        self.source.split = self.source.split.over(communicator)?;
        Ok(self)
    }

    /// The same training, which ends at the first picture that cannot be read, if `strict`;
    /// otherwise another picture takes its place.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.source.strict = strict;
        self
    }

    /// The same training, which holds a share of its pictures out and evaluates on them: see
    /// [`hold_out`](pixels::data::hold_out).
    ///
    /// # Errors
    /// If that leaves nothing to learn from or to evaluate on.
    pub fn hold_out(mut self, share: f64) -> Result<Self, TrainingError> {
        let (learned, held_out) = pixels::data::hold_out(Arc::clone(&self.source.data), share)?;
        self.source.data = Arc::new(learned);
        Ok(self.with_heldout(Arc::new(held_out)))
    }

    /// The same training, which evaluates on these pictures: the mean squared error of their
    /// reconstructions.
    #[must_use]
    pub fn with_heldout(mut self, data: Arc<dyn DataSet>) -> Self {
        self.heldout = Some(HeldoutImages::new(data, self.source.image));
        self
    }
}

/// The measure that says how much of the pictures' variance the reconstructions explain: 1 for perfect
/// ones, 0 for the mean picture of the data set.
const EXPLAINED: &str = "explained";
/// What it is made of: mean squared distances from the reconstructions and from the mean picture.
const ERROR: &str = "squared_error";
const VARIANCE: &str = "variance";

/// A tokenizer whose reconstructions are no better than the mean picture after a quarter of its run has
/// learned nothing yet, and often never does.
const BETTER_THAN_THE_MEAN: Limit = Limit { what: EXPLAINED, least: 0.05, after: 0.25 };

/// The mean of some pictures of a data set, which stand for all: `[1, 3, height, width]` in [0, 1].
fn mean_picture(data: &dyn DataSet, image: ImageSize, device: &Device) -> Tensor<4> {
    const PICTURES: usize = 64;
    let shape = [1, 3, image.height, image.width];
    let (mut sums, mut count) = (vec![0.0_f64; shape.iter().product()], 0.0_f64);
    for index in (0..data.len()).step_by(data.len().div_ceil(PICTURES).max(1)) {
        // Those that cannot be read are told of when a step needs them.
        let Ok(picture) = fitted(data, index, image) else { continue };
        for (sum, value) in sums.iter_mut().zip(picture.to_unit_planes()) {
            *sum += f64::from(value);
        }
        count += 1.0;
    }
    let means = sums.into_iter().map(|sum| (sum / count.max(1.0)) as f32).collect();
    ImageBatch::new(means, shape).into_tensor(device)
}

/// The mean squared error of reconstructions, and that of the mean picture.
///
/// # Shapes
/// Both `[batch, 3, height, width]` in [0, 1].
fn errors(images: &Tensor<4>, reconstructions: Tensor<4>, mean: &Tensor<4>) -> Measures {
    let distance = |other: Tensor<4>| scalar(&(images.clone() - other).square().mean());
    vec![(ERROR, distance(reconstructions)), (VARIANCE, distance(mean.clone()))]
}

/// Puts the share of the variance that is explained in place of both errors.
fn explain(measures: &mut Measures) {
    let mut take = |name| {
        let place = measures.iter().position(|(known, _)| *known == name)?;
        Some(measures.remove(place).1)
    };
    if let (Some(error), Some(variance)) = (take(ERROR), take(VARIANCE)) {
        // Pictures that are all alike have nothing to explain.
        measures.push((EXPLAINED, 1.0 - error / variance.max(1e-6)));
    }
}

impl<S: Stage> Trainer for ImageTrainer<S> {
    fn scope(&self) -> Scope {
        let (config, batch) = (self.stage.config(), self.source.split.batch());
        Scope {
            trains: self.stage.trains().to_owned(),
            pictures: self.pictures,
            learned: self.source.data.len(),
            classes: self.source.data.classes().len(),
            heldout: self.heldout.as_ref().map(|heldout| heldout.data.len()),
            image: (config.image.width, config.image.height),
            tokens: config.layout().len(),
            parameters: self.learner.module().num_params(),
            activations: self.stage.activations(),
            warnings: self.stage.warnings(batch),
        }
    }

    fn communicator(&self) -> &dyn Communicator {
        self.source.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = vec![("data set", description(self.source.data.as_ref()))];
        let heldout = self.heldout.as_ref().map(|heldout| description(heldout.data.as_ref()));
        inputs.extend(heldout.map(|heldout| ("held-out data set", heldout)));
        inputs.push((LABELS, labels(self.source.data.as_ref())));
        let heldout = self.heldout.as_ref().map(|heldout| labels(heldout.data.as_ref()));
        inputs.extend(heldout.map(|heldout| (HELDOUT_LABELS, heldout)));
        inputs.extend(self.stage.inputs());
        inputs.push(self.objective.input());
        inputs.push((BEGAN_WITH, self.initial.clone().unwrap_or_default()));
        inputs
    }

    fn start(&mut self, checkpoint: Option<Checkpoint>, address: u64) -> Result<(), TrainingError> {
        if let Some(mut checkpoint) = checkpoint {
            self.learner.restore(&mut checkpoint)?;
            self.objective.restore(&mut checkpoint)?;
            self.stage.restore(&mut checkpoint)?;
            checkpoint.finish()?;
        }
        self.loader = Some(ImageLoader::start(self.source.clone(), address));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        let loader = self.loader.as_mut().expect("a trainer is started before its first step");
        let split = &self.source.split;
        let turn = self.objective.turn(step.number);
        let mut gradients = split.gradients();
        let (mut parts, mut rebuilt) = (Vec::new(), Vec::new());
        for images in loader.next()? {
            let images = images.into_tensor(&self.device);
            if !turn.tokenizer {
                let model = self.learner.computing().valid();
                let reconstructions = self.stage.reconstruct(&model, images.clone())?;
                rebuilt.push(Rebuilt { images, reconstructions });
                continue;
            }
            let model = self.learner.computing();
            let mut tape = self.learner.tape(split);
            let forward = self.stage.forward(&model, images.clone(), tape.as_mut())?;
            let Forward { picture, with_prefix, loss: mut total, mut measures } = forward;
            let pictures = Tensor::from_inner(images.clone());
            if let Some(term) = self.objective.perceptual(step.number, &picture, &pictures) {
                measures.push(("perceptual", scalar(&term)));
                total = total + term;
            }
            if let Some((picture, weight)) = with_prefix
                && let Some(term) = self.objective.perceptual(step.number, &picture, &pictures)
            {
                measures.push(("auxiliary_perceptual", scalar(&term)));
                total = total + term.mul_scalar(weight);
            }
            if let Some((term, weight)) =
                self.objective.adversarial(step.number, &picture, split)?
            {
                measures.push(("adversarial", scalar(&term)));
                total = total + term.mul_scalar(weight);
            }
            if measures.len() == 1 {
                // The only term is the loss itself.
                measures.clear();
            }
            measures.insert(0, ("loss", scalar(&total)));
            let reconstructions = picture.inner();
            measures.extend(errors(&images, reconstructions.clone(), &self.mean_picture));
            parts.push(measures);
            if turn.discriminator {
                rebuilt.push(Rebuilt { images, reconstructions });
            }
            gradients.add(self.learner.module(), total, tape);
        }
        let module = self.learner.module();
        let gradients = turn.tokenizer.then(|| gradients.mean(module)).transpose()?;
        let mut measures = split.mean_measures(parts)?;
        explain(&mut measures);
        if turn.discriminator {
            measures.extend(self.objective.learn(rebuilt, split)?);
        }
        measures.extend(self.stage.follow(&mut self.learner, split, step.address)?);
        if let Some(gradients) = gradients {
            measures.push(("gradient_norm", self.learner.step(step.learning_rate, gradients)));
        }
        Ok(measures)
    }

    fn limits(&self) -> Vec<Limit> {
        let mut limits = self.stage.limits(self.source.split.batch());
        limits.push(BETTER_THAN_THE_MEAN);
        limits
    }

    fn take_bad(&mut self) -> Vec<BadPicture> {
        let replaced = self.loader.as_mut().map(ImageLoader::take_bad);
        let left_out = self.heldout.as_mut().map(HeldoutImages::take_bad);
        [replaced, left_out].into_iter().flatten().flatten().collect()
    }

    fn has_heldout(&self) -> bool {
        self.heldout.is_some()
    }

    fn evaluate(&mut self) -> Result<f64, TrainingError> {
        let heldout = self.heldout.as_mut().ok_or(TrainingError::NoHeldout)?;
        let (stage, model) = (&self.stage, self.learner.result());
        let (split, strict) = (&self.source.split, self.source.strict);
        heldout.mean(split, strict, &self.device, |images| {
            let target = patchify(images.clone(), stage.config().patch);
            Ok(squared_errors(stage.patches(&model, images)?, target))
        })
    }

    fn samples(&self) -> Result<Picture, TrainingError> {
        let data = self.heldout.as_ref().map_or(&self.source.data, |heldout| &heldout.data);
        let images = originals(data.as_ref(), self.source.image, &self.device)?;
        let mut rows = self.stage.samples(&self.learner.result(), images.clone())?;
        rows.insert(0, ("original", images));
        sheet_of_rows(rows)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        self.objective.save(&mut checkpoint);
        self.stage.save(&mut checkpoint);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        self.stage.export(&self.learner.result(), folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_explain_all_of_perfect_pictures_and_nothing_by_their_mean() {
        let device = Device::flex();
        let values: Vec<f32> = (0..4 * 3 * 2 * 2).map(|i| (i * 7 % 11) as f32 / 11.0).collect();
        let images = ImageBatch::new(values, [4, 3, 2, 2]).into_tensor(&device);
        let mean = images.clone().mean_dim(0);
        let explained = |reconstructions: Tensor<4>| {
            let mut measures = errors(&images, reconstructions, &mean);
            explain(&mut measures);
            let [(EXPLAINED, part)] = measures[..] else { panic!("{measures:?}") };
            part
        };
        assert_eq!(explained(images.clone()), 1.0);
        let means = mean.clone().repeat_dim(0, 4);
        assert!(explained(means.clone()).abs() < 1e-6);
        assert!(explained(means + 0.5) < 0.0);
    }
}
