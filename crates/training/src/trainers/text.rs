//! Training of a language model that reads prompts, on cached tokens and their captions.

use std::{ops::Range, path::Path, sync::Arc};

use burn::{module::Module, tensor::Device};
use files::{
    FileError, TensorMap,
    safetensors::{StorageFormat, StringMetadata, TensorFile, write_to},
};
use generator::Condition;
use language::{
    LanguageConfig, PromptError, Prompts, TextTokenizer,
    reference::{
        LanguageModel, Sequence,
        loss::{Losses, losses},
    },
};
use model::{Model, ModelConfig, TextModelContents, tensors_digest, tokenizer_digest};
use operations::parameters::collect;
use pipeline::Compute;
use pixels::Picture;
use token_cache::{Record, TokenCache};
use tokens::{CodebookIndex, noise::Purpose};

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    communicator::{Alone, Communicator, ParallelError},
    learner::Learner,
    measures::{Measures, scalar},
    parallel::Split,
    plan::Scope,
    recipe::{LanguageSize, TextRecipe},
    run::{Step, Trainer, check_parameters},
    samples::COLUMNS,
    stages,
    telemetry::BadPicture,
    trainers::{BEGAN_WITH, block_activations, cached::CachedPictures},
};

/// Halves of the model that have learning rates of their own: the beginnings of their parameters' names.
const GROUPS: [&str; 2] = ["language.", "image_side."];

/// Trains a language model with its image side to predict the tokens of pictures from their captions,
/// and the captions themselves (paper, appendix A.4, after Janus-Pro).
pub struct TextTrainer {
    recipe: TextRecipe,
    split: Split,
    device: Device,
    pictures: CachedPictures,
    /// Pictures that are left away, because nothing is said of them.
    without_captions: usize,
    prompts: Prompts,
    /// The content of the text tokenizer's file.
    text_tokenizer: Arc<str>,
    config: LanguageConfig,
    learner: Learner<LanguageModel>,
    initial: Option<String>,
}

impl TextTrainer {
    /// Prepares the training on captioned pictures: of the language model of `from`, or without one of
    /// a model of the recipe's size, which begins at random. That one's text tokenizer is learned from
    /// the captions that are learned from.
    ///
    /// # Errors
    /// If no picture has a caption, the language model is of another tokenizer, it is not clear which
    /// architecture is meant, or the architecture cannot be built.
    pub fn new(
        recipe: TextRecipe,
        mut pictures: CachedPictures,
        from: Option<&Model>,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let data = |what: &str| TrainingError::Data(what.to_owned());
        let without_captions =
            pictures.retain(|cache, picture| Ok(!captions(cache, picture)?.is_empty()))?;
        if pictures.learned().is_empty() {
            return Err(data(
                "no picture of the token cache has a caption to learn from; build the cache from data \
                 with captions, docs/data.md says how they are given",
            ));
        }
        let device = device.clone().autodiff();
        let start = match (from, recipe.architecture) {
            (Some(model), None) => Start::of(model, &pictures, &recipe, &device)?,
            (None, Some(size)) => Start::random(size, &pictures, &recipe, &device)?,
            (Some(_), Some(_)) => {
                return Err(data(
                    "the model to begin with has an architecture, and the recipe another one; leave one \
                     of them away",
                ));
            }
            (None, None) => {
                return Err(data(
                    "the recipe has no `architecture`: it goes on from a language model; name one, which \
                     `alitok import --language` makes",
                ));
            }
        };
        let Start { model, text_tokenizer, prompts, initial } = start;
        let (optimizer, schedule) = (recipe.optimizer, &recipe.schedule);
        Ok(Self {
            config: model.config().clone(),
            learner: Learner::with_groups("", model, optimizer, schedule, &GROUPS)?,
            split: Split::new(Arc::new(Alone), schedule)?,
            recipe,
            device,
            pictures,
            without_captions,
            prompts,
            text_tokenizer,
            initial,
        })
    }

    /// Shares each step with the other ranks of a communicator.
    ///
    /// # Errors
    /// If a step cannot be cut into equal parts.
    pub fn with_communicator(
        mut self,
        communicator: Arc<dyn Communicator>,
    ) -> Result<Self, ParallelError> {
        self.split = self.split.over(communicator)?;
        Ok(self)
    }

