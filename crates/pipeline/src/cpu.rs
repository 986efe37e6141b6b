//! The engine for the CPU behind the pipeline's traits.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use engine::{Drafts, JobId, Scheduler, Workspace, scheduler};
use generator::{GenerateError, GeneratorConfig, Request, SamplingConfig};
use pixels::Picture;
use tokenizer::{DecoderKind, TokenizerConfig};
use tokens::CodebookIndex;

use crate::{
    Batch, Decode, Draw, Encode, Event, PipelineError, decode::check_tokens, encode::check_size,
};

/// Most bytes of keys and values that pictures have side by side: more pictures at a time would
/// not be drawn faster.
const CACHE_BYTES: usize = 4 << 30;

pub(crate) struct CpuEncoder {
    encoder: engine::Encoder,
    work: Mutex<Workspace>,
}

impl CpuEncoder {
    pub(crate) fn new(encoder: engine::Encoder) -> Self {
        Self { work: Mutex::new(encoder.workspace()), encoder }
    }
}

impl Encode for CpuEncoder {
    fn config(&self) -> &TokenizerConfig {
        self.encoder.config()
    }

    fn encode(&self, picture: &Picture) -> Result<Vec<CodebookIndex>, PipelineError> {
        check_size(picture, self.config())?;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.encoder.encode(&picture.to_unit_planes(), &mut work))
    }
}

pub(crate) struct CpuDecoder {
    decoder: engine::Decoder,
    work: Mutex<Workspace>,
}

impl CpuDecoder {
    pub(crate) fn new(decoder: engine::Decoder) -> Self {
        Self { work: Mutex::new(decoder.workspace()), decoder }
    }
}

impl Decode for CpuDecoder {
    fn config(&self) -> &TokenizerConfig {
        self.decoder.config()
    }

    fn kind(&self) -> DecoderKind {
        self.decoder.kind()
    }

    fn decode(&self, tokens: &[CodebookIndex]) -> Result<Picture, PipelineError> {
        let config = self.config();
        let rows = check_tokens(tokens, config, self.decodes_rows())?;
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let planes = self.decoder.decode(tokens, &mut work);
        Ok(Picture::from_unit_planes(config.image.width, rows * config.patch, &planes)?)
    }

    fn decodes_rows(&self) -> bool {
        self.kind() == DecoderKind::Causal
    }
}

/// A generator, and what tries tokens ahead of their turn.
pub(crate) struct CpuDrawer {
    pub(crate) generator: engine::Generator,
    pub(crate) drafts: Drafts<Box<engine::Generator>>,
}

/// Tokens that are tried at a time.
const DRAFTED: usize = 3;

impl Draw for CpuDrawer {
    fn config(&self) -> &GeneratorConfig {
        self.generator.config()
    }

    fn batch(&self, pictures: usize) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        let drafts = match &self.drafts {
            Drafts::None => Drafts::None,
            Drafts::Own => Drafts::Own,
            Drafts::Of(drafter) => Drafts::Of(&**drafter),
        };
        CpuBatch::open(&self.generator, drafts, pictures)
    }
}

impl Draw for engine::Generator {
    fn config(&self) -> &GeneratorConfig {
        self.config()
    }

    fn batch(&self, pictures: usize) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        CpuBatch::open(self, Drafts::None, pictures)
    }
}

/// A scheduler whose jobs are numbered.
struct CpuBatch<'a> {
    scheduler: Scheduler<&'a engine::Generator>,
    jobs: BTreeMap<usize, JobId>,
    numbers: BTreeMap<JobId, usize>,
    /// The number of the next picture.
    next: usize,
    room: usize,
    events: Vec<scheduler::Event>,
}

impl<'a> CpuBatch<'a> {
    /// A batch with room for so many pictures, fewer where their keys and values are large.
    fn open(
        generator: &'a engine::Generator,
        drafts: Drafts<&'a engine::Generator>,
        pictures: usize,
    ) -> Result<Box<dyn Batch + Send + 'a>, PipelineError> {
        // A guided picture is two sequences.
        let picture_bytes = 2 * generator.config().layout.len() * generator.position_bytes();
        let pictures = pictures.min(CACHE_BYTES / picture_bytes).max(1);
        Ok(Box::new(Self {
            scheduler: Scheduler::new(generator, pictures)?.with_drafts(drafts, DRAFTED)?,
            jobs: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 0,
            room: pictures,
            events: Vec::new(),
        }))
    }

    /// Forgets a job that has ended and gives its picture's number.
    fn end(&mut self, job: JobId) -> Option<usize> {
        let picture = self.numbers.remove(&job)?;
        self.jobs.remove(&picture);
        Some(picture)
    }
}

impl Batch for CpuBatch<'_> {
    fn submit(
        &mut self,
        request: &Request,
        sampling: &SamplingConfig,
    ) -> Result<usize, GenerateError> {
        let job = self.scheduler.submit(request.clone(), *sampling)?;
        let picture = self.next;
        self.next += 1;
        self.jobs.insert(picture, job);
        self.numbers.insert(job, picture);
        Ok(picture)
    }

    fn cancel(&mut self, picture: usize) -> bool {
        let Some(job) = self.jobs.remove(&picture) else { return false };
        self.numbers.remove(&job);
        self.scheduler.cancel(job)
    }

    fn step(&mut self, events: &mut Vec<Event>) {
        let mut happened = std::mem::take(&mut self.events);
        self.scheduler.step(&mut happened);
        events.extend(happened.drain(..).filter_map(|event| {
            Some(match event {
                scheduler::Event::Row { job, tokens } => {
                    Event::Row { picture: *self.numbers.get(&job)?, tokens }
                }
                scheduler::Event::Finished { job, tokens } => {
                    Event::Finished { picture: self.end(job)?, tokens }
                }
                scheduler::Event::Failed { job, error } => {
                    Event::Failed { picture: self.end(job)?, error }
                }
            })
        }));
        self.events = happened;
    }

    fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    fn room(&self) -> usize {
        self.room
    }

    fn decided(&self) -> usize {
        self.scheduler.decided()
    }
}
