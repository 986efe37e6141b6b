//! A model: encoding, decoding and drawing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use files::Home;
use generator::{Request, SamplingConfig};
use language::Prompts;
use pipeline::{
    Compute, Decode, Device, Draw, Drawing, Encode, Event, Precision, SamplingChanges,
    class_requests, decoder_kind, prompt_requests, requests_without_class, requests_without_prompt,
};
use pixels::Picture;
use pyo3::prelude::*;
use tokenizer::{DecoderKind, ImageSize};
use tokens::CodebookIndex;

use crate::{
    array::Array,
    failure::Failure,
    pictures::{self, Source},
    process::OfProcess,
    stream::Stream,
    watch::Watch,
};

/// Pictures that may wait to be decoded.
const WAITING: usize = 64;
/// How long a caller waits for news before it looks for Ctrl-C.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// A model, of which parts are loaded when they are first needed.
#[pyclass(frozen, module = "alitok._alitok")]
pub(crate) struct Model {
    pub(crate) model: model::Model,
    device: Device,
    precision: Precision,
    threads: Option<usize>,
    /// Locked for moments, and only with Python's lock held, so that it is free whenever Python forks.
    parts: Mutex<OfProcess<Parts>>,
}

/// What is loaded, by this process.
struct Parts {
    compute: Compute,
    encoder: Option<Arc<dyn Encode>>,
    causal: Option<Arc<dyn Decode>>,
    bidirectional: Option<Arc<dyn Decode>>,
    drawer: Option<Arc<dyn Draw>>,
    prompts: Option<Prompts>,
}

impl Parts {
    fn none(compute: Compute) -> Self {
        Self {
            compute,
            encoder: None,
            causal: None,
            bidirectional: None,
            drawer: None,
            prompts: None,
        }
    }

    fn decoder(&mut self, kind: DecoderKind) -> &mut Option<Arc<dyn Decode>> {
        match kind {
            DecoderKind::Causal => &mut self.causal,
            DecoderKind::Bidirectional => &mut self.bidirectional,
        }
    }
}

/// The root of bundled things: what `ALITOK_HOME` names, then the package's own folder.
pub(crate) fn home(package: &str) -> Home {
    Home::beside(package)
}

/// What was asked of sampling; see `pipeline::SamplingChanges`.
#[derive(FromPyObject)]
pub(crate) struct Changes(Option<f64>, Option<f64>, Option<f64>, Option<usize>, Option<f64>);

impl Changes {
    fn sampling(&self, model: &model::Model) -> Result<SamplingConfig, Failure> {
        let Self(guidance, guidance_power, temperature, top_k, top_p) = *self;
        let changes = SamplingChanges { guidance, guidance_power, temperature, top_k, top_p };
        Ok(pipeline::sampling(model, &changes)?)
    }
}

/// Which pictures to draw: of what, what their first tokens are, how many of each class or prompt, and the
/// seed.
#[derive(FromPyObject)]
pub(crate) struct Wanted(Option<Subject>, Vec<i64>, usize, u64);

/// What pictures show. Where it is left out, they are drawn as training draws where it leaves it out.
#[derive(FromPyObject)]
pub(crate) enum Subject {
    /// Classes, by their labels.
    Classes(Vec<usize>),
    /// Prompts, of a model that reads them.
    Prompts(Vec<String>),
}

/// Tokens as codes of a codebook.
pub(crate) fn codes(tokens: &[i64], codes: usize) -> Result<Vec<CodebookIndex>, Failure> {
    let code = |&token: &i64| {
        CodebookIndex::try_from(token).ok().filter(|&code| usize::from(code) < codes).ok_or_else(
            || {
                let last = codes.saturating_sub(1);
                Failure::input(format!("token {token} is no code: the codebook has 0 to {last}"))
            },
        )
    };
    tokens.iter().map(code).collect()
}

/// Sequences of tokens of one length as an array.
fn token_array(sequences: &[Vec<CodebookIndex>], length: usize) -> Array {
    let values = sequences.iter().flatten().map(|&token| i64::from(token)).collect();
    Array::i64([sequences.len(), length], values)
}

pub(crate) fn decoder_named(name: Option<&str>) -> Result<Option<DecoderKind>, Failure> {
    Ok(match name {
        None => None,
        Some("causal") => Some(DecoderKind::Causal),
        Some("bidirectional") => Some(DecoderKind::Bidirectional),
        Some(other) => {
            let text = format!("`{other}` is no decoder; they are `causal` and `bidirectional`");
            return Err(Failure::input(text));
        }
    })
}

