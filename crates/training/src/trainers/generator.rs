//! Training of the generator on cached tokens.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use files::safetensors::StorageFormat;
use files::{HostTensor, TensorMap};
use generator::{
    Condition, GeneratorConfig,
    reference::{
        Dropout, Generator,
        loss::{accuracy, cross_entropy},
    },
};
use model::{ClassNames, ModelConfig, ModelContents, tensors_digest};
use operations::{parameters::collect, tape::Tape};
use pixels::{Picture, data::labels_by_name};
use tokens::{Vocabulary, noise::Purpose};

use crate::{
    TrainingError,
    checkpoint::Checkpoint,
    communicator::{Alone, Communicator, ParallelError},
    learner::Learner,
    measures::{Measures, scalar},
    parallel::Split,
    plan::Scope,
    recipe::GeneratorRecipe,
    run::{Step, Trainer, check_parameters},
    samples::COLUMNS,
    telemetry::BadPicture,
    trainers::{BEGAN_WITH, block_activations, cached::CachedPictures},
};

/// Trains the generator to predict each token from its class and the tokens before it (paper,
/// 3.3 and 4.1). One epoch sees each picture once, in one of its views at random.
pub struct GeneratorTrainer {
    recipe: GeneratorRecipe,
    split: Split,
    device: Device,
    pictures: CachedPictures,
    config: GeneratorConfig,
    learner: Learner<Generator>,
    initial: Option<String>,
    classes_kept: Option<ClassesKept>,
    /// The labels that the classes of the pictures to evaluate on have in the cache that is learned
    /// from.
    heldout_labels: Vec<Option<usize>>,
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
        let pictures = CachedPictures::open(cache, &recipe.schedule)?;
        let header = pictures.header();
        let names = ClassNames::new(header.classes.clone());
        if let Some((name, [first, second])) = names.duplicate() {
            return Err(TrainingError::Data(format!(
                "classes {first} and {second} of the token cache are both called `{name}`, so \
                 nobody could ask for one of them; rename one in the data and build the cache again"
            )));
        }
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
            split: Split::new(Arc::new(Alone), &recipe.schedule)?,
            recipe,
            device,
            pictures,
            config,
            initial: None,
            classes_kept: None,
            heldout_labels: Vec::new(),
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
        let names = &self.pictures.header().classes;
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
        self.pictures = self.pictures.strict(strict);
        self
    }

    /// The same training, which evaluates on the token cache in this folder: the cross-entropy of
    /// the first view of each picture.
    ///
    /// # Errors
    /// If the cache cannot be read, or was made by another tokenizer or of other classes.
    pub fn with_heldout(mut self, cache: &Path) -> Result<Self, TrainingError> {
        self.pictures = self.pictures.with_heldout(cache)?;
        let Some(heldout) = self.pictures.heldout_cache() else { return Ok(self) };
        // By name, since a side may lack classes of the other, or have them in another order.
        let header = heldout.header();
        let labels = labels_by_name(&header.classes, &self.pictures.header().classes);
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
        self.heldout_labels = labels;
        Ok(self)
    }

    /// The same training, which holds a share of its pictures out and evaluates on them: those that
    /// [`hold_out`](pixels::data::hold_out) holds out of their data set.
    ///
    /// # Errors
    /// If that leaves nothing to learn from or to evaluate on, or names cannot be read.
    pub fn hold_out(mut self, share: f64) -> Result<Self, TrainingError> {
        self.pictures = self.pictures.hold_out(share)?;
        self.heldout_labels = (0..self.config.classes).map(Some).collect();
        Ok(self)
    }
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

/// Class identifiers `[count]` and tokens `[count, length]` of samples of a step.
fn batch(
    pictures: &mut CachedPictures,
    recipe: &GeneratorRecipe,
    vocabulary: &Vocabulary,
    address: u64,
    samples: Range<usize>,
    device: &Device,
) -> Result<(Tensor<1, Int>, Tensor<2, Int>), TrainingError> {
    let (mut classes, mut tokens) = (Vec::new(), Vec::new());
    for sample in samples {
        let (index, view) = pictures.sample(address, sample)?;
        let record = pictures.record(index, view)?;
        let mut noise = pictures.noise(Purpose::ClassDropout, address, sample);
        classes.push(if noise.uniform() < recipe.class_dropout {
            vocabulary.unconditional() as i64
        } else {
            class(vocabulary, record.label)?
        });
        tokens.extend(record.tokens().map(i64::from));
    }
    Ok(tensors(classes, tokens, device))
}

