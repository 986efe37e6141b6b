//! Training of the generator on cached tokens.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::generator::{
    Dropout, Generator, GeneratorConfig,
    loss::{accuracy, cross_entropy},
};
use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Device, Int, Tensor, TensorData},
};
use layers::parameters::collect;
use tokens::{
    cache::TokenCache,
    noise::{Noise, Purpose},
};
use weights::{ClassNames, ModelConfig, ModelContents, ModelFolder, Precision, tokenizer_digest};

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    loader::Order,
    optimizer::AdamW,
    parallel::{Alone, Communicator, ParallelError, Split},
    recipe::GeneratorRecipe,
    run::Trainer,
    stage_one::scalar,
    telemetry::Measures,
};

/// Trains the generator to predict each token from its class and the tokens before it (paper,
/// 3.3 and 4.1). One epoch sees each picture once, in one of its views at random.
pub struct GeneratorTrainer {
    recipe: GeneratorRecipe,
    split: Split,
    device: Device,
    cache: TokenCache,
    tokenizer: PathBuf,
    order: Order,
    model: Generator,
    optimizer: AdamW,
}

impl GeneratorTrainer {
    /// Prepares the training of a new generator on the token cache in a folder.
    ///
    /// # Errors
    /// If the cache cannot be read or is empty, or the architecture cannot be built.
    pub fn new(
        recipe: GeneratorRecipe,
        cache: &Path,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let tokenizer = cache.join(crate::cache::TOKENIZER);
        let cache = TokenCache::open(cache)?;
        let tensors = ModelFolder::read(&tokenizer)?.tokenizer_tensors()?;
        cache.check_tokenizer(&tokenizer_digest(&tensors))?;
        if cache.is_empty() {
            return Err(TrainingError::Data("the token cache holds no pictures".into()));
        }
        let header = cache.header();
        let config = GeneratorConfig {
            layout: header.layout,
            codes: header.codes,
            classes: header.classes.len(),
            width: recipe.architecture.width,
            layers: recipe.architecture.layers,
            heads: recipe.architecture.heads,
        };
        let device = device.clone().autodiff();
        let model = config.initialize(recipe.schedule.seed, &device)?;
        Ok(Self {
            optimizer: AdamW::new(recipe.optimizer, &model),
            order: Order::new(recipe.schedule.seed, cache.len()),
            split: Split::new(Arc::new(Alone), &recipe.schedule)?,
            recipe,
            device,
            cache,
            tokenizer,
            model,
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
        self.split = Split::new(communicator, &self.recipe.schedule)?;
        Ok(self)
    }

    /// Class identifiers `[count]` and tokens `[count, length]` of samples of a step.
    fn batch(
        &mut self,
        step: u64,
        samples: Range<usize>,
    ) -> Result<(Tensor<1, Int>, Tensor<2, Int>), TrainingError> {
        let schedule = self.recipe.schedule;
        let vocabulary = self.model.config().vocabulary();
        let length = self.model.config().layout.len();
        let (mut classes, mut tokens) = (Vec::new(), Vec::new());
        let count = samples.len();
        for sample in samples.map(|sample| sample as u64) {
            let index = self.order.at(step * schedule.batch as u64 + sample);
            let record = self.cache.record(index)?;
            let noise = |purpose| Noise::new(schedule.seed, purpose, step, sample);
            let dropped = noise(Purpose::ClassDropout).uniform() < self.recipe.class_dropout;
            let class = if dropped {
                vocabulary.unconditional()
            } else {
                vocabulary
                    .class(record.label)
                    .map_err(|error| TrainingError::Data(error.to_string()))?
            };
            classes.push(class as i64);
            let view = noise(Purpose::Augmentation).below(record.views.len());
            tokens.extend(record.views[view].iter().map(|&token| i64::from(token)));
        }
        Ok((
            Tensor::from_data(TensorData::new(classes, [count]), &self.device),
            Tensor::from_data(TensorData::new(tokens, [count, length]), &self.device),
        ))
    }
}

impl Trainer for GeneratorTrainer {
    fn communicator(&self) -> &dyn Communicator {
        self.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let header = self.cache.header();
        let cache = format!("{} pictures of tokenizer {}", self.cache.len(), header.tokenizer);
        vec![("token cache", cache)]
    }

    fn start(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), TrainingError> {
        if let Some(mut checkpoint) = checkpoint {
            self.model = checkpoint.restore(self.model.clone(), &mut self.optimizer)?;
            checkpoint.finish()?;
        }
        Ok(())
    }

    fn step(&mut self, step: u64, learning_rate: f64) -> Result<Measures, TrainingError> {
        let mut gradients = GradientsAccumulator::new();
        let mut parts = Vec::new();
        for samples in self.split.micro_batches() {
            let first_sample = samples.start as u64;
            let (classes, tokens) = self.batch(step, samples)?;
            let [batch, length] = tokens.dims();
            let dropout = Dropout {
                rate: self.recipe.dropout,
                seed: self.recipe.schedule.seed,
                step,
                first_sample,
            };
            // The last token predicts nothing.
            let known = tokens.clone().slice([0..batch, 0..length - 1]);
            let logits = self.model.forward(classes, known, Some(&dropout));
            let loss = cross_entropy(logits.clone(), tokens.clone());
            let accuracy = scalar(&accuracy(logits, tokens));
            parts.push(vec![("loss", scalar(&loss)), ("accuracy", accuracy)]);
            let loss = loss.backward();
            gradients.accumulate(&self.model, GradientsParams::from_grads(loss, &self.model));
        }
        let gradients = self.split.mean_gradients(&self.model, gradients)?;
        let mut measures = self.split.mean_measures(parts)?;
        let (model, norm) = self.optimizer.step(learning_rate, self.model.clone(), gradients);
        self.model = model;
        measures.push(("gradient_norm", norm));
        Ok(measures)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        Checkpoint::of(step, &self.model, &self.optimizer)
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let tokenizer = ModelFolder::read(&self.tokenizer)?;
        let mut config =
            ModelConfig::new(tokenizer.config.tokenizer.clone(), Some(self.model.config().clone()));
        config.sampling = self.recipe.sampling;
        ModelContents {
            config: &config,
            classes: &ClassNames::new(self.cache.header().classes.clone()),
            tokenizer: &tokenizer.tokenizer_tensors()?,
            generator: Some(&collect(&self.model)),
            precision: Precision::F32,
            readme: None,
        }
        .write(folder)?;
        Ok(())
    }
}
