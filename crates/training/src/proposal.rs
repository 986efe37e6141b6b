//! Recipes for one's own pictures: as large a model, trained for as long, as data, machine and time allow.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::Device;
use files::Home;
use language::{PicturePositions, Prompts, TextTokenizer};
use pixels::DataSet;
use tokenizer::{DecoderConfig, ImageSize, TransformerConfig, reference::Weights};
use tokens::TokenLayout;

use crate::{
    TrainingError,
    recipe::{
        self, GeneratorRecipe, GeneratorSize, LanguageSize, Recipe, StageOneRecipe, StageTwoRecipe,
        TextRecipe, Training,
    },
    run,
    schedule::{ComputePrecision, Schedule},
    trainers::StageOne,
};

/// The machine that will train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// This one's processor, on which a few steps are timed.
    Cpu,
    /// A graphics processor, which is not at hand: sizes follow the data, and nothing is said of time.
    Gpu,
}

/// What the recipes are to be for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// Side of the square pictures in pixels.
    pub size: usize,
    /// Where they are trained.
    pub machine: Machine,
    /// Hours for all three trainings and the token cache together.
    pub hours: f64,
    /// Whether pictures are to be drawn from words instead of classes. Data without classes, but with
    /// captions, are for words in any case.
    pub words: bool,
}

/// The recipe of what draws.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // there is one
pub enum Third {
    /// From classes.
    Generator(GeneratorRecipe),
    /// From words.
    Text(TextRecipe),
}

impl Third {
    /// Its schedule.
    pub fn schedule(&self) -> &Schedule {
        match self {
            Self::Generator(recipe) => &recipe.schedule,
            Self::Text(recipe) => &recipe.schedule,
        }
    }

    fn schedule_mut(&mut self) -> &mut Schedule {
        match self {
            Self::Generator(recipe) => &mut recipe.schedule,
            Self::Text(recipe) => &mut recipe.schedule,
        }
    }
}

/// What captions are like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Captions {
    /// Ids of text that are worth having.
    vocabulary: usize,
    /// Ids of a prompt, the form included: of nearly all at most, and of one on average.
    most_ids: usize,
    mean_ids: usize,
    /// Some of them, to be drawn.
    examples: Vec<String>,
}

/// Captions that are looked at, evenly over the data.
const LOOKED_AT: usize = 10_000;
/// Prompts that are drawn while a model learns.
const EXAMPLES: usize = 8;
/// The smallest and the largest vocabulary of a model that begins at random.
const VOCABULARY: [usize; 2] = [512, 8192];
/// Ids of a prompt at most.
const MOST_IDS: usize = 256;

impl Captions {
    /// Looks at the captions of a data set; none if it has none.
    fn of(data: &dyn DataSet) -> Option<Self> {
        let count = data.len().min(LOOKED_AT);
        let places = (0..count).map(|place| place * data.len() / count);
        let captions: Vec<&str> = places.filter_map(|index| data.caption(index)).collect();
        // A few pictures with text beside them make no captioned set.
        if captions.is_empty() || 2 * captions.len() < count {
            return None;
        }
        let words: BTreeSet<&str> =
            captions.iter().flat_map(|caption| caption.split_whitespace()).collect();
        // Room for each word, as far as there is.
        let vocabulary = (TextTokenizer::SMALLEST + words.len())
            .next_multiple_of(256)
            .clamp(VOCABULARY[0], VOCABULARY[1]);
        let spelled = captions.iter().flat_map(|caption| Prompts::spelled(caption));
        let learned = TextTokenizer::learn(spelled, vocabulary);
        let tokenizer = TextTokenizer::parse(Path::new("text_tokenizer.json"), &learned).ok()?;
        // Control tokens: two messages begin, one ends, and a picture begins.
        const CONTROL: usize = 4;
        let length = |caption: &&str| {
            let parts = Prompts::spelled(caption);
            CONTROL + parts.iter().map(|part| tokenizer.encode(part).len()).sum::<usize>()
        };
        let mut lengths: Vec<usize> = captions.iter().map(length).collect();
        lengths.sort_unstable();
        let nearly_all = lengths[(lengths.len() - 1) * 99 / 100];
        let mean = lengths.iter().sum::<usize>().div_ceil(lengths.len());
        let most_ids = nearly_all.next_multiple_of(8).clamp(16, MOST_IDS);
        let different: BTreeSet<&str> = captions.iter().copied().collect();
        let evenly = (0..captions.len().min(4 * EXAMPLES))
            .map(|place| captions[place * captions.len() / captions.len().min(4 * EXAMPLES)]);
        let mut examples: Vec<String> = Vec::new();
        for caption in evenly.chain(different) {
            if examples.len() < EXAMPLES && !examples.iter().any(|known| known == caption) {
                examples.push(caption.to_owned());
            }
        }
        Some(Self { vocabulary, most_ids, mean_ids: mean.min(most_ids), examples })
    }
}