/// Class identifiers `[count]` and tokens `[count, length]`.
fn tensors(
    classes: Vec<i64>,
    tokens: Vec<i64>,
    device: &Device,
) -> (Tensor<1, Int>, Tensor<2, Int>) {
    let count = classes.len();
    let shape = [count, tokens.len() / count];
    (
        Tensor::from_data(TensorData::new(classes, [count]), device),
        Tensor::from_data(TensorData::new(tokens, shape), device),
    )
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
        let again = self.recipe.schedule.activation_checkpointing;
        let blocks = block_activations(layers, width, heads, layout.len(), again);
        // Logits, their probabilities and the gradients of both.
        let logits = layout.len().saturating_mul(3 * codes);
        let parameters = self.learner.module().num_params();
        let trains = "a generator on cached tokens";
        self.pictures.scope(trains, parameters, blocks.saturating_add(logits))
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
        let Self { recipe, split, device, pictures, config, learner, .. } = self;
        let (vocabulary, rates) = (config.vocabulary(), [step.learning_rate]);
        learner.learn(
            split,
            &rates,
            |model| model,
            |model, tape, samples| {
                let dropout = Dropout {
                    rate: recipe.dropout,
                    seed: recipe.schedule.seed,
                    step: step.address,
                    first_sample: samples.start as u64,
                };
                let (classes, tokens) =
                    batch(pictures, recipe, &vocabulary, step.address, samples, device)?;
                let logits = predict(model, classes, &tokens, Some(&dropout), tape);
                let loss = cross_entropy(logits.clone(), tokens.clone());
                let accuracy = scalar(&accuracy(logits, tokens));
                let measures = vec![("loss", scalar(&loss)), ("accuracy", accuracy)];
                Ok((loss, measures))
            },
        )
    }

    fn take_bad(&mut self) -> Vec<BadPicture> {
        self.pictures.take_bad()
    }

    fn has_heldout(&self) -> bool {
        self.pictures.heldout_count().is_some()
    }

    fn evaluate(&mut self) -> Result<f64, TrainingError> {
        let count = self.pictures.heldout_count().ok_or(TrainingError::NoHeldout)?;
        let (model, device) = (self.learner.result(), self.device.clone().inner());
        let vocabulary = self.config.vocabulary();
        self.split.mean_over(count, |samples| {
            let (mut classes, mut tokens) = (Vec::new(), Vec::new());
            for number in samples {
                let Some((_, record)) = self.pictures.heldout(number)? else { continue };
                // Held against the classes when the cache was opened.
                let label = self.heldout_labels.get(record.label).copied().flatten();
                classes.push(class(&vocabulary, label.unwrap_or(record.label))?);
                tokens.extend(record.tokens().map(i64::from));
            }
            let count = classes.len();
            if count == 0 {
                return Ok(Vec::new());
            }
            let (classes, tokens) = tensors(classes, tokens, &device);
            let loss = cross_entropy(predict(&model, classes, &tokens, None, None), tokens);
            // All samples have as many tokens, so the mean of each may stand for its own.
            Ok(vec![scalar(&loss) as f32; count])
        })
    }

    /// Two rows of samples of the first classes, always from the same noise.
    fn samples(&self) -> Result<Picture, TrainingError> {
        let model = self.learner.result();
        let classes = self.pictures.header().classes.iter().take(COLUMNS);
        let conditions =
            classes.enumerate().map(|(label, name)| (name.clone(), Condition::Class(label)));
        let device = &model.devices()[0];
        self.pictures.samples(&model, conditions.collect(), &self.recipe.sampling, device)
    }

    fn checkpoint(&self, step: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint::of_step(step);
        self.learner.save(&mut checkpoint);
        checkpoint
    }

    fn export(&self, folder: &Path) -> Result<(), TrainingError> {
        let tokenizer = self.pictures.made_by();
        let mut config =
            ModelConfig::new(tokenizer.config.tokenizer.clone(), Some(self.config.clone()));
        config.sampling = self.recipe.sampling;
        ModelContents {
            config: &config,
            classes: &ClassNames::new(self.pictures.header().classes.clone()),
            tokenizer: &tokenizer.tokenizer_tensors()?,
            generator: Some(&collect(&self.learner.result())),
            format: StorageFormat::F32,
            readme: None,
        }
        .write(folder)?;
        Ok(())
    }
}
