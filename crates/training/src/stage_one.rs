//! The tokenizer's first stage: encoder, codebook and a decoder that keeps them causal.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use files::safetensors::StorageFormat;
use files::{Home, TensorMap};
use model::{ClassNames, ModelConfig, ModelContents, tensors_digest};
use operations::parameters::collect;
use pixels::{DataSet, Picture, augment::Augmentation};
use tokenizer::{
    DecoderKind, TokenizerConfig,
    reference::{
        Clustering, Initialization, Tokenizer,
        patch::{patchify, unpatchify},
        resize,
    },
};
use tokens::noise::{Noise, Purpose};

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    learner::Learner,
    loader::{HeldoutImages, ImageLoader, ImageSource, description},
    losses::{picture_of_prefix, squared_errors},
    objective::{Objective, Rebuilt},
    parallel::{Alone, Communicator, ParallelError, Split},
    recipe::StageOneRecipe,
    run::{Step, Trainer},
    samples::{grid, originals},
    telemetry::{BadPicture, Measures},
};

/// Trains encoder, codebook and first decoder (paper, 3.2, "Causal decoder" and "Prefix token").
pub struct StageOne {
    recipe: StageOneRecipe,
    device: Device,
    source: ImageSource,
    loader: Option<ImageLoader>,
    kind: DecoderKind,
    learner: Learner<Tokenizer>,
    clustering: Clustering,
    objective: Objective,
    initial: Option<String>,
    heldout: Option<HeldoutImages>,
}

impl StageOne {
    /// Prepares the training of a new tokenizer on `data`. Networks that are bundled are below `home`.
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
        let source = image_source(
            data,
            config.image,
            Split::new(Arc::new(Alone), &recipe.schedule)?,
            recipe.schedule.seed,
            recipe.augmentation,
        )?;
        let device = device.clone().autodiff();
        let initialization =
            Initialization { seed: recipe.schedule.seed, positions: recipe.positions };
        let model = config.initialize(&initialization, &device)?;
        let objective = Objective::new(
            &recipe.phases,
            recipe.discriminator,
            &recipe.schedule,
            recipe.optimizer,
            config.image,
            home,
            &device,
        )?;
        Ok(Self {
            objective,
            initial: None,
            learner: Learner::new("", model, recipe.optimizer, &recipe.schedule)?,
            clustering: Clustering::new(recipe.clustering, config.codes, &device.clone().inner()),
            loader: None,
            recipe,
            device,
            source,
            kind,
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
        self.source.split = Split::new(communicator, &self.recipe.schedule)?;
        Ok(self)
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
        tensors.retain(|name, _| {
            let section = name.split('.').next().unwrap_or_default();
            !section.ends_with("_decoder") || section == section_of(self.kind)
        });
        self.learner.begin_with(resize(tensors, config, &self.recipe.architecture))?;
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
        self.heldout = Some(HeldoutImages::new(data, self.recipe.architecture.image));
        self
    }
}

pub(crate) fn image_source(
    data: Arc<dyn DataSet>,
    image: tokenizer::ImageSize,
    split: Split,
    seed: u64,
    augmentation: Augmentation,
) -> Result<ImageSource, TrainingError> {
    if data.is_empty() {
        return Err(TrainingError::Data("the data set holds no pictures".into()));
    }
    Ok(ImageSource { data, image, split, seed, augmentation, strict: false })
}

impl Trainer for StageOne {
    fn communicator(&self) -> &dyn Communicator {
        self.source.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = image_inputs(&self.source, self.heldout.as_ref());
        inputs.push(self.objective.input());
        inputs.push((BEGAN_WITH, self.initial.clone().unwrap_or_default()));
        inputs
    }