    /// The model's configuration, and both files of its weights.
    fn result(&self) -> (ModelConfig, TensorMap, TensorMap) {
        let model = self.learner.result();
        let tokenizer = self.pictures.made_by().config.tokenizer.clone();
        let mut config = ModelConfig::of_prompts(tokenizer, self.config.clone());
        config.sampling = self.recipe.sampling;
        (config, collect(&model.language), collect(&model.image_side))
    }

    /// What samples are drawn of: the recipe's prompts, or the first captions.
    fn conditions(&self) -> Result<Vec<(String, Condition)>, TrainingError> {
        let mut texts: Vec<String> = self.recipe.prompts.clone();
        if texts.is_empty() {
            let first = self.pictures.learned().iter().take(COLUMNS);
            let first = first.map(|&picture| captions(self.pictures.cache(), picture));
            let first: Vec<Vec<&str>> = first.collect::<Result<_, _>>()?;
            texts = first.iter().map(|captions| captions[0].to_owned()).collect();
        }
        let condition = |text: String| {
            let condition = self.prompts.condition(&text).map_err(|error| unreadable(&error))?;
            Ok((text, condition))
        };
        texts.into_iter().take(COLUMNS).map(condition).collect()
    }
}

/// What a training begins with.
struct Start {
    model: LanguageModel,
    text_tokenizer: Arc<str>,
    prompts: Prompts,
    /// The digest of its parameters, unless they are random.
    initial: Option<String>,
}

impl Start {
    fn of(
        model: &Model,
        pictures: &CachedPictures,
        recipe: &TextRecipe,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        pictures.cache().check_tokenizer(&tokenizer_digest(&model.tokenizer_tensors()?))?;
        let config = model.language_config()?;
        check_parameters(
            config.language_parameters() + config.image_side_parameters(),
            &recipe.schedule,
        )?;
        let prompts = model.prompts()?;
        let text_tokenizer = model.text_tokenizer_json()?;
        let model = model.language_model(device)?;
        let initial = Some(tensors_digest(&collect(&model)));
        Ok(Self { model, text_tokenizer, prompts, initial })
    }

    fn random(
        size: LanguageSize,
        pictures: &CachedPictures,
        recipe: &TextRecipe,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let mut texts = Vec::new();
        for &picture in pictures.learned() {
            let captions = captions(pictures.cache(), picture)?;
            texts.extend(captions.into_iter().flat_map(Prompts::spelled));
        }
        let text_tokenizer = TextTokenizer::learn(texts, size.vocabulary);
        let tokenizer = TextTokenizer::parse(Path::new("text_tokenizer.json"), &text_tokenizer)
            .map_err(model::ModelError::from)?;
        let header = pictures.header();
        let LanguageSize { vocabulary, width, layers, heads, key_value_heads, hidden, .. } = size;
        let config = LanguageConfig {
            layout: header.layout,
            codes: header.codes,
            code_size: pictures.made_by().config.tokenizer.token_size,
            vocabulary,
            width,
            layers,
            heads,
            key_value_heads,
            hidden,
            tied: true,
            norm_epsilon: 1e-6,
            rotary_base: 1e4,
            // The last token of a picture takes no position.
            positions: recipe.most_prompt_ids + header.layout.len() - 1,
            picture_positions: size.picture_positions,
            adaptor_hidden: width,
            head_hidden: width,
            control: tokenizer.control_tokens().expect("a vocabulary that was learned has them"),
        };
        config.validate()?;
        check_parameters(
            config.language_parameters() + config.image_side_parameters(),
            &recipe.schedule,
        )?;
        let mut tensors = pictures.made_by().tokenizer_tensors()?;
        let codebook = tensors.remove("quantizer.codebook").ok_or_else(|| {
            TrainingError::Data("the token cache's tokenizer has no codebook".to_owned())
        })?;
        let model = config.initialize(codebook, recipe.schedule.seed, device)?;
        let prompts = Prompts::new(Arc::new(tokenizer), &config);
        Ok(Self { model, text_tokenizer: text_tokenizer.into(), prompts, initial: None })
    }
}

