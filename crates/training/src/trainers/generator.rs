//! Training of the generator on cached tokens.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use charts::Sheet;
use files::safetensors::StorageFormat;
use files::{HostTensor, TensorMap};
use generator::{
    Condition, GeneratorConfig, Request,
    reference::{
        Dropout, Generator,
        loss::{accuracy, cross_entropy},
    },
};
use model::{ClassNames, Model, ModelConfig, ModelContents, tensors_digest, tokenizer_digest};
use operations::{parameters::collect, tape::Tape};
use pipeline::Drawing;
use pixels::{
    Picture,
    data::{is_held_out, labels_by_name},
};
use token_cache::{CacheError, TokenCache};
use tokenizer::{DecoderKind, ImageSize};
use tokens::{
    CodebookIndex, Vocabulary,
    noise::{Noise, Purpose},
};

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    communicator::{Alone, Communicator, ParallelError},
    learner::Learner,
    loader::Order,
    measures::{Measures, scalar},
    parallel::Split,
    plan::Scope,
    recipe::GeneratorRecipe,
    run::{Step, Trainer, check_parameters},
    samples::{COLUMNS, sheet},
    telemetry::BadPicture,
    trainers::{BEGAN_WITH, block_activations},
};

/// Trains the generator to predict each token from its class and the tokens before it (paper,
/// 3.3 and 4.1). One epoch sees each picture once, in one of its views at random.
pub struct GeneratorTrainer {
    recipe: GeneratorRecipe,
    split: Split,
    device: Device,
    cache: Arc<TokenCache>,
    tokenizer: PathBuf,
    order: Order,
    config: GeneratorConfig,
    learner: Learner<Generator>,
    initial: Option<String>,
    /// The records that are learned from, by their place in the cache.
    learned: Vec<usize>,
    classes_kept: Option<ClassesKept>,
    heldout: Option<HeldoutTokens>,
    strict: bool,
    bad: Vec<BadPicture>,
    /// Side of the patch that a token stands for, in pixels.
    patch: usize,
}

