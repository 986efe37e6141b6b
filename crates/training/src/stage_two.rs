//! The tokenizer's second stage: a bidirectional decoder for an encoder that no longer changes.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use files::{Home, TensorMap};
use operations::parameters::collect;
use pixels::{DataSet, Picture};
use tokenizer::{
    DecoderKind, TokenizerConfig,
    reference::{
        Decoder, FrozenEncoder, Initialization, Tokenizer,
        patch::{patchify, unpatchify},
        resize,
    },
};

use model::{tensors_digest, tokenizer_digest};

use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint},
    learner::Learner,
    loader::{HeldoutImages, ImageLoader, ImageSource},
    losses::{mean_squared_error, squared_errors},
    objective::{Objective, Rebuilt},
    parallel::{Alone, Communicator, ParallelError, Split},
    recipe::{Schedule, StageTwoRecipe},
    run::{Step, Trainer},
    samples::{grid, originals},
    stage_one::{BEGAN_WITH, export_tokenizer, image_inputs, image_source, scalar, section_of},
    telemetry::{BadPicture, Measures},
};

/// Trains a bidirectional decoder (paper, 3.2, "Retraining a bidirectional decoder").
///
/// Encoder, latents and codebook are a [`FrozenEncoder`], which no optimizer can reach.
pub struct StageTwo {
    config: TokenizerConfig,
    device: Device,
    source: ImageSource,
    loader: Option<ImageLoader>,
    first_stage: Tokenizer,
    encoder: FrozenEncoder,
    learner: Learner<Decoder>,
    objective: Objective,
    initial: Option<String>,
    schedule: Schedule,
    heldout: Option<HeldoutImages>,
}

impl StageTwo {
    /// Prepares the training of a fresh decoder for the first stage's tokenizer. Networks that
    /// are bundled are below `home`.
    ///
    /// # Errors
    /// If the architecture cannot be built, or there are no data.
    pub fn new(
        recipe: StageTwoRecipe,
        first_stage: Tokenizer,
        data: Arc<dyn DataSet>,
        home: &Home,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let mut config = first_stage.config().clone();
        config.bidirectional_decoder = Some(recipe.decoder);
        let schedule = recipe.schedule;
        let split = Split::new(Arc::new(Alone), &schedule)?;
        let source = image_source(data, config.image, split, schedule.seed, recipe.augmentation)?;
        let device = device.clone().autodiff();
        let initialization = Initialization { seed: schedule.seed, positions: recipe.positions };
        let decoder =
            config.initialize_decoder(DecoderKind::Bidirectional, &initialization, &device)?;
        let objective = Objective::new(
            &recipe.phases,
            recipe.discriminator,
            &schedule,
            recipe.optimizer,
            config.image,
            home,
            &device,
        )?;
        Ok(Self {
            objective,
            initial: None,
            encoder: first_stage.frozen_encoder(),
            learner: Learner::new("", decoder, recipe.optimizer, &schedule)?,
            loader: None,
            config,
            device,
            source,
            first_stage,
            schedule,
            heldout: None,
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
        self.source.split = Split::new(communicator, &self.schedule)?;
        Ok(self)
    }

    /// The same training, whose decoder begins with the parameters of this model's bidirectional
    /// decoder: for pictures of another size, its positions are interpolated.
    ///
    /// # Errors
    /// If they are of another architecture.
    pub fn begin_with(
        mut self,
        config: &TokenizerConfig,
        tensors: TensorMap,
    ) -> Result<Self, TrainingError> {
        let prefix = format!("{}.", section_of(DecoderKind::Bidirectional));
        let decoder = resize(tensors, config, &self.config)
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)));
        let decoder: TensorMap = decoder.collect();
        self.initial = Some(tensors_digest(&decoder));
        self.learner.begin_with(decoder)?;
        Ok(self)
    }

    /// The same training, which ends at the first picture that cannot be read, if `strict`;
    /// otherwise another picture takes its place.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.source.strict = strict;
        self
    }

    /// The same training, which evaluates on these pictures: the mean squared error of their
    /// reconstructions.
    #[must_use]
    pub fn with_heldout(mut self, data: Arc<dyn DataSet>) -> Self {
        self.heldout = Some(HeldoutImages::new(data, self.config.image));
        self
    }
}