/// What is said of a picture: its captions that are not empty.
fn captions(cache: &TokenCache, picture: usize) -> Result<Vec<&str>, TrainingError> {
    let mut captions = cache.captions(picture)?;
    captions.retain(|caption| !caption.trim().is_empty());
    Ok(captions)
}

fn unreadable(error: &PromptError) -> TrainingError {
    TrainingError::Data(error.to_string())
}

/// A caption and the picture that belongs to it.
struct Example {
    ids: Vec<usize>,
    codes: Vec<CodebookIndex>,
}

impl Example {
    fn sequences(examples: &[Self]) -> Vec<Sequence<'_>> {
        examples.iter().map(|Self { ids, codes }| Sequence { prompt: ids, codes }).collect()
    }

    fn new(ids: Vec<usize>, record: &Record<'_>) -> Self {
        Self { ids, codes: record.tokens().collect() }
    }
}

/// Whether a sample of a step learns without its caption.
fn drops(pictures: &CachedPictures, recipe: &TextRecipe, address: u64, sample: usize) -> bool {
    let mut noise = pictures.noise(Purpose::CaptionDropout, address, sample);
    noise.uniform() < recipe.caption_dropout
}

/// The samples of a micro-batch.
fn examples(
    pictures: &mut CachedPictures,
    prompts: &Prompts,
    recipe: &TextRecipe,
    address: u64,
    samples: Range<usize>,
) -> Result<Vec<Example>, TrainingError> {
    let mut examples = Vec::with_capacity(samples.len());
    for sample in samples {
        let (index, view) = pictures.sample(address, sample)?;
        let captions = captions(pictures.cache(), index)?;
        let choice = pictures.noise(Purpose::Caption, address, sample).below(captions.len());
        let prompt = prompts.caption(captions[choice], recipe.most_prompt_ids);
        let prompt = prompt.map_err(|error| unreadable(&error))?;
        let dropped = drops(pictures, recipe, address, sample);
        let ids = if dropped { prompt.unconditional } else { prompt.ids };
        examples.push(Example::new(ids, &pictures.record(index, view)?));
    }
    Ok(examples)
}

/// A file of weights in memory.
fn in_memory(name: &str, tensors: &TensorMap) -> Result<TensorFile, TrainingError> {
    let mut bytes = Vec::new();
    write_to(&mut bytes, tensors, StorageFormat::F32, &StringMetadata::new())
        .map_err(|source| FileError::Write { path: name.into(), source })?;
    Ok(TensorFile::from_bytes(name, bytes))
}

impl Trainer for TextTrainer {
    fn scope(&self) -> Scope {
        /// Captions whose length is looked at.
        const LOOKED_AT: usize = 256;
        let LanguageConfig { layout, codes, vocabulary, width, layers, heads, .. } = self.config;
        let lengths = self.pictures.learned().iter().take(LOOKED_AT).filter_map(|&picture| {
            let captions = captions(self.pictures.cache(), picture).ok()?;
            Some(self.prompts.caption(captions[0], self.recipe.most_prompt_ids).ok()?.ids.len())
        });
        let longest = lengths.max().unwrap_or(1);
        let again = self.recipe.schedule.activation_checkpointing;
        let blocks = block_activations(layers, width, heads, longest + layout.len(), again);
        // Logits, their probabilities and the gradients of both.
        let text = if self.recipe.text_weight > 0.0 { longest * vocabulary } else { 0 };
        let logits = (layout.len() * codes).saturating_add(text).saturating_mul(3);
        let parameters = self.learner.module().num_params();
        let trains = "a language model on cached tokens and their captions";
        let mut scope = self.pictures.scope(trains, parameters, blocks.saturating_add(logits));
        if self.without_captions > 0 {
            let all = self.pictures.cache().len();
            scope.warnings.push(format!(
                "{} of {all} pictures have no caption and are left away",
                self.without_captions
            ));
        }
        scope
    }

    fn communicator(&self) -> &dyn Communicator {
        self.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = self.pictures.inputs();
        inputs.push((BEGAN_WITH, self.initial.clone().unwrap_or_default()));
        inputs
    }