/// Cached tokens to evaluate on.
struct HeldoutTokens {
    cache: Arc<TokenCache>,
    /// The records, by their place in the cache.
    records: Vec<usize>,
    /// The labels that its classes have in the cache that is trained on.
    labels: Vec<Option<usize>>,
    /// What they are, for the record of a run.
    description: String,
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
        let cache = Arc::new(TokenCache::open(cache)?);
        let made_by = Model::read(&tokenizer)?;
        let tensors = made_by.tokenizer_tensors()?;
        cache.check_tokenizer(&tokenizer_digest(&tensors))?;
        if cache.is_empty() {
            return Err(TrainingError::Data("the token cache holds no pictures".into()));
        }
        let names = ClassNames::new(cache.header().classes.clone());
        if let Some((name, [first, second])) = names.duplicate() {
            return Err(TrainingError::Data(format!(
                "classes {first} and {second} of the token cache are both called `{name}`, so \
                 nobody could ask for one of them; rename one in the data and build the cache again"
            )));
        }
        let header = cache.header();
        let config = GeneratorConfig {
            layout: header.layout,
            codes: header.codes,
            classes: header.classes.len(),
            width: recipe.architecture.width,
            layers: recipe.architecture.layers,
            heads: recipe.architecture.heads,
            key_value_heads: None,
        };
        config.validate()?;
        check_parameters(config.parameter_count(), &recipe.schedule)?;
        let device = device.clone().autodiff();
        let model = config.initialize(recipe.schedule.seed, &device)?;
        Ok(Self {
            learner: Learner::new("", model, recipe.optimizer, &recipe.schedule)?,
            order: Order::new(recipe.schedule.seed, cache.len()),
            split: Split::new(Arc::new(Alone), &recipe.schedule)?,
            learned: (0..cache.len()).collect(),
            recipe,
            device,
            cache,
            tokenizer,
            config,
            initial: None,
            classes_kept: None,
            heldout: None,
            strict: false,
            bad: Vec::new(),
            patch: made_by.config.tokenizer.patch,
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
        self.split = self.split.over(communicator)?;
        Ok(self)
    }

    /// The same training, which begins with the parameters of this generator, of these classes. Its
    /// pictures may have had another size. Classes of the same name keep what was learned of them,
    /// whatever their numbers were; others begin as "no class" was. See
    /// [`classes_kept`](Self::classes_kept).
    ///
    /// # Errors
    /// If they are of another architecture.
    pub fn begin_with(
        mut self,
        config: &GeneratorConfig,
        classes: &ClassNames,
        mut tensors: TensorMap,
    ) -> Result<Self, TrainingError> {
        self.initial = Some(tensors_digest(&tensors));
        let names = &self.cache.header().classes;
        let matching = classes.matching(names);
        let new = names.iter().zip(&matching).filter(|(_, old)| old.is_none());
        self.classes_kept = Some(ClassesKept {
            of: classes.len(),
            kept: matching.iter().flatten().count(),
            moved: matching.iter().enumerate().any(|(new, old)| old.is_some_and(|old| old != new)),
            new: new.map(|(name, _)| name.clone()).collect(),
        });
        if let Some(table) = tensors.remove(EMBEDDING) {
            let (old, new) = (config.vocabulary(), self.config.vocabulary());
            tensors.insert(EMBEDDING.into(), with_classes(table, &old, &new, &matching));
        }
        self.learner.begin_with(tensors)?;
        Ok(self)
    }

    /// What became of the classes of the generator that the training [begins
    /// with](Self::begin_with).
    pub fn classes_kept(&self) -> Option<&ClassesKept> {
        self.classes_kept.as_ref()
    }

    /// The same training, which ends at the first picture that was left out of the cache because it
    /// could not be read, if `strict`; otherwise another picture takes its place.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The same training, which evaluates on the token cache in this folder: the cross-entropy of
    /// the first view of each picture.
    ///
    /// # Errors
    /// If the cache cannot be read, or was made by another tokenizer or of other classes.
    pub fn with_heldout(mut self, cache: &Path) -> Result<Self, TrainingError> {
        let heldout = Arc::new(TokenCache::open(cache)?);
        heldout.check_tokenizer(&self.cache.header().tokenizer)?;
        // By name, since a side may lack classes of the other, or have them in another order.
        let header = heldout.header();
        let labels = labels_by_name(&header.classes, &self.cache.header().classes);
        for index in 0..heldout.len() {
            let label = heldout.label(index)?;
            if labels.get(label).copied().flatten().is_none() {
                let class = header.classes.get(label).map_or("?", String::as_str);
                return Err(TrainingError::Data(format!(
                    "{} has pictures of the class `{class}`, which the cache that is trained on has not",
                    cache.display()
                )));
            }
        }
        let records = (0..heldout.len()).collect();
        let description = describe(&heldout);
        self.heldout = Some(HeldoutTokens { cache: heldout, records, labels, description });
        Ok(self)
    }

    /// The same training, which holds a share of its pictures out and evaluates on them: those that
    /// [`hold_out`](pixels::data::hold_out) holds out of their data set.
    ///
    /// # Errors
    /// If that leaves nothing to learn from or to evaluate on, or names cannot be read.
    pub fn hold_out(mut self, share: f64) -> Result<Self, TrainingError> {
        let names = self.cache.names()?;
        let (records, learned): (Vec<usize>, Vec<usize>) =
            (0..names.len()).partition(|&record| is_held_out(&names[record], share));
        if records.is_empty() || learned.is_empty() {
            return Err(TrainingError::Data(format!(
                "a share of {share} holds none or all of {} pictures out; give one between 0 and 1, such \
                 as 0.05",
                names.len()
            )));
        }
        self.order = Order::new(self.recipe.schedule.seed, learned.len());
        let description = format!("{} of them", records.len());
        let cache = Arc::clone(&self.cache);
        let labels = (0..cache.header().classes.len()).map(Some).collect();
        (self.learned, self.heldout) =
            (learned, Some(HeldoutTokens { cache, records, labels, description }));
        Ok(self)
    }

    /// Class identifiers `[count]` and tokens `[count, length]` of samples of a step.
    fn batch(
        &mut self,
        address: u64,
        samples: Range<usize>,
    ) -> Result<(Tensor<1, Int>, Tensor<2, Int>), TrainingError> {
        let schedule = self.recipe.schedule;
        let vocabulary = self.config.vocabulary();
        let (mut classes, mut tokens) = (Vec::new(), Vec::new());
        for sample in samples.map(|sample| sample as u64) {
            let noise = |purpose| Noise::new(schedule.seed, purpose, address, sample);
            let view = noise(Purpose::Augmentation).below(self.cache.header().views);
            let index = self.index(address * schedule.batch as u64 + sample, view)?;
            let record = self.cache.record(index, view)?;
            let dropped = noise(Purpose::ClassDropout).uniform() < self.recipe.class_dropout;
            classes.push(if dropped {
                vocabulary.unconditional() as i64
            } else {
                class(&vocabulary, record.label)?
            });
            tokens.extend(record.tokens().map(i64::from));
        }
        Ok(self.tensors(classes, tokens, &self.device))
    }

    /// The picture at a position of the order, or the one that takes its place.
    fn index(&mut self, position: u64, view: usize) -> Result<usize, TrainingError> {
        const MOST_TRIES: u64 = 1000;
        let mut index = self.learned[self.order.at(position)];
        for tries in 0..MOST_TRIES {
            match self.cache.record(index, view) {
                Err(error @ CacheError::LeftOut { .. }) if !self.strict => {
                    let name = format!("number {index} of the token cache");
                    self.bad.push(BadPicture { name, reason: error.to_string() });
                    index = self.learned[self.order.instead(position, tries)];
                }
                _ => break,
            }
        }
        Ok(index)
    }

    /// Class identifiers `[count]` and tokens `[count, length]`.
    fn tensors(
        &self,
        classes: Vec<i64>,
        tokens: Vec<i64>,
        device: &Device,
    ) -> (Tensor<1, Int>, Tensor<2, Int>) {
        let count = classes.len();
        let shape = [count, self.config.layout.len()];
        (
            Tensor::from_data(TensorData::new(classes, [count]), device),
            Tensor::from_data(TensorData::new(tokens, shape), device),
        )
    }
}

/// What a token cache is, for the record of a run.
fn describe(cache: &TokenCache) -> String {
    format!("{} pictures of tokenizer {}", cache.len(), cache.header().tokenizer)
}

/// The input embedding among a generator's parameters.
const EMBEDDING: &str = "embedding.weight";

/// What became of the classes of a generator that a training begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassesKept {
    /// Number of classes that the generator knew.
    pub of: usize,
    /// Number of classes that go on from one of the same name.
    pub kept: usize,
    /// Whether one of them has another number now.
    pub moved: bool,
    /// Names of the classes that begin anew.
    pub new: Vec<String>,
}