/// Recipes of the three trainings, and how long each takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Encoder, codebook and causal decoder.
    pub stage_one: StageOneRecipe,
    /// The bidirectional decoder.
    pub stage_two: StageTwoRecipe,
    /// The generator, or the language model.
    pub third: Third,
    /// Seconds of each, where steps were timed.
    pub seconds: Option<[f64; 3]>,
    /// Seconds that the token cache between them takes at most, where steps were timed.
    pub cache_seconds: Option<f64>,
    /// Hours that would let the smallest model learn something, if there are fewer.
    pub wanted_hours: Option<f64>,
    /// Pictures and classes of the data.
    pub pictures: usize,
    /// Bytes that the largest of the three takes about.
    pub memory: u64,
}

/// Sizes of models, small to large: encoder and decoder, layers of the encoder and of the decoder, generator or
/// language model and its layers.
const SIZES: [Size; 5] = [
    Size { width: 128, encoder: 3, decoder: 4, generator: (192, 4) },
    Size { width: 192, encoder: 4, decoder: 6, generator: (256, 5) },
    Size { width: 256, encoder: 6, decoder: 8, generator: (384, 8) },
    Size { width: 384, encoder: 8, decoder: 12, generator: (512, 12) },
    Size { width: 768, encoder: 12, decoder: 24, generator: (768, 24) },
];

#[derive(Debug, Clone, Copy)]
struct Size {
    width: usize,
    encoder: usize,
    decoder: usize,
    generator: (usize, usize),
}

/// Numbers of a head.
const HEAD: usize = 64;

/// How the time is shared among the trainings.
const SHARES: [f64; 3] = [0.45, 0.25, 0.3];

/// Views of each picture in the token cache: as it is, and mirrored, unless words say what is left.
fn views(captions: Option<&Captions>) -> usize {
    if captions.is_some() { 1 } else { 2 }
}

/// Steps below which a larger model has learned less than a smaller one in the same time.
const ENOUGH: [f64; 3] = [4000.0, 2500.0, 2500.0];

/// Times that a training sees each picture at most; more teaches it the pictures by heart.
const MOST_EPOCHS: f64 = 400.0;

/// Pictures a step of the tokenizer and of the generator, on a processor.
const BATCHES: [usize; 3] = [16, 16, 32];

/// Patches along a side below which pictures are not cut more coarsely to save time.
const FEWEST_PATCHES: usize = 8;

impl Wish {
    /// Side of the finest patch: pictures have at most 16 × 16 of them where 32 pixels are enough for that.
    fn patch(self) -> usize {
        [4, 8, 16, 32].into_iter().find(|patch| self.size <= 16 * patch).unwrap_or(32)
    }

    /// Sides of patches to choose from: the finest, and twice of it where a grid is left. A quarter of the
    /// tokens leaves time for several times the steps, or for a larger model.
    fn patches(self) -> impl Iterator<Item = usize> {
        let coarser = 2 * self.patch();
        let is_grid = self.size.is_multiple_of(coarser) && self.size / coarser >= FEWEST_PATCHES;
        iter::once(self.patch()).chain(is_grid.then_some(coarser))
    }

    /// What is wrong with it.
    fn check(self) -> Result<(), TrainingError> {
        let (size, patch) = (self.size, self.patch());
        if !(16..=1024).contains(&size) {
            let problem = format!("pictures of {size} pixels: a size from 16 to 1024 works");
            return Err(TrainingError::Data(problem));
        }
        if !size.is_multiple_of(patch) {
            let (below, above) = (size / patch * patch, size.next_multiple_of(patch));
            return Err(TrainingError::Data(format!(
                "pictures of {size} pixels do not divide into patches of {patch}; take {below} or {above}"
            )));
        }
        if !(self.hours > 0.0 && self.hours <= 10_000.0) {
            return Err(TrainingError::Data(format!(
                "{} hours: a number above 0 and up to 10000 works",
                self.hours
            )));
        }
        Ok(())
    }

    fn layout(self, patch: usize) -> TokenLayout {
        let side = self.size / patch;
        TokenLayout::new(side, side, side)
    }
}