impl Trainer for StageTwo {
    fn communicator(&self) -> &dyn Communicator {
        self.source.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = image_inputs(&self.source, self.heldout.as_ref());
        inputs.push(("first stage", tokenizer_digest(&collect(&self.first_stage))));
        inputs.push(self.objective.input());
        inputs.push((BEGAN_WITH, self.initial.clone().unwrap_or_default()));
        inputs
    }

    fn start(&mut self, checkpoint: Option<Checkpoint>, address: u64) -> Result<(), TrainingError> {
        if let Some(mut checkpoint) = checkpoint {
            self.learner.restore(&mut checkpoint)?;
            self.objective.restore(&mut checkpoint)?;
            checkpoint.finish()?;
        }
        self.loader = Some(ImageLoader::start(self.source.clone(), address));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        let loader = self.loader.as_mut().expect("a trainer is started before its first step");
        let split = &self.source.split;
        let columns = self.config.layout().columns();
        let turn = self.objective.turn(step.number);
        let mut gradients = split.gradients();
        let (mut parts, mut rebuilt) = (Vec::new(), Vec::new());
        for images in loader.next()? {
            let images = images.into_tensor(&self.device.clone().inner());
            let codes = self.encoder.codes(images.clone());
            if !turn.tokenizer {
                let reconstructions = self.learner.computing().valid().images(codes);
                rebuilt.push(Rebuilt { images, reconstructions });
                continue;
            }
            let target = Tensor::from_inner(patchify(images.clone(), self.config.patch));
            let decoder = self.learner.computing();
            let mut tape = self.learner.tape(split);
            let patches = decoder.forward_on(Tensor::from_inner(codes), tape.as_mut()).patches;
            let picture = unpatchify(patches.clone(), self.config.patch, columns);
            let mut total = mean_squared_error(patches, target);
            let mut measures = Vec::new();
            let reconstruction = scalar(&total);
            let pictures = Tensor::from_inner(images.clone());
            if let Some(term) = self.objective.perceptual(step.number, &picture, &pictures) {
                measures.push(("perceptual", scalar(&term)));
                total = total + term;
            }
            if let Some((term, weight)) =
                self.objective.adversarial(step.number, &picture, split)?
            {
                measures.push(("adversarial", scalar(&term)));
                total = total + term.mul_scalar(weight);
            }
            if !measures.is_empty() {
                measures.insert(0, ("reconstruction", reconstruction));
            }
            measures.insert(0, ("loss", scalar(&total)));
            parts.push(measures);
            if turn.discriminator {
                rebuilt.push(Rebuilt { images, reconstructions: picture.inner() });
            }
            gradients.add(self.learner.module(), total, tape);
        }
        let module = self.learner.module();
        let gradients = turn.tokenizer.then(|| gradients.mean(module)).transpose()?;
        let mut measures = split.mean_measures(parts)?;
        if turn.discriminator {
            measures.extend(self.objective.learn(rebuilt, split)?);
        }
        if let Some(gradients) = gradients {
            measures.push(("gradient_norm", self.learner.step(step.learning_rate, gradients)));
        }
        Ok(measures)
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
        let decoder = self.learner.result();
        let (split, strict) = (&self.source.split, self.source.strict);
        heldout.mean(split, strict, &self.device.clone().inner(), |images| {
            let target = patchify(images.clone(), self.config.patch);
            Ok(squared_errors(decoder.forward(self.encoder.codes(images)).patches, target))
        })
    }

    /// Originals, what the first stage's decoder makes of their tokens, and what this one does.
    fn samples(&self) -> Result<Picture, TrainingError> {
        let data = self.heldout.as_ref().map_or(&self.source.data, |heldout| &heldout.data);
        let images = originals(data.as_ref(), self.config.image, &self.device.clone().inner())?;
        let codes = self.encoder.codes(images.clone());
        let mut rows = vec![images];
        if let Ok(decoder) = self.first_stage.decoder(DecoderKind::Causal) {
            rows.push(decoder.images(codes.clone()));
        }
        rows.push(self.learner.result().images(codes));
        grid(rows)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        self.objective.save(&mut checkpoint);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let section = section_of(DecoderKind::Bidirectional);
        let mut tensors = collect(&self.first_stage);
        tensors.retain(|name, _| !name.starts_with(section));
        checkpoint::put(&mut tensors, section, collect(&self.learner.result()));
        export_tokenizer(&self.config, &tensors, folder)
    }
}