impl fmt::Display for ClassesKept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let Self { of, kept, moved, new } = self;
        let all = kept + new.len();
        write!(formatter, "{kept} of {all} classes go on from those of the same name")?;
        if *moved {
            write!(formatter, ", under other numbers")?;
        }
        if !new.is_empty() {
            let shown: Vec<String> =
                new.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let begin = if new.len() == 1 { "begins" } else { "begin" };
            write!(formatter, "; {} {begin} anew: {}", new.len(), shown.join(", "))?;
            match new.len() - shown.len() {
                0 => {}
                more => write!(formatter, " and {more} more")?,
            }
        }
        match of - kept {
            0 => Ok(()),
            1 => write!(formatter, "; one that the model knew is not needed"),
            unused => write!(formatter, "; {unused} that the model knew are not needed"),
        }
    }
}

/// An input embedding for other classes: each goes on from the row of the old class that it matches, or
/// begins as "no class" was.
fn with_classes(
    table: HostTensor,
    old: &Vocabulary,
    new: &Vocabulary,
    matching: &[Option<usize>],
) -> HostTensor {
    let [rows, width] = table.shape[..] else { return table };
    if rows != old.len() || matching.len() != new.classes() {
        return table;
    }
    // Codes, one identifier that is never used, classes, "no class".
    let first = old.len() - old.classes() - 1;
    let mut values = table.values[..first * width].to_vec();
    let row = |identifier: usize| &table.values[identifier * width..][..width];
    for label in matching {
        values.extend(row(label.map_or(old.unconditional(), |label| first + label)));
    }
    values.extend(row(old.unconditional()));
    HostTensor::new([values.len() / width, width], values)
}