/// A size of model, and the side of the patches that it sees.
#[derive(Debug, Clone, Copy)]
struct Choice<'a> {
    size: Size,
    patch: usize,
    layout: TokenLayout,
    /// What is said of the pictures, where they are to be drawn from words.
    captions: Option<&'a Captions>,
}

impl<'a> Choice<'a> {
    fn new(wish: Wish, size: Size, patch: usize, captions: Option<&'a Captions>) -> Self {
        Self { size, patch, layout: wish.layout(patch), captions }
    }

    /// What there is to choose from, from the least work a step to the most.
    fn all(
        wish: Wish,
        codes: usize,
        batches: [usize; 3],
        captions: Option<&'a Captions>,
    ) -> Vec<Self> {
        let of_size =
            |size| wish.patches().map(move |patch| Self::new(wish, size, patch, captions));
        let mut all: Vec<Self> = SIZES.into_iter().flat_map(of_size).collect();
        let work = |choice: &Self| choice.work(codes, batches)[0];
        all.sort_by(|one, other| work(one).total_cmp(&work(other)));
        all
    }

    /// Multiplications of a step of each training.
    fn work(self, codes: usize, batches: [usize; 3]) -> [f64; 3] {
        self.size.work(self.layout, codes, batches, self.captions)
    }

    /// Seconds that the token cache takes.
    fn seconds_of_cache(self, pictures: usize, pace: f64) -> f64 {
        self.size.seconds_of_cache(self.layout, views(self.captions) * pictures, pace)
    }
}

/// Codes for so many pictures: each should be met often.
fn codes(pictures: usize) -> usize {
    match pictures {
        0..1000 => 512,
        1000..10_000 => 1024,
        _ => 4096,
    }
}

/// Multiplications of a step over blocks, forwards and backwards, for sequences of this length.
fn work(layers: usize, width: usize, hidden: usize, length: usize, batch: usize) -> f64 {
    let (width, length) = (width as f64, length as f64);
    let products = 4.0 * width * width + 2.0 * width * hidden as f64;
    let attention = 2.0 * width * length;
    3.0 * layers as f64 * batch as f64 * length * (products + attention)
}

impl Size {
    /// Multiplications of a step of each training.
    fn work(
        self,
        layout: TokenLayout,
        codes: usize,
        batches: [usize; 3],
        captions: Option<&Captions>,
    ) -> [f64; 3] {
        let (grid, length) = (layout.grid(), layout.len());
        let blocks =
            |layers, length, batch| work(layers, self.width, 4 * self.width, length, batch);
        let encoded = blocks(self.encoder, grid + length, batches[0]);
        let first = encoded + blocks(self.decoder, length + 1, batches[0]);
        // The encoder of the second stage is only run forwards.
        let second = blocks(self.encoder, grid + length, batches[1]) / 3.0
            + blocks(self.decoder, length + leading(layout), batches[1]);
        let (width, layers) = self.generator;
        let mut head = 3.0 * (batches[2] * length * width * codes) as f64;
        // A gated feed-forward has three matrices where the tokenizer's has two.
        let (hidden, length) = match captions {
            None => (8 * width / 3 * 3 / 2, length),
            Some(captions) => {
                let ids = batches[2] * captions.mean_ids;
                head += 3.0 * (ids * width * captions.vocabulary) as f64;
                (
                    language_size(self.generator, captions.vocabulary).hidden * 3 / 2,
                    length + captions.mean_ids,
                )
            }
        };
        [first, second, work(layers, width, hidden, length, batches[2]) + head]
    }
}

/// A language model of a width and so many layers.
fn language_size((width, layers): (usize, usize), vocabulary: usize) -> LanguageSize {
    let heads = width / HEAD;
    LanguageSize {
        vocabulary,
        width,
        layers,
        heads,
        key_value_heads: if heads.is_multiple_of(2) { heads / 2 } else { heads },
        hidden: (8 * width / 3).next_multiple_of(HEAD),
        picture_positions: PicturePositions::Grid,
    }
}

impl Size {
    /// Seconds that it takes to encode so many views of pictures, which is no slower than within a step.
    fn seconds_of_cache(self, layout: TokenLayout, views: usize, pace: f64) -> f64 {
        let length = layout.grid() + layout.len();
        let forwards = work(self.encoder, self.width, 4 * self.width, length, 1) / 3.0;
        views as f64 * forwards / pace
    }
}

/// Learned tokens before the codes in the second stage: as the paper's, a quarter of the grid at most.
fn leading(layout: TokenLayout) -> usize {
    (layout.grid() / 4).clamp(4, 64)
}

