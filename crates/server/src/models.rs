//! Models that are loaded when somebody asks for them and let go when memory is short.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, UNIX_EPOCH},
};

use generator::GeneratorConfig;
use language::{LanguageConfig, Prompts};
use model::Model;
use pipeline::{Compute, Decode, Encode, PROMPT_ROOM, PipelineError, Precision};
use pixels::Picture;
use tokenizer::DecoderKind;
use tokens::{CodebookIndex, TokenLayout, Vocabulary};
use tokio::{
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
};

use crate::{
    batcher::{Batcher, StartError},
    error::{ApiError, ServerError},
    metrics::{Metrics, ModelMetrics},
};

/// The models that a server has.
pub(crate) struct Models {
    entries: Vec<Arc<Entry>>,
    options: Options,
    /// Held while a model is loaded, so that one at a time is.
    loading: Mutex<()>,
    started: Instant,
}

/// How models are loaded.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) compute: Compute,
    pub(crate) decoder: Option<DecoderKind>,
    pub(crate) batch: usize,
    pub(crate) max_queue: usize,
    /// Most bytes of loaded models.
    pub(crate) memory_limit: Option<u64>,
}

/// A model that may be asked for.
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) model: Model,
    /// How its prompts are written, if it reads any; else it draws classes.
    pub(crate) prompts: Option<Prompts>,
    /// When its configuration was written, in seconds since 1970.
    pub(crate) created: u64,
    /// What it takes when it is loaded, about.
    pub(crate) bytes: u64,
    metrics: ModelMetrics,
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// Milliseconds from the server's start.
    last_used: AtomicU64,
}

/// A model in memory.
pub(crate) struct Loaded {
    pub(crate) entry: Arc<Entry>,
    pub(crate) batcher: Batcher,
    compute: Compute,
    decoder: Arc<dyn Decode>,
    causal: OnceLock<Arc<dyn Decode>>,
    encoder: OnceLock<Arc<dyn Encode>>,
    /// The engine encodes and decodes one picture at a time; who waits for it holds no thread.
    turn: Arc<Semaphore>,
}

impl Entry {
    /// The layout of its pictures' tokens.
    pub(crate) fn layout(&self) -> TokenLayout {
        self.model.config.tokenizer.layout()
    }

    /// The codes that tokens may be.
    pub(crate) fn vocabulary(&self) -> Vocabulary {
        Vocabulary::new(self.model.config.tokenizer.codes, self.model.classes.len())
    }

    /// Whether it is in memory.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.try_lock().is_ok_and(|loaded| loaded.is_some())
    }
}

/// What a model draws with.
enum Drawer<'a> {
    Classes(&'a GeneratorConfig),
    Prompts(&'a LanguageConfig),
}

/// About how many bytes a model takes: its files, which stay mapped, its packed weights, and the keys and
/// values of as many guided pictures as are drawn at once.
fn estimate(model: &Model, drawer: &Drawer<'_>, precision: Precision, batch: usize) -> u64 {
    let files = [
        "tokenizer.safetensors",
        "generator.safetensors",
        "language.safetensors",
        "image_side.safetensors",
    ]
    .iter()
    .filter_map(|file| std::fs::metadata(model.path().join(file)).ok())
    .map(|file| file.len())
    .sum::<u64>();
    let weight = match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
        // Of 4-bit weights some are kept in 8.
        Precision::Int8 | Precision::Int4 => 1,
    };
    let (parameters, positions, numbers) = match drawer {
        Drawer::Classes(config) => {
            (config.parameter_count(), config.layout.len(), config.layers * config.width)
        }
        Drawer::Prompts(config) => (
            config.language_parameters() + config.image_side_parameters(),
            PROMPT_ROOM + config.layout.len(),
            config.layers * config.key_value_width(),
        ),
    };
    let cache = 2 * batch * positions * 2 * numbers * 4;
    files + (parameters * weight + cache) as u64
}