fn class(vocabulary: &Vocabulary, label: usize) -> Result<i64, TrainingError> {
    let class = vocabulary.class(label).map_err(|error| TrainingError::Data(error.to_string()))?;
    Ok(class as i64)
}

/// Logits of every token, given the class and the tokens before it.
///
/// # Shapes
/// `classes [batch]`, `tokens [batch, length]` → `[batch, length, codes]`.
fn predict<'a>(
    model: &'a Generator,
    classes: Tensor<1, Int>,
    tokens: &Tensor<2, Int>,
    dropout: Option<&Dropout>,
    tape: Option<&mut Tape<'a>>,
) -> Tensor<3> {
    let [batch, length] = tokens.dims();
    // The last token predicts nothing.
    model.forward_on(classes, tokens.clone().slice([0..batch, 0..length - 1]), dropout, tape)
}

impl Trainer for GeneratorTrainer {
    fn scope(&self) -> Scope {
        let GeneratorConfig { layout, codes, width, layers, heads, .. } = self.config;
        let header = self.cache.header();
        let again = self.recipe.schedule.activation_checkpointing;
        let blocks = block_activations(layers, width, heads, layout.len(), again);
        // Logits, their probabilities and the gradients of both.
        let logits = layout.len().saturating_mul(3 * codes);
        let side = |extent: usize| extent * self.patch;
        Scope {
            trains: "a generator on cached tokens".to_owned(),
            pictures: self.cache.len(),
            learned: self.learned.len(),
            classes: header.classes.len(),
            heldout: self.heldout.as_ref().map(|heldout| heldout.records.len()),
            image: (side(layout.columns()), side(layout.rows())),
            tokens: layout.len(),
            parameters: self.learner.module().num_params(),
            activations: blocks.saturating_add(logits),
            warnings: Vec::new(),
        }
    }

    fn communicator(&self) -> &dyn Communicator {
        self.split.communicator().as_ref()
    }

    fn inputs(&self) -> Vec<(&'static str, String)> {
        let mut inputs = vec![("token cache", describe(&self.cache))];
        let heldout = self.heldout.as_ref().map(|heldout| heldout.description.clone());
        inputs.extend(heldout.map(|heldout| ("held-out token cache", heldout)));
        inputs.push((BEGAN_WITH, self.initial.clone().unwrap_or_default()));
        inputs
    }