    fn start(
        &mut self,
        checkpoint: Option<Checkpoint>,
        _address: u64,
    ) -> Result<(), TrainingError> {
        self.learner.start(checkpoint)
    }

    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        let Self { recipe, split, pictures, prompts, learner, .. } = self;
        let stage = stages::at(&recipe.stages, step.number);
        let factors = [stage.language, stage.image_side];
        let [language, image_side] = factors.map(|factor| factor > 0.0);
        let rates = factors.map(|factor| factor * step.learning_rate);
        // What is said of pictures is all that the loss on text teaches, and the language model alone.
        let reads = recipe.text_weight > 0.0 && language;
        let batch = split.batch();
        let told: Vec<bool> =
            (0..batch).map(|sample| !drops(pictures, recipe, step.address, sample)).collect();
        let count = told.iter().filter(|&&told| told).count();
        let part = |model: LanguageModel| model.training(language, image_side);
        learner.learn(split, &rates, part, |model, tape, samples| {
            // Of a step's captions each counts the same, whatever micro-batch it is in.
            let parts = batch / samples.len();
            let weight = |&told: &bool| if told { parts as f64 / count as f64 } else { 0.0 };
            let weights: Vec<f64> = told[samples.clone()].iter().map(weight).collect();
            let examples = examples(pictures, prompts, recipe, step.address, samples)?;
            let sequences = Example::sequences(&examples);
            let losses = losses(model, &sequences, reads.then_some(&weights[..]), tape);
            let Losses { picture, accuracy, text } = &losses;
            let mut measures = vec![("loss", scalar(picture)), ("accuracy", scalar(accuracy))];
            if let Some(text) = text.as_ref().filter(|_| count > 0) {
                measures.push(("text_loss", scalar(text)));
            }
            Ok((losses.weighted(recipe.text_weight), measures))
        })
    }

    fn take_bad(&mut self) -> Vec<BadPicture> {
        self.pictures.take_bad()
    }

    fn has_heldout(&self) -> bool {
        self.pictures.heldout_count().is_some()
    }

    /// The cross-entropy of the first view of each picture, given its first caption.
    fn evaluate(&mut self) -> Result<f64, TrainingError> {
        let count = self.pictures.heldout_count().ok_or(TrainingError::NoHeldout)?;
        let cache = self.pictures.heldout_cache().ok_or(TrainingError::NoHeldout)?;
        let model = self.learner.result();
        self.split.mean_over(count, |samples| {
            let mut examples = Vec::new();
            for number in samples {
                let Some((index, record)) = self.pictures.heldout(number)? else { continue };
                let captions = captions(cache, index)?;
                let prompt = self.prompts.caption(captions[0], self.recipe.most_prompt_ids);
                let prompt = prompt.map_err(|error| unreadable(&error))?;
                examples.push(Example::new(prompt.ids, &record));
            }
            if examples.is_empty() {
                return Ok(Vec::new());
            }
            let losses = losses(&model, &Example::sequences(&examples), None, None);
            // All samples have as many tokens, so the mean of each may stand for its own.
            Ok(vec![scalar(&losses.picture) as f32; examples.len()])
        })
    }

    /// Two rows of samples of the recipe's prompts, drawn by the engine, always from the same noise.
    fn samples(&self) -> Result<Picture, TrainingError> {
        let (_, language, image_side) = self.result();
        let files = [
            in_memory("language.safetensors", &language)?,
            in_memory("image_side.safetensors", &image_side)?,
        ];
        drop((language, image_side));
        let made_by = self.pictures.made_by();
        let model = Compute::default()
            .language_model_of(&self.config, files, made_by, false)
            .map_err(|error| TrainingError::Data(error.to_string()))?;
        let device = self.device.clone().inner();
        self.pictures.samples(&model, self.conditions()?, &self.recipe.sampling, &device)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let (config, language, image_side) = self.result();
        TextModelContents {
            config: &config,
            tokenizer: (&self.pictures.made_by().tokenizer_tensors()?, StorageFormat::F32),
            language: (&language, StorageFormat::F32),
            image_side: &image_side,
            text_tokenizer: &self.text_tokenizer,
            readme: None,
        }
        .write(folder)?;
        Ok(())
    }
}
