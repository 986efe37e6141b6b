//! The tokenizer's first stage: encoder, codebook and a decoder that keeps them causal.

use std::{path::Path, sync::Arc};

use burn::tensor::{Device, Int, Tensor};
use files::{Home, TensorMap};
use model::{tensors_digest, write_tokenizer};
use operations::{parameters::collect, tape::Tape};
use pixels::DataSet;
use tokenizer::{
    DecoderKind, TokenizerConfig, TransformerConfig,
    reference::{
        Clustering, Initialization, Tokenizer,
        patch::{patchify, unpatchify},
        resize,
    },
};
use tokens::noise::{Noise, Purpose};

use super::{
    block_activations,
    image::{Common, Forward, ImageTrainer, Stage},
};
use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    learner::Learner,
    losses::picture_of_prefix,
    measures::{Measures, scalar},
    parallel::Split,
    recipe::StageOneRecipe,
    run::{Limit, check_parameters},
};

/// Trains encoder, codebook and first decoder (paper, 3.2, "Causal decoder" and "Prefix token").
pub type StageOne = ImageTrainer<FirstStage>;

/// What is particular to the first stage: the codebook, and the loss of what the prefix rebuilds.
pub struct FirstStage {
    recipe: StageOneRecipe,
    kind: DecoderKind,
    clustering: Clustering,
    /// Where the clustering computes.
    device: Device,
    /// Features and indices of the micro-batches of a step.
    encoded: Vec<(Tensor<3>, Tensor<2>)>,
}

impl StageOne {
    /// Prepares the training of a new tokenizer on `data`. Networks that are bundled are
    /// below `home`.
    ///
    /// # Errors
    /// If the architecture cannot be built or has not exactly one decoder, or there are no data.
    pub fn new(
        recipe: StageOneRecipe,
        data: Arc<dyn DataSet>,
        home: &Home,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let config = &recipe.architecture;
        let kind = match (&config.causal_decoder, &config.bidirectional_decoder) {
            (Some(_), None) => DecoderKind::Causal,
            (None, Some(_)) => DecoderKind::Bidirectional,
            _ => {
                return Err(TrainingError::Data(
                    "stage 1 trains one decoder: give the architecture a causal_decoder (or, for \
                     the ablation's baseline, a bidirectional_decoder), not both"
                        .into(),
                ));
            }
        };
        config.validate()?;
        let decoder = config.decoder_parameters(config.decoder(kind)?);
        let parameters = config.encoder_parameters() + config.codebook_parameters() + decoder;
        check_parameters(parameters, &recipe.schedule)?;
        let plain = device.clone().autodiff().inner();
        let stage = FirstStage {
            clustering: Clustering::new(recipe.clustering, config.codes, &plain),
            recipe: recipe.clone(),
            kind,
            device: plain,
            encoded: Vec::new(),
        };
        let common = Common {
            schedule: &recipe.schedule,
            augmentation: recipe.augmentation,
            optimizer: recipe.optimizer,
            phases: &recipe.phases,
            discriminator: recipe.discriminator,
        };
        Self::prepare(stage, common, data, home, device, |_, device| {
            let StageOneRecipe { positions, weights, .. } = recipe;
            let initialization = Initialization { seed: recipe.schedule.seed, positions, weights };
            Ok(recipe.architecture.initialize(&initialization, device)?)
        })
    }

    /// The same training, which begins with this model's parameters: for pictures of another size,
    /// position tables are interpolated.
    ///
    /// # Errors
    /// If they are of another architecture.
    pub fn begin_with(
        mut self,
        config: &TokenizerConfig,
        mut tensors: TensorMap,
    ) -> Result<Self, TrainingError> {
        self.initial = Some(tensors_digest(&tensors));
        let kind = self.stage.kind;
        tensors.retain(|name, _| {
            let section = name.split('.').next().unwrap_or_default();
            !section.ends_with("_decoder") || section == kind.section()
        });
        self.learner.begin_with(resize(tensors, config, self.stage.config()))?;
        Ok(self)
    }
}