/// Proposes recipes for a data set.
///
/// # Errors
/// If the wish cannot be met, or the data cannot be read.
pub fn propose(
    data: Arc<dyn DataSet>,
    wish: Wish,
    home: &Home,
    device: &Device,
) -> Result<Proposal, TrainingError> {
    wish.check()?;
    let pictures = data.len();
    let captions = match wish.words || data.classes().len() < 2 {
        true => Captions::of(&*data),
        false => None,
    };
    if wish.words && captions.is_none() {
        return Err(TrainingError::Data(
            "fewer than half of the pictures have captions; docs/data.md says how they are given"
                .to_owned(),
        ));
    }
    let captions = captions.as_ref();
    let codes = codes(pictures);
    let batches = match wish.machine {
        Machine::Cpu => BATCHES.map(|batch| batch.min(pictures.max(2))),
        Machine::Gpu => BATCHES.map(|batch| 8 * batch),
    };
    let epochs = |batch: usize| MOST_EPOCHS * pictures as f64 / batch as f64;
    let longest: [f64; 3] =
        std::array::from_fn(|stage| epochs(batches[stage]).max(ENOUGH[stage] / 4.0));
    if wish.machine == Machine::Gpu {
        let size = if pictures < 20_000 { SIZES[2] } else { SIZES[4] };
        let steps = longest.map(|steps| steps.min(200_000.0) as u64);
        let choice = Choice::new(wish, size, wish.patch(), captions);
        return build(wish, choice, codes, batches, steps, pictures, None);
    }

    // The machine's pace, from the second smallest model; two steps tell it well enough.
    let pace = |choice: Choice<'_>| -> Result<f64, TrainingError> {
        let proposal = build(wish, choice, codes, batches, [100; 3], pictures, None)?;
        let trainer = StageOne::new(proposal.stage_one.clone(), Arc::clone(&data), home, device)?;
        let seconds = run::time_steps(trainer, &proposal.stage_one, 2, 20.0)?;
        Ok(choice.work(codes, batches)[0] / seconds)
    };
    let pace_of_timed = pace(Choice::new(wish, SIZES[1], wish.patch(), captions))?;
    let whole = wish.hours * 3600.0;
    // Half of it is left to learn, however many pictures there are to encode.
    let to_learn = |choice: Choice<'_>, pace: f64| {
        (whole - choice.seconds_of_cache(pictures, pace)).max(whole / 2.0)
    };
    let available = machine::available_memory().unwrap_or(u64::MAX);
    let mut best = None;
    for choice in Choice::all(wish, codes, batches, captions) {
        let work = choice.work(codes, batches);
        let left = to_learn(choice, pace_of_timed);
        let steps: [f64; 3] =
            std::array::from_fn(|stage| SHARES[stage] * left * pace_of_timed / work[stage]);
        let is_enough = (0..3).all(|stage| steps[stage] >= ENOUGH[stage]);
        let steps: [u64; 3] =
            std::array::from_fn(|stage| steps[stage].min(longest[stage]).max(10.0) as u64);
        let proposal = build(wish, choice, codes, batches, steps, pictures, Some(pace_of_timed))?;
        let fits = proposal.memory < available / 2;
        if best.is_none() || is_enough && fits {
            best = Some((choice, proposal));
        }
    }
    let Some((choice, proposal)) = best else { unreachable!("there are sizes") };
    // Larger products run at another pace.
    let work = choice.work(codes, batches);
    let pace_of_chosen = pace(choice)?;
    let steps = [
        proposal.stage_one.schedule.steps,
        proposal.stage_two.schedule.steps,
        proposal.third.schedule().steps,
    ]
    .map(|steps| ((steps as f64 * pace_of_chosen / pace_of_timed) as u64).max(10));
    let steps = std::array::from_fn(|stage| steps[stage].min(longest[stage] as u64));
    let proposal = build(wish, choice, codes, batches, steps, pictures, Some(pace_of_chosen))?;
    let cache = choice.seconds_of_cache(pictures, pace_of_chosen);
    let enough: [f64; 3] = std::array::from_fn(|stage| ENOUGH[stage].min(longest[stage]));
    let is_short = (0..3).any(|stage| (steps[stage] as f64) < 0.8 * enough[stage]);
    // The smallest share decides.
    let learning = (0..3).map(|stage| enough[stage] * work[stage] / SHARES[stage] / pace_of_chosen);
    let wanted = (learning.fold(0.0, f64::max) + cache) / 3600.0;
    Ok(Proposal {
        cache_seconds: Some(cache),
        wanted_hours: is_short.then_some(wanted),
        ..proposal
    })
}

