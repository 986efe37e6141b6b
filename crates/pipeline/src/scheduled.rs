//! The batch of an engine: its scheduler behind the pipeline's trait.

use std::collections::BTreeMap;

use engine::{Drafts, JobId, Scheduler, SequenceModel, scheduler};
use generator::{GenerateError, Request, SamplingConfig};

use crate::{Batch, Event, PipelineError};

/// Most bytes of keys and values that pictures have side by side: more pictures at a time would
/// not be drawn faster.
const CACHE_BYTES: u64 = 4 << 30;

/// Tokens that are tried at a time.
const DRAFTED: usize = 3;

/// A scheduler whose jobs are numbered.
pub(crate) struct ScheduledBatch<'a, M: SequenceModel> {
    scheduler: Scheduler<&'a M>,
    jobs: BTreeMap<usize, JobId>,
    numbers: BTreeMap<JobId, usize>,
    /// The number of the next picture.
    next: usize,
    room: usize,
    events: Vec<scheduler::Event>,
}

impl<'a, M: SequenceModel> ScheduledBatch<'a, M> {
    /// A batch with room for so many pictures, whose conditions have up to `condition` ids; fewer where
    /// their keys and values are large.
    pub(crate) fn open(
        model: &'a M,
        drafts: Drafts<&'a M>,
        pictures: usize,
        condition: usize,
        position_bytes: usize,
    ) -> Result<Box<dyn Batch + Send + 'a>, PipelineError> {
        // A guided picture is two sequences.
        let picture_bytes = 2 * (condition + model.layout().len()) as u64 * position_bytes as u64;
        let most = usize::try_from(CACHE_BYTES / picture_bytes).unwrap_or(usize::MAX);
        let pictures = pictures.min(most).max(1);
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

impl<M: SequenceModel> Batch for ScheduledBatch<'_, M> {
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