impl Model {
    /// A part that is loaded, or loads it. The work runs without Python's lock.
    fn part<T: Clone + Send>(
        &self,
        py: Python<'_>,
        find: impl Fn(&mut Parts) -> &mut Option<T>,
        load: impl FnOnce(&Compute) -> Result<T, pipeline::PipelineError> + Send,
    ) -> Result<T, Failure> {
        let of_this_process = || -> Result<_, Failure> {
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            if !parts.is_of_this() {
                *parts = OfProcess::new(self.nothing_loaded()?);
            }
            Ok(parts)
        };
        let compute = {
            let mut parts = of_this_process()?;
            if let Some(part) = find(&mut parts) {
                return Ok(part.clone());
            }
            parts.compute.clone()
        };
        let loaded = py.detach(|| load(&compute))?;
        // Another thread may have loaded it meanwhile; one of the two is enough.
        let mut parts = of_this_process()?;
        Ok(find(&mut parts).get_or_insert(loaded).clone())
    }

    fn nothing_loaded(&self) -> Result<Parts, Failure> {
        Ok(Parts::none(Compute::new(self.device, Some(self.precision), self.threads)?))
    }

    pub(crate) fn encoder(&self, py: Python<'_>) -> Result<Arc<dyn Encode>, Failure> {
        self.part(
            py,
            |parts| &mut parts.encoder,
            |compute| Ok(Arc::from(compute.encoder(&self.model)?)),
        )
    }

    fn decoder(
        &self,
        py: Python<'_>,
        kind: Option<DecoderKind>,
    ) -> Result<Arc<dyn Decode>, Failure> {
        let kind = decoder_kind(&self.model.config.tokenizer, kind)?;
        self.part(
            py,
            |parts| parts.decoder(kind),
            |compute| Ok(Arc::from(compute.decoder(&self.model, Some(kind))?)),
        )
    }

    fn drawer(&self, py: Python<'_>) -> Result<Arc<dyn Draw>, Failure> {
        self.part(
            py,
            |parts| &mut parts.drawer,
            |compute| Ok(Arc::from(compute.drawer(&self.model)?)),
        )
    }

    fn prompts(&self, py: Python<'_>) -> Result<Prompts, Failure> {
        self.part(py, |parts| &mut parts.prompts, |_| Ok(self.model.prompts()?))
    }

    fn image(&self) -> ImageSize {
        self.model.config.tokenizer.image
    }

    /// The requests for what is wanted, as the command line makes them.
    fn requests(&self, py: Python<'_>, wanted: &Wanted) -> Result<Vec<Request>, Failure> {
        let Wanted(subject, forced, count, seed) = wanted;
        let (count, seed) = (*count, *seed);
        let mut requests = match subject {
            Some(Subject::Classes(labels)) => {
                let classes = self.model.generator_config()?.classes;
                if let Some(&label) = labels.iter().find(|&&label| label >= classes) {
                    return Err(model::UnknownClass::Label { label, classes }.into());
                }
                pipeline::check_count(labels.len(), count)?;
                class_requests(labels, count, seed)
            }
            Some(Subject::Prompts(texts)) => {
                let prompts = self.prompts(py)?;
                pipeline::check_count(texts.len(), count)?;
                py.detach(|| prompt_requests(&prompts, texts, count, seed))
                    .map_err(pipeline::PipelineError::from)?
            }
            None => {
                pipeline::check_count(1, count)?;
                if self.model.config.language.is_some() {
                    requests_without_prompt(&self.prompts(py)?, count, seed)
                } else {
                    let generator = self.model.generator_config()?;
                    match generator.classes {
                        // A single class is no choice.
                        1 => class_requests(&[0], count, seed),
                        _ => requests_without_class(generator, count, seed),
                    }
                }
            }
        };
        let forced = codes(forced, self.model.config.tokenizer.codes)?;
        for request in &mut requests {
            request.forced.clone_from(&forced);
        }
        Ok(requests)
    }
}