/// Recipes of a size. `pace` is multiplications a second.
fn build(
    wish: Wish,
    choice: Choice<'_>,
    codes: usize,
    batches: [usize; 3],
    steps: [u64; 3],
    pictures: usize,
    pace: Option<f64>,
) -> Result<Proposal, TrainingError> {
    let Choice { size, patch, layout, captions } = choice;
    let transformer =
        |layers| TransformerConfig { width: size.width, layers, heads: size.width / HEAD };
    // From the bundled recipes comes all that does not follow the data.
    let mut stage_one: StageOneRecipe = recipe::read("mini", &[])?;
    let mut stage_two: StageTwoRecipe = recipe::read("mini", &[])?;
    let mut third = match captions {
        None => {
            let mut generator: GeneratorRecipe = recipe::read("mini", &[])?;
            let (width, layers) = size.generator;
            generator.architecture = GeneratorSize { width, layers, heads: width / HEAD };
            Third::Generator(generator)
        }
        Some(captions) => {
            let mut text: TextRecipe = recipe::read("mini-text", &[])?;
            text.architecture = Some(language_size(size.generator, captions.vocabulary));
            text.most_prompt_ids = captions.most_ids;
            text.prompts.clone_from(&captions.examples);
            // As the stages that tell the machine's pace.
            text.schedule.precision = ComputePrecision::F32;
            Third::Text(text)
        }
    };
    // Time is short: none of it goes by with the mean picture.
    stage_one.weights = Weights::Even;
    stage_two.weights = Weights::Even;
    stage_one.architecture.image = ImageSize::square(wish.size);
    stage_one.architecture.patch = patch;
    stage_one.architecture.prefix = layout.prefix();
    stage_one.architecture.codes = codes;
    stage_one.architecture.encoder = transformer(size.encoder);
    let causal =
        DecoderConfig { transformer: transformer(size.decoder), leading: 1, prefix_head: true };
    stage_one.architecture.causal_decoder = Some(causal);
    stage_two.decoder = DecoderConfig {
        transformer: transformer(size.decoder),
        leading: leading(layout),
        prefix_head: false,
    };
    if captions.is_some() {
        // A mirrored picture would not be what is said of it.
        stage_one.augmentation.flip = false;
        stage_two.augmentation.flip = false;
    }
    // Wide models learn at smaller rates.
    let rate = 1e-3 * (192.0 / size.width as f64).min(1.0);
    let schedules = [&mut stage_one.schedule, &mut stage_two.schedule, third.schedule_mut()];
    for (stage, schedule) in schedules.into_iter().enumerate() {
        let steps = steps[stage];
        let log_every = (steps / 200).clamp(1, 50);
        schedule.steps = steps;
        schedule.batch = batches[stage];
        schedule.learning_rate = rate;
        schedule.final_learning_rate = rate / 50.0;
        schedule.warmup_steps = (steps / 20).clamp(1, 1000);
        schedule.log_every = log_every;
        // Ten checkpoints and as many sheets of pictures.
        schedule.checkpoint_every = (steps / 10 / log_every).max(1) * log_every;
        schedule.samples_every = Some(schedule.checkpoint_every);
    }
    let work = choice.work(codes, batches);
    let seconds =
        pace.map(|pace| std::array::from_fn(|stage| steps[stage] as f64 * work[stage] / pace));
    let memory = memory(&stage_one, &third, layout, codes);
    Ok(Proposal {
        stage_one,
        stage_two,
        third,
        seconds,
        cache_seconds: None,
        wanted_hours: None,
        pictures,
        memory,
    })
}

/// Bytes of the larger of the first stage and what draws: parameters with gradients and moments, and
/// activations.
fn memory(stage_one: &StageOneRecipe, third: &Third, layout: TokenLayout, codes: usize) -> u64 {
    let tokenizer = &stage_one.architecture;
    let decoder =
        tokenizer.causal_decoder.map_or(0, |decoder| tokenizer.decoder_parameters(&decoder));
    let parameters = tokenizer.encoder_parameters() + tokenizer.codebook_parameters() + decoder;
    let blocks =
        |layers: usize, width: usize, length: usize| layers * length * (16 * width + length);
    let length = layout.len() + layout.grid();
    let (encoder, causal) = (tokenizer.encoder, tokenizer.causal_decoder);
    let activations = blocks(encoder.layers, encoder.width, length)
        + causal.map_or(0, |decoder| {
            blocks(decoder.transformer.layers, decoder.transformer.width, layout.len() + 1)
        });
    let first = 16 * parameters + 4 * stage_one.schedule.batch * activations;
    let (width, layers, text, prompt) = match third {
        Third::Generator(GeneratorRecipe { architecture, .. }) => {
            (architecture.width, architecture.layers, 0, 0)
        }
        Third::Text(recipe) => recipe.architecture.map_or((0, 0, 0, 0), |size| {
            (size.width, size.layers, size.vocabulary, recipe.most_prompt_ids)
        }),
    };
    let parameters = layers * 12 * width * width + (2 * codes + text) * width;
    let activations =
        blocks(layers, width, layout.len() + prompt) + 3 * (codes * layout.len() + text * prompt);
    let second = 16 * parameters + 4 * third.schedule().batch * activations;
    first.max(second) as u64
}