    fn start(
        &mut self,
        checkpoint: Option<Checkpoint>,
        _address: u64,
    ) -> Result<(), TrainingError> {
        if let Some(mut checkpoint) = checkpoint {
            self.learner.restore(&mut checkpoint)?;
            checkpoint.finish()?;
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<Measures, TrainingError> {
        let mut gradients = self.split.gradients();
        let mut parts = Vec::new();
        for samples in self.split.micro_batches() {
            let model = self.learner.computing();
            let mut tape = self.learner.tape(&self.split);
            let dropout = Dropout {
                rate: self.recipe.dropout,
                seed: self.recipe.schedule.seed,
                step: step.address,
                first_sample: samples.start as u64,
            };
            let (classes, tokens) = self.batch(step.address, samples)?;
            let logits = predict(&model, classes, &tokens, Some(&dropout), tape.as_mut());
            let loss = cross_entropy(logits.clone(), tokens.clone());
            let accuracy = scalar(&accuracy(logits, tokens));
            parts.push(vec![("loss", scalar(&loss)), ("accuracy", accuracy)]);
            gradients.add(self.learner.module(), loss, tape);
        }
        let gradients = gradients.mean(self.learner.module())?;
        let mut measures = self.split.mean_measures(parts)?;
        measures.push(("gradient_norm", self.learner.step(step.learning_rate, gradients)));
        Ok(measures)
    }

    fn take_bad(&mut self) -> Vec<BadPicture> {
        std::mem::take(&mut self.bad)
    }

    fn has_heldout(&self) -> bool {
        self.heldout.is_some()
    }

    fn evaluate(&mut self) -> Result<f64, TrainingError> {
        let heldout = self.heldout.as_ref().ok_or(TrainingError::NoHeldout)?;
        let (model, device) = (self.learner.result(), self.device.clone().inner());
        let vocabulary = self.config.vocabulary();
        self.split.mean_over(heldout.records.len(), |samples| {
            let (mut classes, mut tokens) = (Vec::new(), Vec::new());
            for &index in &heldout.records[samples] {
                let record = match heldout.cache.record(index, 0) {
                    Err(CacheError::LeftOut { .. }) if !self.strict => continue,
                    record => record?,
                };
                // Held against the classes when the cache was opened.
                let label = heldout.labels.get(record.label).copied().flatten();
                classes.push(class(&vocabulary, label.unwrap_or(record.label))?);
                tokens.extend(record.tokens().map(i64::from));
            }
            let count = classes.len();
            if count == 0 {
                return Ok(Vec::new());
            }
            let (classes, tokens) = self.tensors(classes, tokens, &device);
            let loss = cross_entropy(predict(&model, classes, &tokens, None, None), tokens);
            // All samples have as many tokens, so the mean of each may stand for its own.
            Ok(vec![scalar(&loss) as f32; count])
        })
    }

    /// Two rows of samples of the first classes, always from the same noise.
    fn samples(&self) -> Result<Picture, TrainingError> {
        let model = self.learner.result();
        let columns = COLUMNS.min(self.config.classes);
        let requests: Vec<Request> = (0..2 * columns)
            .map(|place| Request {
                condition: Condition::Class(place % columns),
                seed: self.recipe.schedule.seed,
                index: place as u64,
                forced: Vec::new(),
            })
            .collect();
        let drawing = Drawing::of(&model, &requests, &self.recipe.sampling, requests.len())
            .map_err(|error| TrainingError::Data(error.to_string()))?;
        let sampled = drawing.tokens().map_err(|error| TrainingError::Data(error.to_string()))?;
        // Read each time: pictures are rare, and the decoder would take memory all the time.
        let tokenizer = Model::read(&self.tokenizer)?.tokenizer(&model.devices()[0])?;
        let kind = match tokenizer.config().bidirectional_decoder {
            Some(_) => DecoderKind::Bidirectional,
            None => DecoderKind::Causal,
        };
        let ImageSize { height, width } = tokenizer.config().image;
        let picture = |tokens: Vec<CodebookIndex>| {
            let planes = tokenizer.decode_picture(&tokens, kind)?;
            Ok::<_, TrainingError>(Picture::from_unit_planes(width, height, &planes)?)
        };
        let pictures: Vec<Picture> = sampled.into_iter().map(picture).collect::<Result<_, _>>()?;
        let classes = &self.cache.header().classes;
        let column_names = classes.iter().take(columns).cloned().collect();
        let row_names = vec!["first sample".to_owned(), "second sample".to_owned()];
        sheet(&pictures, Sheet { columns, column_names, row_names, ..Sheet::default() })
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let tokenizer = Model::read(&self.tokenizer)?;
        let mut config =
            ModelConfig::new(tokenizer.config.tokenizer.clone(), Some(self.config.clone()));
        config.sampling = self.recipe.sampling;
        ModelContents {
            config: &config,
            classes: &ClassNames::new(self.cache.header().classes.clone()),
            tokenizer: &tokenizer.tokenizer_tensors()?,
            generator: Some(&collect(&self.learner.result())),
            format: StorageFormat::F32,
            readme: None,
        }
        .write(folder)?;
        Ok(())
    }
}