    fn start(&mut self, checkpoint: Option<Checkpoint>, address: u64) -> Result<(), TrainingError> {
        if let Some(mut checkpoint) = checkpoint {
            self.learner.restore(&mut checkpoint)?;
            self.objective.restore(&mut checkpoint)?;
            let usage = checkpoint
                .tensors
                .remove("usage")
                .filter(|usage| usage.values.len() == self.recipe.architecture.codes)
                .ok_or_else(|| TrainingError::Checkpoint {
                    step: checkpoint.step,
                    problem: "`usage` is missing or has another size".into(),
                })?;
            let plain = self.device.clone().inner();
            self.clustering = Clustering::from_usage(self.recipe.clustering, usage.values, &plain);
            checkpoint.finish()?;
        }
        self.loader = Some(ImageLoader::start(self.source.clone(), address));
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        let loader = self.loader.as_mut().expect("a trainer is started before its first step");
        let config = &self.recipe.architecture;
        let columns = config.layout().columns();
        let split = &self.source.split;
        let turn = self.objective.turn(step.number);
        let mut gradients = split.gradients();
        let (mut parts, mut features, mut indices) = (Vec::new(), Vec::new(), Vec::new());
        let mut rebuilt = Vec::new();
        for images in loader.next()? {
            if !turn.tokenizer {
                let images = images.into_tensor(&self.device.clone().inner());
                let model = self.learner.computing().valid();
                let encoded = model.encoder.forward(images.clone());
                let nearest = model.quantizer.nearest(encoded.clone());
                let codes = model.quantizer.codes(nearest.clone());
                let reconstructions = model.decoder(self.kind)?.images(codes);
                rebuilt.push(Rebuilt { images, reconstructions });
                features.push(encoded);
                indices.push(nearest.float());
                continue;
            }
            let images = images.into_tensor(&self.device);
            let target = patchify(images.clone(), config.patch);

            let model = self.learner.computing();
            let mut tape = self.learner.tape(split);
            let mut encoded = model.encoder.forward_on(images.clone(), tape.as_mut());
            if let Some(tape) = &mut tape {
                // The quantizer's loss looks at features, and so does the decoder's.
                encoded = tape.cut(encoded);
            }
            let quantized = model.quantizer.forward(encoded.clone());
            let decoder = model.decoder(self.kind)?;
            let reconstruction = decoder.forward_on(quantized.codes.clone(), tape.as_mut());
            let picture = unpatchify(reconstruction.patches.clone(), config.patch, columns);
            let with_prefix = picture_of_prefix(config, &reconstruction);
            let loss = &self.recipe.loss;
            let terms = loss.forward(config, reconstruction, &quantized, target);

            let mut total = terms.total;
            let mut measures = vec![
                ("reconstruction", scalar(&terms.reconstruction)),
                ("quantizer", scalar(&terms.quantizer)),
            ];
            measures.extend(terms.auxiliary.as_ref().map(|term| ("auxiliary", scalar(term))));
            if let Some(term) = self.objective.perceptual(step.number, &picture, &images) {
                measures.push(("perceptual", scalar(&term)));
                total = total + term;
            }
            if let Some(picture) = with_prefix.filter(|_| loss.auxiliary > 0.0)
                && let Some(term) = self.objective.perceptual(step.number, &picture, &images)
            {
                measures.push(("auxiliary_perceptual", scalar(&term)));
                total = total + term.mul_scalar(loss.auxiliary);
            }
            if let Some((term, weight)) =
                self.objective.adversarial(step.number, &picture, split)?
            {
                measures.push(("adversarial", scalar(&term)));
                total = total + term.mul_scalar(weight);
            }
            measures.insert(0, ("loss", scalar(&total)));
            parts.push(measures);
            if turn.discriminator {
                rebuilt.push(Rebuilt { images: images.inner(), reconstructions: picture.inner() });
            }
            features.push(encoded.inner());
            // As numbers, which all processes can exchange; exact up to 2²⁴ codes.
            indices.push(quantized.indices.inner().float());
            gradients.add(self.learner.module(), total, tape);
        }
        let module = self.learner.module();
        let gradients = turn.tokenizer.then(|| gradients.mean(module)).transpose()?;
        let mut measures = split.mean_measures(parts)?;
        if turn.discriminator {
            measures.extend(self.objective.learn(rebuilt, split)?);
        }
        let (features, indices) = (split.join(features)?, split.join(indices)?.int());
        let usage = Usage::of(&indices, config.codes);
        measures.push(("usage", usage.used));
        measures.push(("perplexity", usage.perplexity));
        measures.push(("entropy", usage.perplexity.log2()));

        // The codebook moves first, then the optimizer steps from where it is.
        let mut noise = Noise::new(self.recipe.schedule.seed, Purpose::Clustering, step.address, 0);
        let clustering = &mut self.clustering;
        self.learner.change(|mut model| {
            model.quantizer = clustering.update(model.quantizer, features, indices, &mut noise);
            model
        });
        if let Some(gradients) = gradients {
            measures.push(("gradient_norm", self.learner.step(step.learning_rate, gradients)));
        }
        Ok(measures)
    }