impl Proposal {
    /// Writes the three recipes into a folder, with what they are for in comments. Returns the files.
    ///
    /// # Errors
    /// If the folder holds one of them already, or cannot be written.
    pub fn write(&self, folder: &Path, data: &str) -> Result<Vec<PathBuf>, TrainingError> {
        let third = match &self.third {
            Third::Generator(recipe) => {
                (Training::Generator, self.generator_text(recipe, folder, data))
            }
            Third::Text(recipe) => (Training::Text, self.text_text(recipe, folder, data)),
        };
        let texts = [
            (Training::StageOne, self.stage_one_text(folder, data)),
            (Training::StageTwo, self.stage_two_text(folder, data)),
            third,
        ];
        let path = |training: Training| folder.join(format!("{}.toml", training.file_stem()));
        if let Some(taken) = texts.iter().map(|(training, _)| path(*training)).find(|p| p.exists())
        {
            return Err(TrainingError::Data(format!(
                "{} is there already; give another --out, or remove it",
                taken.display()
            )));
        }
        fs::create_dir_all(folder).map_err(TrainingError::file(folder))?;
        let mut written = Vec::new();
        for (training, text) in texts {
            let path = path(training);
            files::write_file(&path, |file| std::io::Write::write_all(file, text.as_bytes()))
                .map_err(TrainingError::file(&path))?;
            written.push(path);
        }
        Ok(written)
    }

    fn stage_one_text(&self, folder: &Path, data: &str) -> String {
        let folder = folder.display();
        let layout = self.stage_one.architecture.layout();
        let mut text = self.head(
            "First stage: encoder, codebook and a causal decoder, which makes the tokens predictable from left to right.",
            0,
            &format!("alitok train tokenizer --stage 1 --recipe {folder} --data {data} --out {folder}/stage-1"),
        );
        let _ = writeln!(
            text,
            "# A picture has {} tokens: {} before the grid (one a column; they rebuild the first row) and a grid of\n\
             # {} × {} patches. `codes` follows the number of pictures: 512 for hundreds, 1024 for thousands, 4096 beyond.\n\
             # For sharper pictures add a perceptual and an adversarial loss to the second stage, as the bundled recipe\n\
             # `mini-sharp` has them.",
            layout.len(),
            layout.prefix(),
            layout.rows(),
            layout.columns()
        );
        text + &body(&self.stage_one)
    }

    fn stage_two_text(&self, folder: &Path, data: &str) -> String {
        let folder = folder.display();
        let text = self.head(
            "Second stage: a decoder that sees all tokens at once, for the same tokens. It makes the better pictures.",
            1,
            &format!(
                "alitok train tokenizer --stage 2 --from {folder}/stage-1 --recipe {folder} --data {data} --out {folder}/stage-2"
            ),
        );
        text + &body(&self.stage_two)
    }

    fn generator_text(&self, recipe: &GeneratorRecipe, folder: &Path, data: &str) -> String {
        let folder = folder.display();
        let mut text = self.head(
            "The generator, which draws tokens one after the other.",
            2,
            &format!(
                "alitok cache build --data {data} --model {folder}/stage-2 --mirrored --out {folder}/cache{}\n\
                 #   alitok train generator --cache {folder}/cache --recipe {folder} --out {folder}/generator\n\
                 #   alitok generate --model {folder}/generator --class 0 --count 16 --out {folder}/samples.png",
                self.cache_comment()
            ),
        );
        text.push_str(
            "# `sampling` is what drawing uses by itself; `alitok evaluate sweep` looks for better values of guidance.\n",
        );
        text + &body(recipe)
    }

