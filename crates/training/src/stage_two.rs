//! The tokenizer's second stage: a bidirectional decoder for an encoder that no longer changes.

use std::{path::Path, sync::Arc};

use burn::{
    optim::GradientsParams,
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
    recipe::StageTwoRecipe,
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
        let source =
            image_source(data, config.image, schedule.batch, schedule.seed, recipe.augmentation)?;
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
        })
    }
}

impl Trainer for StageTwo {
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
        let images = loader.next()?.into_tensor(&self.device.clone().inner());
        let target = Tensor::from_inner(patchify(images.clone(), self.config.patch));
        let codes = Tensor::from_inner(self.encoder.codes(images));
        let loss = mean_squared_error(self.decoder.forward(codes).patches, target);
        let mut measures = vec![("loss", scalar(&loss))];
        let gradients = GradientsParams::from_grads(loss.backward(), &self.decoder);
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
