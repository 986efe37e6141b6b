//! The tokenizer's second stage: a bidirectional decoder for an encoder that no longer changes.

use std::{path::Path, sync::Arc};

use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Device, Tensor},
};
use layers::parameters::collect;
use pixels::DataSet;
use tokenizer::{
    Decoder, DecoderKind, FrozenEncoder, Initialization, Tokenizer, TokenizerConfig,
    patch::patchify,
};

use weights::tokenizer_digest;

use crate::{
    TrainingError,
    checkpoint::{self, Checkpoint},
    loader::{ImageLoader, ImageSource},
    losses::mean_squared_error,
    optimizer::AdamW,
    parallel::{Alone, Communicator, ParallelError, Split},
    recipe::{Schedule, StageTwoRecipe},
    run::Trainer,
    stage_one::{export_tokenizer, image_source, scalar},
    telemetry::Measures,
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
    decoder: Decoder,
    optimizer: AdamW,
    schedule: Schedule,
}

impl StageTwo {
    /// Prepares the training of a fresh decoder for the first stage's tokenizer.
    ///
    /// # Errors
    /// If the architecture cannot be built, or there are no data.
    pub fn new(
        recipe: StageTwoRecipe,
        first_stage: Tokenizer,
        data: Arc<dyn DataSet>,
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
        Ok(Self {
            encoder: first_stage.frozen_encoder(),
            optimizer: AdamW::new(recipe.optimizer, &decoder),
            loader: None,
            config,
            device,
            source,
            first_stage,
            decoder,
            schedule,
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
}

impl Trainer for StageTwo {
    fn communicator(&self) -> &dyn Communicator {
        self.source.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let first_stage = tokenizer_digest(&collect(&self.first_stage));
        vec![("data set", self.source.description()), ("first stage", first_stage)]
    }

    fn start(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainingError> {
        let mut step = 0;
        if let Some(mut checkpoint) = checkpoint {
            step = checkpoint.step;
            self.decoder = checkpoint.restore(self.decoder.clone(), &mut self.optimizer)?;
            checkpoint.finish()?;
        }
        self.loader = Some(ImageLoader::start(self.source.clone(), step));
        Ok(())
    }

    fn step(&mut self, _step: u64, learning_rate: f64) -> Result<Measures, TrainingError> {
        let loader = self.loader.as_mut().expect("a trainer is started before its first step");
        let split = &self.source.split;
        let mut gradients = GradientsAccumulator::new();
        let mut parts = Vec::new();
        for images in loader.next()? {
            let images = images.into_tensor(&self.device.clone().inner());
            let target = Tensor::from_inner(patchify(images.clone(), self.config.patch));
            let codes = Tensor::from_inner(self.encoder.codes(images));
            let loss = mean_squared_error(self.decoder.forward(codes).patches, target);
            parts.push(vec![("loss", scalar(&loss))]);
            let loss = loss.backward();
            gradients.accumulate(&self.decoder, GradientsParams::from_grads(loss, &self.decoder));
        }
        let gradients = split.mean_gradients(&self.decoder, gradients)?;
        let mut measures = split.mean_measures(parts)?;
        let (decoder, norm) = self.optimizer.step(learning_rate, self.decoder.clone(), gradients);
        self.decoder = decoder;
        measures.push(("gradient_norm", norm));
        Ok(measures)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        Checkpoint::of(step, &self.decoder, &self.optimizer)
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let section = "bidirectional_decoder";
        let mut tensors = collect(&self.first_stage);
        tensors.retain(|name, _| !name.starts_with(section));
        checkpoint::put(&mut tensors, section, collect(&self.decoder));
        export_tokenizer(&self.config, &tensors, folder)
    }
}