    fn text_text(&self, recipe: &TextRecipe, folder: &Path, data: &str) -> String {
        let folder = folder.display();
        // A shell would read what stands in double quotes.
        let prompt = recipe.prompts.iter().find(|prompt| !prompt.contains(['\'', '\n', '\r']));
        let prompt = prompt.map_or("a prompt", String::as_str);
        let mut text = self.head(
            "The language model, which reads a prompt and draws tokens one after the other.",
            2,
            &format!(
                "alitok cache build --data {data} --model {folder}/stage-2 --out {folder}/cache{}\n\
                 #   alitok train text --data {folder}/cache --recipe {folder} --out {folder}/words\n\
                 #   alitok generate --model {folder}/words --prompt '{prompt}' --count 16 --out {folder}/samples.png",
                self.cache_comment()
            ),
        );
        text.push_str(
            "# The vocabulary is learned from the captions, as large as they have different words; `prompts` are some of\n\
             # them, which are drawn as it learns. `alitok evaluate text` tells how much the words help.\n",
        );
        text + &body(recipe)
    }

    fn cache_comment(&self) -> String {
        let comment = |seconds| format!("  # about {}", about(seconds));
        self.cache_seconds.map_or_else(String::new, comment)
    }

    fn head(&self, what: &str, stage: usize, command: &str) -> String {
        let time = match self.seconds {
            Some(seconds) => {
                format!("# About {} on the machine that was timed.\n", about(seconds[stage]))
            }
            None => "# Nothing was timed: how long it takes depends on the device.\n".to_owned(),
        };
        let steps =
            [&self.stage_one.schedule, &self.stage_two.schedule, self.third.schedule()][stage];
        let epochs = steps.steps as f64 * steps.batch as f64 / self.pictures.max(1) as f64;
        let epochs = if epochs < 10.0 { format!("{epochs:.1}") } else { format!("{epochs:.0}") };
        format!(
            "# {what}\n#\n#   {command}\n#\n{time}# {} steps of {} pictures: each of the {} pictures is seen {epochs} times.\n\
             # docs/recipes.md explains every setting.\n",
            steps.steps, steps.batch, self.pictures
        )
    }
}

/// A duration in words, of two digits.
pub fn about(seconds: f64) -> String {
    match seconds {
        _ if seconds < 90.0 => format!("{seconds:.0} seconds"),
        _ if seconds < 5400.0 => format!("{:.0} minutes", seconds / 60.0),
        _ => format!("{:.1} hours", seconds / 3600.0),
    }
}