    fn limits(&self) -> Vec<(&'static str, f64)> {
        let config = &self.recipe.architecture;
        let tokens = self.recipe.schedule.batch * config.layout().len();
        self.recipe.alarms.limits(config.codes, tokens)
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
        let model = self.learner.result();
        let decoder = model.decoder(self.kind)?;
        let (split, strict) = (&self.source.split, self.source.strict);
        heldout.mean(split, strict, &self.device.clone().inner(), |images| {
            let target = patchify(images.clone(), self.recipe.architecture.patch);
            let codes = model.quantizer.codes(model.encode(images));
            Ok(squared_errors(decoder.forward(codes).patches, target))
        })
    }

    /// Originals, what the decoder makes of their tokens, and the same with the first row from the
    /// prefix.
    fn samples(&self) -> Result<Picture, TrainingError> {
        let data = self.heldout.as_ref().map_or(&self.source.data, |heldout| &heldout.data);
        let config = &self.recipe.architecture;
        let images = originals(data.as_ref(), config.image, &self.device.clone().inner())?;
        let model = self.learner.result();
        let codes = model.quantizer.codes(model.encode(images.clone()));
        let reconstruction = model.decoder(self.kind)?.forward(codes);
        let columns = config.layout().columns();
        let picture = unpatchify(reconstruction.patches.clone(), config.patch, columns);
        let with_prefix = picture_of_prefix(config, &reconstruction);
        grid([Some(images), Some(picture), with_prefix].into_iter().flatten().collect())
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        self.objective.save(&mut checkpoint);
        let usage = operations::parameters::host_tensor(self.clustering.usage());
        checkpoint.tensors.insert("usage".into(), usage);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let model = self.learner.result();
        export_tokenizer(model.config(), &collect(&model), folder)
    }
}

/// The model that a run began with: nothing for one that began at random.
pub(crate) const BEGAN_WITH: &str = "model to begin with";

/// Where a decoder's parameters are among those of a tokenizer.
pub(crate) fn section_of(kind: DecoderKind) -> &'static str {
    match kind {
        DecoderKind::Causal => "causal_decoder",
        DecoderKind::Bidirectional => "bidirectional_decoder",
    }
}

/// What a training on pictures is made from.
pub(crate) fn image_inputs(
    source: &ImageSource,
    heldout: Option<&HeldoutImages>,
) -> Vec<(&'static str, String)> {
    let mut inputs = vec![("data set", description(source.data.as_ref()))];
    inputs.extend(heldout.map(|held| ("held-out data set", description(held.data.as_ref()))));
    inputs
}

/// Writes a model folder that has a tokenizer and no generator yet.
pub(crate) fn export_tokenizer(
    config: &TokenizerConfig,
    tensors: &TensorMap,
    folder: &Path,
) -> Result<(), TrainingError> {
    ModelContents {
        config: &ModelConfig::new(config.clone(), None),
        classes: &ClassNames::default(),
        tokenizer: tensors,
        generator: None,
        format: StorageFormat::F32,
        readme: None,
    }
    .write(folder)?;
    Ok(())
}

/// How much of the codebook a batch uses.
pub(crate) struct Usage {
    /// Fraction of the codes that occur at all.
    pub(crate) used: f64,
    /// Exponential of the entropy of the codes' frequencies: how many codes are used as if
    /// evenly.
    pub(crate) perplexity: f64,
}

impl Usage {
    pub(crate) fn of(indices: &Tensor<2, Int>, codes: usize) -> Self {
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

pub(crate) fn scalar(tensor: &Tensor<1>) -> f64 {
    f64::from(operations::parameters::host_tensor(tensor.clone()).values[0])
}