impl Models {
    pub(crate) fn new(
        models: Vec<(String, Model)>,
        options: Options,
        metrics: &Metrics,
    ) -> Result<Self, ServerError> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for (id, model) in models {
            let wrong = |error: &dyn std::fmt::Display| ServerError::Models(error.to_string());
            let drawer = match &model.config.language {
                Some(language) => Drawer::Prompts(language),
                None => Drawer::Classes(model.generator_config().map_err(|error| wrong(&error))?),
            };
            let prompts = match drawer {
                Drawer::Prompts(_) => Some(model.prompts().map_err(|error| wrong(&error))?),
                Drawer::Classes(_) => None,
            };
            if entries.iter().any(|entry| entry.id == id) {
                return Err(wrong(&format!(
                    "two models are called `{id}`; a model's id is its folder's name or, for \
                     `ID=FOLDER`, the one before the sign"
                )));
            }
            let precision = options.compute.precision();
            let bytes = estimate(&model, &drawer, precision, options.batch);
            if let Some(limit) = options.memory_limit.filter(|&limit| bytes > limit) {
                return Err(wrong(&format!(
                    "the model `{id}` takes about {} MB alone, more than the memory limit of {} MB",
                    bytes >> 20,
                    limit >> 20
                )));
            }
            let written = std::fs::metadata(model.path().join("config.json"))
                .and_then(|file| file.modified())
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            entries.push(Arc::new(Entry {
                created: written.map_or(0, |time| time.as_secs()),
                bytes,
                metrics: metrics.model(&id),
                id,
                model,
                prompts,
                loaded: Mutex::default(),
                last_used: AtomicU64::new(0),
            }));
        }
        if entries.is_empty() {
            return Err(ServerError::Models("no model was given".to_owned()));
        }
        Ok(Self { entries, options, loading: Mutex::default(), started: Instant::now() })
    }

    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    /// The model of this id, or the first.
    pub(crate) fn entry(&self, id: Option<&str>) -> Result<&Arc<Entry>, ApiError> {
        let Some(id) = id else { return Ok(&self.entries[0]) };
        let known = || self.entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>();
        self.entries
            .iter()
            .find(|entry| entry.id == id)
            .ok_or_else(|| ApiError::no_model(id, &known()))
    }

    /// The model in memory; it is loaded first if it is not there.
    pub(crate) async fn load(&self, entry: &Arc<Entry>) -> Result<Arc<Loaded>, ApiError> {
        let now = self.started.elapsed().as_millis() as u64;
        entry.last_used.store(now, Ordering::Relaxed);
        let mut place = entry.loaded.lock().await;
        if let Some(loaded) = place.as_ref().filter(|loaded| !loaded.batcher.is_stopped()) {
            return Ok(Arc::clone(loaded));
        }
        let _one = self.loading.lock().await;
        *place = None;
        self.make_room(entry).await?;
        let (options, entry) = (self.options.clone(), Arc::clone(entry));
        let begun = Instant::now();
        let id = entry.id.clone();
        let loaded = spawn_blocking(move || Loaded::open(entry, &options))
            .await
            .map_err(ApiError::internal)?
            .map_err(|error| ApiError::internal(format!("the model `{id}`: {error}")))?;
        tracing::info!(model = id, ms = begun.elapsed().as_millis() as u64, "loaded");
        let loaded = Arc::new(loaded);
        *place = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Lets go of models that nobody uses, longest unused first, until there is room for this one.
    async fn make_room(&self, wanted: &Arc<Entry>) -> Result<(), ApiError> {
        let Some(limit) = self.options.memory_limit else { return Ok(()) };
        let mut others: Vec<_> =
            self.entries.iter().filter(|entry| !Arc::ptr_eq(entry, wanted)).collect();
        others.sort_by_key(|entry| entry.last_used.load(Ordering::Relaxed));
        let mut taken: u64 =
            others.iter().filter(|entry| entry.is_loaded()).map(|entry| entry.bytes).sum();
        for entry in others {
            if taken + wanted.bytes <= limit {
                break;
            }
            // One that somebody waits for is being loaded or used.
            let Ok(mut place) = entry.loaded.try_lock() else { continue };
            let idle =
                |loaded: &Arc<Loaded>| Arc::strong_count(loaded) == 1 && loaded.batcher.is_idle();
            if place.as_ref().is_some_and(idle) {
                let loaded = place.take();
                // Its thread is waited for.
                let _ = spawn_blocking(move || drop(loaded)).await;
                taken -= entry.bytes;
                tracing::info!(model = entry.id, "let go");
            }
        }
        if taken + wanted.bytes > limit {
            return Err(ApiError::unavailable(
                "memory_limit",
                format!(
                    "there is no memory for the model `{}` while others are drawing; try again",
                    wanted.id
                ),
                5,
            ));
        }
        Ok(())
    }

    /// How many models are loaded, and about how many bytes they take.
    pub(crate) fn memory(&self) -> (usize, u64) {
        let loaded = self.entries.iter().filter(|entry| entry.is_loaded());
        loaded.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes))
    }
}

impl Loaded {
    fn open(entry: Arc<Entry>, options: &Options) -> Result<Self, StartError> {
        let Options { compute, decoder, batch, max_queue, .. } = options;
        let decoder = compute.decoder(&entry.model, *decoder)?;
        let drawer = compute.drawer(&entry.model)?;
        let batcher = Batcher::start(drawer, *batch, *max_queue, entry.metrics.clone())?;
        Ok(Self {
            entry,
            batcher,
            compute: compute.clone(),
            decoder: decoder.into(),
            causal: OnceLock::new(),
            encoder: OnceLock::new(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Works with the tokenizer beside the runtime's threads, in turn; `then` needs no turn.
    pub(crate) async fn with<T: 'static, U: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
        then: impl FnOnce(T) -> Result<U, ApiError> + Send + 'static,
    ) -> Result<U, ApiError> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(ApiError::internal)?;
        let loaded = Arc::clone(self);
        spawn_blocking(move || {
            let done = work(&loaded);
            drop(turn);
            then(done?)
        })
        .await
        .map_err(ApiError::internal)?
    }

    /// The picture of all of its tokens.
    pub(crate) fn decode(&self, tokens: &[CodebookIndex]) -> Result<Picture, ApiError> {
        let begun = Instant::now();
        let picture = self.decoder.decode(tokens)?;
        self.entry.metrics.decode_seconds.record(begun.elapsed());
        Ok(picture)
    }

    /// The picture of its first rows, as far as they are decided.
    pub(crate) fn decode_rows(&self, tokens: &[CodebookIndex]) -> Result<Picture, ApiError> {
        if self.decoder.decodes_rows() {
            return Ok(self.decoder.decode(tokens)?);
        }
        let open = || self.compute.decoder(&self.entry.model, Some(DecoderKind::Causal));
        Ok(get_or_open(&self.causal, open)?.decode(tokens)?)
    }

    /// The tokens of a picture of the model's size.
    pub(crate) fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, ApiError> {
        let open = || self.compute.encoder(&self.entry.model);
        Ok(get_or_open(&self.encoder, open)?.encode(picture)?)
    }
}

/// What was opened before, or is now. Who opens holds the model's turn, so that it happens once.
fn get_or_open<T: ?Sized>(
    place: &OnceLock<Arc<T>>,
    open: impl FnOnce() -> Result<Box<T>, PipelineError>,
) -> Result<&Arc<T>, PipelineError> {
    if let Some(opened) = place.get() {
        return Ok(opened);
    }
    let opened = open()?;
    Ok(place.get_or_init(|| Arc::from(opened)))
}