/// Draws pictures and, with a decoder, decodes each while the next ones are drawn.
fn draw(
    drawer: &dyn Draw,
    decoder: Option<&dyn Decode>,
    requests: &[Request],
    sampling: &SamplingConfig,
    batch: usize,
    progress: Option<Py<PyAny>>,
) -> Result<(Vec<Picture>, Vec<Vec<CodebookIndex>>), Failure> {
    let total = requests.len() * drawer.layout().len();
    let mut watch = Watch::new(progress, total);
    let mut drawing = Drawing::of(drawer, requests, sampling, batch)?.in_order();
    let (stop, decided) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (sender, receiver) = sync_channel(WAITING);
    thread::scope(|scope| {
        let (stop, decided) = (&stop, &decided);
        scope.spawn(move || {
            while !drawing.is_idle() && !stop.load(Ordering::Relaxed) {
                let event = drawing.poll();
                decided.store(drawing.decided(), Ordering::Relaxed);
                if let Some(event) = event.filter(Event::is_end)
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        let mut receive = || {
            let (mut pictures, mut sequences) = (Vec::new(), Vec::new());
            loop {
                match receiver.recv_timeout(PATIENCE) {
                    Ok(Event::Finished { tokens, .. }) => {
                        if let Some(decoder) = decoder {
                            pictures.push(decoder.decode(&tokens)?);
                        }
                        sequences.push(tokens);
                    }
                    Ok(Event::Failed { error, .. }) => return Err(error.into()),
                    Ok(Event::Row { .. } | Event::Preview { .. })
                    | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                watch.look(decided.load(Ordering::Relaxed))?;
            }
            watch.look(total)?;
            Ok((pictures, sequences))
        };
        let received = receive();
        stop.store(true, Ordering::Relaxed);
        drop(receiver);
        received
    })
}

#[pymethods]
impl Model {
    /// Reads the configuration of a model; `package` is the folder of bundled things.
    #[new]
    #[pyo3(signature = (name, package, device, precision=None, threads=None))]
    fn new(
        py: Python<'_>,
        name: &str,
        package: &str,
        device: &str,
        precision: Option<&str>,
        threads: Option<usize>,
    ) -> Result<Self, Failure> {
        let device: Device =
            device.parse().map_err(|error: pipeline::DeviceError| Failure::input(error))?;
        let precision = match precision {
            None => Precision::default(),
            Some(name) => {
                Precision::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
                    let known = Precision::ALL.map(Precision::name).join(", ");
                    Failure::input(format!("`{name}` is no precision; there are {known}"))
                })?
            }
        };
        if threads == Some(0) {
            return Err(Failure::input("threads must be at least 1"));
        }
        py.detach(|| {
            let model = model::Model::named(name, &home(package))?;
            model.check_files()?;
            let compute = Compute::new(device, Some(precision), threads)?;
            let parts = Mutex::new(OfProcess::new(Parts::none(compute)));
            Ok(Self { model, device, precision, threads, parts })
        })
    }

    /// The model's folder.
    #[getter]
    fn path(&self) -> String {
        self.model.path().display().to_string()
    }

    #[getter]
    fn device(&self) -> String {
        self.device.to_string()
    }

    #[getter]
    fn precision(&self) -> &'static str {
        self.precision.name()
    }

    /// `config.json`, with every default filled in.
    fn config_json(&self) -> Result<String, Failure> {
        serde_json::to_string(&self.model.config).map_err(Failure::file)
    }

    fn classes(&self) -> Vec<String> {
        self.model.classes.iter().map(|name| name.to_string()).collect()
    }

    /// Height and width of its pictures.
    fn size(&self) -> (usize, usize) {
        (self.image().height, self.image().width)
    }

    /// Prefix tokens, rows and columns of a picture.
    fn layout(&self) -> (usize, usize, usize) {
        let layout = self.model.config.tokenizer.layout();
        (layout.prefix(), layout.rows(), layout.columns())
    }

    fn has_generator(&self) -> bool {
        self.model.config.generator.is_some()
    }

    fn reads_prompts(&self) -> bool {
        self.model.config.language.is_some()
    }

    /// How many classes the generator has; an error if there is none, or it draws prompts.
    fn class_count(&self) -> Result<usize, Failure> {
        Ok(self.model.generator_config()?.classes)
    }

    /// The label of a class by name or number, and what to say of how it was understood.
    fn class_label(&self, name: &str) -> Result<(usize, Option<String>), Failure> {
        self.model.generator_config()?;
        let resolved = self.model.classes.resolve_noted(name)?;
        Ok((resolved.label, resolved.note))
    }

    #[pyo3(signature = (sources, crop, progress=None))]
    fn encode(
        &self,
        py: Python<'_>,
        sources: Vec<Source>,
        crop: bool,
        progress: Option<Py<PyAny>>,
    ) -> Result<Array, Failure> {
        let encoder = self.encoder(py)?;
        let length = self.model.config.tokenizer.layout().len();
        py.detach(|| {
            let mut watch = Watch::new(progress, sources.len());
            let mut tokens = Vec::with_capacity(sources.len());
            for (number, source) in sources.iter().enumerate() {
                watch.look(number)?;
                tokens.push(encoder.encode(&source.fitted(self.image(), crop, number)?)?);
            }
            watch.look(sources.len())?;
            Ok(token_array(&tokens, length))
        })
    }

    #[pyo3(signature = (tokens, decoder=None, progress=None))]
    fn decode(
        &self,
        py: Python<'_>,
        tokens: Vec<Vec<i64>>,
        decoder: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> Result<Array, Failure> {
        let kind = decoder_named(decoder)?;
        let known = self.model.config.tokenizer.codes;
        let tokens: Vec<Vec<CodebookIndex>> =
            tokens.iter().map(|tokens| codes(tokens, known)).collect::<Result<_, _>>()?;
        let decoder = self.decoder(py, kind)?;
        py.detach(|| {
            let mut watch = Watch::new(progress, tokens.len());
            let mut decoded = Vec::with_capacity(tokens.len());
            for tokens in &tokens {
                watch.look(decoded.len())?;
                decoded.push(decoder.decode(tokens)?);
            }
            watch.look(tokens.len())?;
            Ok(pictures::arrays(decoded, self.image()))
        })
    }

    /// Encodes and decodes; the pictures as they went in, as they came out, and their tokens.
    #[pyo3(signature = (sources, crop, decoder=None, progress=None))]
    fn reconstruct(
        &self,
        py: Python<'_>,
        sources: Vec<Source>,
        crop: bool,
        decoder: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> Result<(Array, Array, Array), Failure> {
        let kind = decoder_named(decoder)?;
        let (encoder, decoder) = (self.encoder(py)?, self.decoder(py, kind)?);
        let length = self.model.config.tokenizer.layout().len();
        py.detach(|| {
            let mut watch = Watch::new(progress, sources.len());
            let (mut originals, mut rebuilds, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
            for (number, source) in sources.iter().enumerate() {
                watch.look(number)?;
                let original = source.fitted(self.image(), crop, number)?;
                let tokens = encoder.encode(&original)?;
                rebuilds.push(decoder.decode(&tokens)?);
                originals.push(original);
                sequences.push(tokens);
            }
            watch.look(sources.len())?;
            let image = self.image();
            let tokens = token_array(&sequences, length);
            Ok((pictures::arrays(originals, image), pictures::arrays(rebuilds, image), tokens))
        })
    }

    /// Draws pictures; without `pictures`, their tokens alone.
    #[pyo3(signature = (wanted, changes, batch, pictures, decoder=None, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "one call from the package's own files")]
    fn draw(
        &self,
        py: Python<'_>,
        wanted: Wanted,
        changes: Changes,
        batch: usize,
        pictures: bool,
        decoder: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> Result<(Option<Array>, Array), Failure> {
        let kind = decoder_named(decoder)?;
        let requests = self.requests(py, &wanted)?;
        let sampling = changes.sampling(&self.model)?;
        let drawer = self.drawer(py)?;
        let decoder = if pictures { Some(self.decoder(py, kind)?) } else { None };
        let length = self.model.config.tokenizer.layout().len();
        py.detach(|| {
            let (drawn, tokens) =
                draw(&*drawer, decoder.as_deref(), &requests, &sampling, batch.max(1), progress)?;
            let drawn = pictures.then(|| pictures::arrays(drawn, self.image()));
            Ok((drawn, token_array(&tokens, length)))
        })
    }

    /// Draws pictures row by row.
    #[pyo3(signature = (wanted, changes, batch, previews, decoder=None))]
    fn stream(
        &self,
        py: Python<'_>,
        wanted: Wanted,
        changes: Changes,
        batch: usize,
        previews: usize,
        decoder: Option<&str>,
    ) -> Result<Stream, Failure> {
        let kind = decoder_named(decoder)?;
        let requests = self.requests(py, &wanted)?;
        let sampling = changes.sampling(&self.model)?;
        // What is wrong with the requests is said here rather than by the first event.
        if let Some(generator) = &self.model.config.generator {
            for request in &requests {
                request.validate(generator, &sampling)?;
            }
        }
        let drawer = self.drawer(py)?;
        let decoder = self.decoder(py, kind)?;
        let previewer = match previews {
            0 => None,
            every => Some((self.decoder(py, Some(DecoderKind::Causal))?, every)),
        };
        Stream::start(drawer, decoder, previewer, requests, sampling, batch.max(1))
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Model>()
}