/// The settings of a recipe as text.
fn body<R: Recipe>(recipe: &R) -> String {
    toml::to_string(&settings::to_table(recipe)).expect("a table of plain values can be written")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    fn wish(size: usize) -> Wish {
        Wish { size, machine: Machine::Cpu, hours: 1.0, words: false }
    }

    fn captions() -> Captions {
        let examples = vec!["it's a red apple".to_owned(), "a pear".to_owned()];
        Captions { vocabulary: 512, most_ids: 32, mean_ids: 20, examples }
    }

    #[test]
    fn should_write_recipes_that_are_read_back_for_every_size_and_number_of_pictures() {
        let captions = captions();
        for side in [16, 32, 64, 96, 128, 256, 512, 1024] {
            for (place, size) in SIZES.into_iter().enumerate() {
                let wish = wish(side);
                wish.check().unwrap();
                let pictures = 10usize.pow(place as u32 + 1);
                let steps = [10, 500, 20_000];
                let codes = codes(pictures);
                let patch = wish.patches().last().unwrap();
                let said = (place % 2 == 1).then_some(&captions);
                let choice = Choice::new(wish, size, patch, said);
                let proposal =
                    build(wish, choice, codes, BATCHES, steps, pictures, Some(1e9)).unwrap();
                let folder = tempfile::tempdir().unwrap();
                let out = folder.path().join("my");
                let written = proposal.write(&out, "photos").unwrap();
                assert_eq!(written.len(), 3);
                // As `--recipe my/` reads them.
                let name = out.to_str().unwrap();
                assert_eq!(recipe::read::<StageOneRecipe>(name, &[]).unwrap(), proposal.stage_one);
                assert_eq!(recipe::read::<StageTwoRecipe>(name, &[]).unwrap(), proposal.stage_two);
                match &proposal.third {
                    Third::Generator(recipe) => {
                        assert!(said.is_none());
                        assert_eq!(&recipe::read::<GeneratorRecipe>(name, &[]).unwrap(), recipe);
                    }
                    Third::Text(recipe) => {
                        assert_eq!(&recipe::read::<TextRecipe>(name, &[]).unwrap(), recipe);
                        let text = fs::read_to_string(&written[2]).unwrap();
                        assert!(text.contains("--prompt 'a pear'"), "{text}");
                        assert!(
                            !proposal.stage_one.augmentation.flip && !text.contains("--mirrored")
                        );
                    }
                }
                proposal.stage_one.architecture.validate().unwrap();
                assert!(proposal.write(&out, "photos").is_err(), "nothing is overwritten");
            }
        }
    }

    #[test]
    fn should_refuse_sizes_and_times_that_cannot_be_met() {
        let problem = |wish: Wish| wish.check().unwrap_err().to_string();
        assert!(problem(wish(8)).contains("from 16 to 1024"));
        assert!(problem(wish(usize::MAX)).contains("from 16 to 1024"));
        assert!(problem(wish(100)).contains("take 96 or 104"));
        for hours in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(problem(Wish { hours, ..wish(64) }).contains("hours"));
        }
    }

    #[test]
    fn should_leave_time_for_the_cache_and_say_when_there_is_too_little() {
        let layout = wish(32).layout(4);
        let seconds = |pictures| SIZES[0].seconds_of_cache(layout, pictures, 1e10);
        assert!((seconds(20_000) / seconds(10_000) - 2.0).abs() < 1e-9);
        // Forwards is a third of forwards and backwards.
        let length = layout.grid() + layout.len();
        let step = work(SIZES[0].encoder, SIZES[0].width, 4 * SIZES[0].width, length, 1);
        assert!((seconds(3) * 1e10 / step - 1.0).abs() < 1e-9);
        // Words say what is left, so there are no mirror images.
        assert_eq!((views(None), views(Some(&captions()))), (2, 1));
    }

    #[test]
    fn should_offer_coarser_patches_where_a_grid_is_left() {
        let sides = [(16, vec![4]), (32, vec![4]), (64, vec![4, 8]), (96, vec![8])];
        let more = [(128, vec![8, 16]), (256, vec![16, 32]), (1024, vec![32, 64])];
        for (side, patches) in sides.into_iter().chain(more) {
            assert_eq!(wish(side).patches().collect::<Vec<_>>(), patches, "{side} pixels");
        }
        let choices = Choice::all(wish(128), 1024, BATCHES, None);
        assert_eq!(choices.len(), 2 * SIZES.len());
        let cheapest = choices[0];
        assert_eq!((cheapest.patch, cheapest.size.width), (16, SIZES[0].width));
        let work = |choice: &Choice<'_>| choice.work(1024, BATCHES)[0];
        assert!(choices.is_sorted_by(|one, other| work(one) <= work(other)));
    }

    #[test]
    fn should_ask_for_more_work_of_larger_models() {
        let layout = wish(64).layout(4);
        for pair in SIZES.windows(2) {
            for captions in [None, Some(&captions())] {
                let [less, more] =
                    [pair[0], pair[1]].map(|size| size.work(layout, 1024, BATCHES, captions));
                assert!(less.iter().zip(&more).all(|(less, more)| less < more));
            }
        }
    }

    /// Pictures of which only the captions are asked.
    struct Said(Vec<Vec<String>>);

    impl DataSet for Said {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> &[String] {
            &[]
        }
        fn label(&self, _: usize) -> usize {
            0
        }
        fn name(&self, _: usize) -> &str {
            ""
        }
        fn captions(&self, index: usize) -> &[String] {
            &self.0[index]
        }
        fn picture(&self, _: usize) -> Result<pixels::Picture, pixels::PixelsError> {
            unreachable!("no picture is asked")
        }
    }

    #[test]
    fn should_learn_from_captions_how_large_a_vocabulary_and_prompts_are() {
        let said = |caption: &dyn Fn(usize) -> String, count: usize| {
            Said((0..count).map(|index| vec![caption(index)]).collect())
        };
        let few =
            Captions::of(&said(&|index| format!("a {} apple", ["red", "green"][index % 2]), 100));
        let few = few.unwrap();
        assert_eq!((few.vocabulary, few.examples.len()), (512, 2));
        assert!(few.mean_ids <= few.most_ids && (16..=24).contains(&few.most_ids), "{few:?}");
        let many =
            Captions::of(&said(&|index| format!("{index} is a number of so many words"), 3000));
        let many = many.unwrap();
        assert_eq!((many.vocabulary, many.examples.len()), (3328, EXAMPLES));
        let long = Captions::of(&said(&|index| format!("{index} ").repeat(5000), 20)).unwrap();
        assert_eq!(long.most_ids, MOST_IDS);
        // Most pictures without a word.
        let mut rare = said(&|_| "a word".to_owned(), 100);
        rare.0[49..].fill(Vec::new());
        assert_eq!(Captions::of(&rare), None);
        assert_eq!(Captions::of(&Said(Vec::new())), None);
    }
}