impl Stage for FirstStage {
    type Model = Tokenizer;

    fn config(&self) -> &TokenizerConfig {
        &self.recipe.architecture
    }

    fn forward<'a>(
        &mut self,
        model: &'a Tokenizer,
        images: Tensor<4>,
        mut tape: Option<&mut Tape<'a>>,
    ) -> Result<Forward, TrainingError> {
        let config = &self.recipe.architecture;
        let images = Tensor::from_inner(images);
        let target = patchify(images.clone(), config.patch);
        let mut encoded = model.encoder.forward_on(images, tape.as_deref_mut());
        if let Some(tape) = tape.as_deref_mut() {
            // The quantizer's loss looks at features, and so does the decoder's.
            encoded = tape.cut(encoded);
        }
        let quantized = model.quantizer.forward(encoded.clone());
        let decoder = model.decoder(self.kind)?;
        let reconstruction = decoder.forward_on(quantized.codes.clone(), tape);
        let columns = config.layout().columns();
        let picture = unpatchify(reconstruction.patches.clone(), config.patch, columns);
        let loss = &self.recipe.loss;
        let with_prefix = picture_of_prefix(config, &reconstruction)
            .filter(|_| loss.auxiliary > 0.0)
            .map(|picture| (picture, loss.auxiliary));
        let terms = loss.forward(config, reconstruction, &quantized, target);
        let mut measures = vec![
            ("reconstruction", scalar(&terms.reconstruction)),
            ("quantizer", scalar(&terms.quantizer)),
        ];
        measures.extend(terms.auxiliary.as_ref().map(|term| ("auxiliary", scalar(term))));
        // Indices as numbers, which all processes can exchange; exact up to 2²⁴ codes.
        self.encoded.push((encoded.inner(), quantized.indices.inner().float()));
        Ok(Forward { picture, with_prefix, loss: terms.total, measures })
    }

    fn reconstruct(
        &mut self,
        model: &Tokenizer,
        images: Tensor<4>,
    ) -> Result<Tensor<4>, TrainingError> {
        let encoded = model.encoder.forward(images);
        let nearest = model.quantizer.nearest(encoded.clone());
        self.encoded.push((encoded, nearest.clone().float()));
        Ok(model.decoder(self.kind)?.images(model.quantizer.codes(nearest)))
    }

    /// The codebook moves first, then the optimizer steps from where it is.
    fn follow(
        &mut self,
        learner: &mut Learner<Tokenizer>,
        split: &Split,
        address: u64,
    ) -> Result<Measures, TrainingError> {
        let (features, indices) = std::mem::take(&mut self.encoded).into_iter().unzip();
        let (features, indices) = (split.join(features)?, split.join(indices)?.int());
        let usage = Usage::of(&indices, self.recipe.architecture.codes);
        let mut noise = Noise::new(self.recipe.schedule.seed, Purpose::Clustering, address, 0);
        let clustering = &mut self.clustering;
        learner.change(|mut model| {
            model.quantizer = clustering.update(model.quantizer, features, indices, &mut noise);
            model
        });
        Ok(vec![
            ("usage", usage.used),
            ("perplexity", usage.perplexity),
            ("entropy", usage.perplexity.log2()),
        ])
    }

    fn patches(&self, model: &Tokenizer, images: Tensor<4>) -> Result<Tensor<3>, TrainingError> {
        let codes = model.quantizer.codes(model.encode(images));
        Ok(model.decoder(self.kind)?.forward(codes).patches)
    }

    /// What the decoder makes of the originals' tokens, and the same with the first row from the
    /// prefix.
    fn samples(
        &self,
        model: &Tokenizer,
        originals: Tensor<4>,
    ) -> Result<Vec<(&'static str, Tensor<4>)>, TrainingError> {
        let config = &self.recipe.architecture;
        let codes = model.quantizer.codes(model.encode(originals));
        let reconstruction = model.decoder(self.kind)?.forward(codes);
        let columns = config.layout().columns();
        let picture = unpatchify(reconstruction.patches.clone(), config.patch, columns);
        let with_prefix = picture_of_prefix(config, &reconstruction);
        let with_prefix = with_prefix.map(|picture| ("first row from the prefix", picture));
        Ok([Some(("rebuilt", picture)), with_prefix].into_iter().flatten().collect())
    }

    fn trains(&self) -> &'static str {
        match self.kind {
            DecoderKind::Causal => "a tokenizer's encoder, codebook and causal decoder",
            DecoderKind::Bidirectional => {
                "a tokenizer's encoder, codebook and bidirectional decoder"
            }
        }
    }

    fn activations(&self) -> usize {
        let (config, again) =
            (&self.recipe.architecture, self.recipe.schedule.activation_checkpointing);
        let patches = config.layout().rows() * config.layout().columns();
        let encoder = &config.encoder;
        // The encoder reads patches beside the latents that become tokens.
        let length = patches + config.layout().len();
        let encoded =
            block_activations(encoder.layers, encoder.width, encoder.heads, length, again);
        let decoder = config.decoder(self.kind).map_or(0, |decoder| {
            let TransformerConfig { width, layers, heads } = decoder.transformer;
            let length = config.layout().len() + decoder.leading;
            block_activations(layers, width, heads, length, again)
        });
        encoded.saturating_add(decoder)
    }

    fn warnings(&self, batch: usize) -> Vec<String> {
        let (codes, tokens) =
            (self.recipe.architecture.codes, batch * self.recipe.architecture.layout().len());
        if tokens >= codes / FEWEST_FEATURES {
            return Vec::new();
        }
        vec![format!(
            "a step has {tokens} features for a codebook of {codes} codes, so most codes see none for \
             many steps; make the batch larger or the codebook smaller"
        )]
    }

    fn limits(&self, batch: usize) -> Vec<Limit> {
        let config = &self.recipe.architecture;
        let limits = self.recipe.alarms.limits(config.codes, batch * config.layout().len());
        limits.into_iter().map(|(what, least)| Limit { what, least, after: 0.0 }).collect()
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        let usage = operations::parameters::host_tensor(self.clustering.usage());
        checkpoint.tensors.insert(USAGE.into(), usage);
    }

    fn restore(&mut self, checkpoint: &mut Checkpoint) -> Result<(), TrainingError> {
        let usage = checkpoint
            .tensors
            .remove(USAGE)
            .filter(|usage| usage.values.len() == self.recipe.architecture.codes)
            .ok_or_else(|| TrainingError::Checkpoint {
                step: checkpoint.step,
                problem: format!("`{USAGE}` is missing or has another size"),
            })?;
        self.clustering =
            Clustering::from_usage(self.recipe.clustering, usage.values, &self.device);
        Ok(())
    }

    fn export(&self, model: &Tokenizer, folder: &Path) -> Result<(), TrainingError> {
        Ok(write_tokenizer(model.config(), &collect(model), folder).map(drop)?)
    }
}

/// A step should have at least one feature for so many codes.
const FEWEST_FEATURES: usize = 8;

/// The tensor of the clustering's use of codes in a checkpoint.
const USAGE: &str = "usage";

/// How much of the codebook a batch uses.
struct Usage {
    /// Fraction of the codes that occur at all.
    used: f64,
    /// Exponential of the entropy of the codes' frequencies: how many codes are used as if
    /// evenly.
    perplexity: f64,
}

impl Usage {
    fn of(indices: &Tensor<2, Int>, codes: usize) -> Self {
        let mut counts = vec![0_u64; codes];
        for index in indices.to_data().iter::<i64>() {
            if let Some(count) = usize::try_from(index).ok().and_then(|i| counts.get_mut(i)) {
                *count += 1;
            }
        }
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let used = counts.iter().filter(|&&count| count > 0).count() as f64 / codes as f64;
        let entropy: f64 = counts
            .iter()
            .filter(|&&count| count > 0)
            .map(|&count| count as f64 / total)
            .map(|frequency| -frequency * frequency.ln())
            .sum();
        Self { used, perplexity: entropy.exp() }
    }
}
