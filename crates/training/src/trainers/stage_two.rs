//! The tokenizer's second stage: a bidirectional decoder for an encoder that no longer changes.

use std::{path::Path, sync::Arc};

use burn::tensor::{Device, Tensor};
use files::{Home, TensorMap};
use model::{tensors_digest, tokenizer_digest, write_tokenizer};
use operations::{parameters::collect, tape::Tape};
use pixels::DataSet;
use tokenizer::{
    DecoderKind, TokenizerConfig, TransformerConfig,
    reference::{
        Decoder, FrozenEncoder, Initialization, Tokenizer,
        patch::{patchify, unpatchify},
        resize,
    },
};

use super::{
    block_activations,
    image::{Common, Forward, ImageTrainer, Stage},
};
use crate::{
    TrainingError, checkpoint, losses::mean_squared_error, measures::scalar,
    recipe::StageTwoRecipe, run::check_parameters,
};

/// Trains a bidirectional decoder (paper, 3.2, "Retraining a bidirectional decoder").
pub type StageTwo = ImageTrainer<SecondStage>;

/// What is particular to the second stage: encoder, latents and codebook are a [`FrozenEncoder`],
/// which no optimizer can reach.
pub struct SecondStage {
    config: TokenizerConfig,
    first_stage: Tokenizer,
    encoder: FrozenEncoder,
    /// Whether blocks compute their activations again.
    again: bool,
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
        config.validate()?;
        check_parameters(config.decoder_parameters(&recipe.decoder), &recipe.schedule)?;
        let encoder = first_stage.frozen_encoder();
        let again = recipe.schedule.activation_checkpointing;
        let stage = SecondStage { config, first_stage, encoder, again };
        let common = Common {
            schedule: &recipe.schedule,
            augmentation: recipe.augmentation,
            optimizer: recipe.optimizer,
            phases: &recipe.phases,
            discriminator: recipe.discriminator,
        };
        let StageTwoRecipe { positions, weights, .. } = recipe;
        let initialization = Initialization { seed: recipe.schedule.seed, positions, weights };
        Self::prepare(stage, common, data, home, device, |stage, device| {
            let kind = DecoderKind::Bidirectional;
            Ok(stage.config.initialize_decoder(kind, &initialization, device)?)
        })
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
        let prefix = format!("{}.", DecoderKind::Bidirectional.section());
        let decoder = resize(tensors, config, self.stage.config())
            .into_iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)));
        let decoder: TensorMap = decoder.collect();
        self.initial = Some(tensors_digest(&decoder));
        self.learner.begin_with(decoder)?;
        Ok(self)
    }
}

impl Stage for SecondStage {
    type Model = Decoder;

    fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    fn trains(&self) -> &'static str {
        "a bidirectional decoder for the tokens of a tokenizer"
    }

    fn activations(&self) -> usize {
        self.config.bidirectional_decoder.as_ref().map_or(0, |decoder| {
            let TransformerConfig { width, layers, heads } = decoder.transformer;
            let length = self.config.layout().len() + decoder.leading;
            block_activations(layers, width, heads, length, self.again)
        })
    }

    fn forward<'a>(
        &mut self,
        model: &'a Decoder,
        images: Tensor<4>,
        tape: Option<&mut Tape<'a>>,
    ) -> Result<Forward, TrainingError> {
        let (patch, columns) = (self.config.patch, self.config.layout().columns());
        let codes = Tensor::from_inner(self.encoder.codes(images.clone()));
        let target = Tensor::from_inner(patchify(images, patch));
        let patches = model.forward_on(codes, tape).patches;
        let picture = unpatchify(patches.clone(), patch, columns);
        let loss = mean_squared_error(patches, target);
        let measures = vec![("reconstruction", scalar(&loss))];
        Ok(Forward { picture, with_prefix: None, loss, measures })
    }

    fn reconstruct(
        &mut self,
        model: &Decoder,
        images: Tensor<4>,
    ) -> Result<Tensor<4>, TrainingError> {
        Ok(model.images(self.encoder.codes(images)))
    }

    fn patches(&self, model: &Decoder, images: Tensor<4>) -> Result<Tensor<3>, TrainingError> {
        Ok(model.forward(self.encoder.codes(images)).patches)
    }

    /// What the first stage's decoder makes of the originals' tokens, and what this one does.
    fn samples(
        &self,
        model: &Decoder,
        originals: Tensor<4>,
    ) -> Result<Vec<(&'static str, Tensor<4>)>, TrainingError> {
        let codes = self.encoder.codes(originals);
        let mut rows = Vec::new();
        if let Ok(decoder) = self.first_stage.decoder(DecoderKind::Causal) {
            rows.push(("rebuilt by stage 1", decoder.images(codes.clone())));
        }
        rows.push(("rebuilt by stage 2", model.images(codes)));
        Ok(rows)
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        vec![("first stage", tokenizer_digest(&collect(&self.first_stage)))]
    }

    fn export(&self, model: &Decoder, folder: &Path) -> Result<(), TrainingError> {
        let section = DecoderKind::Bidirectional.section();
        let mut tensors = collect(&self.first_stage);
        tensors.retain(|name, _| !name.starts_with(section));
        checkpoint::put(&mut tensors, section, collect(model));
        Ok(write_tokenizer(&self.config, &tensors, folder).map(drop)?)
    }
}
