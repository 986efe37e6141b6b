//! The engine for the CPU behind the pipeline's traits.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use engine::{Drafts, JobId, Scheduler, SequenceModel, Workspace, scheduler};
use generator::{GenerateError, Request, SamplingConfig};
use pixels::Picture;
use tokenizer::{DecoderKind, TokenizerConfig};
use tokens::{CodebookIndex, TokenLayout};

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
    fn layout(&self) -> TokenLayout {
        self.generator.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        let drafts = match &self.drafts {
            Drafts::None => Drafts::None,
            Drafts::Own => Drafts::Own,
            Drafts::Of(drafter) => Drafts::Of(&**drafter),
        };
        let position = self.generator.position_bytes();
        CpuBatch::open(&self.generator, drafts, pictures, condition, position)
    }
}

impl Draw for engine::Generator {
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        CpuBatch::open(self, Drafts::None, pictures, condition, self.position_bytes())
    }
}

/// Ids of a prompt that a batch has room for where prompts are not known before.
pub const PROMPT_ROOM: usize = 512;

impl Draw for engine::LanguageModel {
    fn layout(&self) -> TokenLayout {
        self.config().layout
    }

    fn condition_room(&self) -> usize {
        self.config().most_prompt_ids().min(PROMPT_ROOM)
    }

    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError> {
        CpuBatch::open(self, Drafts::None, pictures, condition, self.position_bytes())
    }
}

/// A scheduler whose jobs are numbered.
struct CpuBatch<'a, M: SequenceModel> {
    scheduler: Scheduler<&'a M>,
    jobs: BTreeMap<usize, JobId>,
    numbers: BTreeMap<JobId, usize>,
    /// The number of the next picture.
    next: usize,
    room: usize,
    events: Vec<scheduler::Event>,
}

impl<'a, M: SequenceModel> CpuBatch<'a, M> {
    /// A batch with room for so many pictures, whose conditions have up to `condition` ids; fewer where
    /// their keys and values are large.
    fn open(
        model: &'a M,
        drafts: Drafts<&'a M>,
        pictures: usize,
        condition: usize,
        position_bytes: usize,
    ) -> Result<Box<dyn Batch + Send + 'a>, PipelineError> {
        // A guided picture is two sequences.
        let picture_bytes = 2 * (condition + model.layout().len()) * position_bytes;
        let pictures = pictures.min(CACHE_BYTES / picture_bytes).max(1);
        let scheduler = Scheduler::with_conditions(model, pictures, condition)?;
        Ok(Box::new(Self {
            scheduler: scheduler.with_drafts(drafts, DRAFTED)?,
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

impl<M: SequenceModel> Batch for CpuBatch<'_, M> {
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
