//! Continuous batching: requests join and leave a running batch at any step.

use std::{collections::VecDeque, ops::Range};

use generator::{GenerateError, Request, SamplingConfig, choose, guidance};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::{
    drafts::{Drafting, Drafts},
    sequence::{Choosing, POSITIONS, SequenceModel, Step},
};

/// A request that a [`Scheduler`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// What has happened to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prefix, or a row of the grid, is decided. Forced tokens are not told.
    Row {
        /// The request.
        job: JobId,
        /// The sequence so far, up to the end of the row.
        tokens: Vec<CodebookIndex>,
    },
    /// A picture has all of its tokens.
    Finished {
        /// The request.
        job: JobId,
        /// The whole sequence.
        tokens: Vec<CodebookIndex>,
    },
    /// A picture's logits are not numbers, and the others go on; or the device that computes has
    /// failed, which ends all that are being drawn.
    Failed {
        /// The request.
        job: JobId,
        /// What happened.
        error: GenerateError,
    },
}

impl Event {
    /// The request that it tells of.
    const fn job(&self) -> JobId {
        match self {
            Self::Row { job, .. } | Self::Finished { job, .. } | Self::Failed { job, .. } => *job,
        }
    }
}

/// One sequence on its way through the model.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) slot: usize,
    /// How many of the ids are the condition.
    pub(crate) condition: usize,
    /// The condition, the tokens decided so far, and those that are tried.
    pub(crate) ids: Vec<usize>,
    /// How many of them the model has seen.
    pub(crate) seen: usize,
    /// How many of them the drafts' model has seen.
    pub(crate) seen_by_drafter: usize,
    /// How many the model reads in this step.
    pub(crate) reads: usize,
}

impl Stream {
    pub(crate) fn pending(&self) -> usize {
        self.ids.len() - self.seen
    }

    fn condition(&self) -> &[usize] {
        &self.ids[..self.condition]
    }

    /// Positions of the condition that sequences of the same one share: all but the last, whose result
    /// chooses the first token.
    fn shared(&self) -> usize {
        self.condition - 1
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    id: JobId,
    request: Request,
    sampling: SamplingConfig,
    pub(crate) tokens: Vec<CodebookIndex>,
    /// What is tried after them.
    pub(crate) drafts: Vec<CodebookIndex>,
    /// What the step before chose for the places after the next one.
    pub(crate) guesses: Vec<CodebookIndex>,
    pub(crate) conditional: Stream,
    pub(crate) unconditional: Option<Stream>,
    /// Of this step: its choices, one after each draft and one before.
    pub(crate) choices: Range<usize>,
}

impl Job {
    /// Whether the unconditional half has a part in a token.
    pub(crate) fn is_guided(&self, token: usize, length: usize) -> bool {
        self.unconditional.is_some() && scale(&self.sampling, token, length) != 1.0
    }

    /// The sequences that have a part in the next token.
    pub(crate) fn streams_mut(&mut self, length: usize) -> impl Iterator<Item = &mut Stream> {
        let guided = self.is_guided(self.tokens.len(), length);
        let unconditional = self.unconditional.as_mut().filter(|_| guided);
        std::iter::once(&mut self.conditional).chain(unconditional)
    }

    pub(crate) fn all_streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        std::iter::once(&mut self.conditional).chain(&mut self.unconditional)
    }

    /// Tries a token more.
    pub(crate) fn try_next(&mut self, token: CodebookIndex) {
        self.drafts.push(token);
        self.all_streams_mut().for_each(|stream| stream.ids.push(token.into()));
    }

    /// How many tokens can be tried beside the next one: of no use are those beyond the end, and
    /// those whose halves are others.
    pub(crate) fn room(&mut self, length: usize) -> usize {
        let next = self.tokens.len();
        let guided = self.is_guided(next, length);
        let alike = (next..length).take_while(|&token| self.is_guided(token, length) == guided);
        let alike = alike.count().saturating_sub(1);
        let pending = self.streams_mut(length).map(|stream| stream.pending()).max();
        alike.min(POSITIONS.saturating_sub(pending.unwrap_or(0)))
    }
}

/// A token to be chosen in a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Index of its job among those running.
    pub(crate) job: usize,
    /// Its index among the picture's tokens.
    pub(crate) token: usize,
    /// Which of the step's logits are the conditional ones.
    pub(crate) conditional: usize,
    /// And which the unconditional ones, where they have a part.
    pub(crate) unconditional: Option<usize>,
}

/// What is chosen: a token, unless the logits are not numbers.
pub(crate) type Choice = Option<CodebookIndex>;

#[derive(Debug)]
pub(crate) struct Sampler {
    /// Tokens of a sequence.
    length: usize,
    conditional: Vec<f32>,
    unconditional: Vec<f32>,
}

/// Draws pictures on request, many at a time, each as if it were alone: a picture's tokens depend
/// only on its own [`Request`] and [`SamplingConfig`], to the bit within one model and precision.
///
/// It owns the model that it drives, or a reference or [`Arc`](std::sync::Arc) of it.
///
/// Pictures of one condition of several ids, a prompt, share what the model has seen of it: it is computed
/// once, and copied to the slots of the others. Prompts of one length have the same unconditional half.
///
/// A guided picture takes two slots of the model's session, any other one. The unconditional half is
/// left out of a step while its weight is exactly zero: at guidance 1, and for the first tokens of
/// the schedule, whose positions it catches up on in one later step.
pub struct Scheduler<M: SequenceModel> {
    model: M,
    session: M::Session,
    drafting: Drafting<M>,
    /// Most ids of a condition.
    condition: usize,
    slots: usize,
    free: Vec<usize>,
    /// For each slot the condition whose shared positions it holds, also after its picture has left.
    held: Vec<Vec<usize>>,
    waiting: VecDeque<(JobId, Request, SamplingConfig)>,
    running: Vec<Job>,
    places: Vec<Place>,
    choices: Vec<Choice>,
    samplers: Vec<Sampler>,
    next: u64,
    /// Whether the model is still computing what the last step began (see [`Chooser::choose`]).
    ///
    /// [`Chooser::choose`]: crate::sequence::Chooser::choose
    computing: bool,
    /// Requests that were cancelled while it computes. They leave once it has finished.
    cancelled: Vec<JobId>,
}

impl<M: SequenceModel> std::fmt::Debug for Scheduler<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (running, waiting) = (self.running.len(), self.waiting.len());
        write!(formatter, "Scheduler {{ {running} running, {waiting} waiting }}")
    }
}

impl<M: SequenceModel> Scheduler<M> {
    /// A scheduler with room for `pictures` guided pictures at a time, at least one, whose
    /// conditions have one id, as classes do.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn new(model: M, pictures: usize) -> Result<Self, GenerateError> {
        Self::with_conditions(model, pictures, 1)
    }

    /// [`new`](Self::new) for conditions of up to `condition` ids.
    ///
    /// # Errors
    /// If there is no memory for so many pictures.
    pub fn with_conditions(
        model: M,
        pictures: usize,
        condition: usize,
    ) -> Result<Self, GenerateError> {
        let (slots, condition) = (2 * pictures.max(1), condition.max(1));
        let sampler = || Sampler {
            length: model.layout().len(),
            conditional: vec![0.0; model.codes()],
            unconditional: vec![0.0; model.codes()],
        };
        Ok(Self {
            session: model.session(condition, slots)?,
            drafting: Drafting::none(),
            condition,
            slots,
            free: (0..slots).rev().collect(),
            held: vec![Vec::new(); slots],
            waiting: VecDeque::new(),
            running: Vec::new(),
            places: Vec::new(),
            choices: Vec::new(),
            samplers: (0..model.pool().threads()).map(|_| sampler()).collect(),
            next: 0,
            computing: false,
            cancelled: Vec::new(),
            model,
        })
    }

    /// Tries up to `window` drafted tokens a picture and step, fewer where many pictures are drawn.
    ///
    /// # Errors
    /// If there is no memory for what another model has seen.
    ///
    /// # Panics
    /// If the drafts' model has other codes or another layout.
    pub fn with_drafts(mut self, drafts: Drafts<M>, window: usize) -> Result<Self, GenerateError> {
        self.drafting = Drafting::new(&self.model, drafts, window, (self.condition, self.slots))?;
        Ok(self)
    }

    /// The model that it drives.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Takes a request; it waits until there is room.
    ///
    /// # Errors
    /// If it asks for what the model cannot draw, or its condition is too long.
    pub fn submit(
        &mut self,
        request: Request,
        sampling: SamplingConfig,
    ) -> Result<JobId, GenerateError> {
        check(&self.model, self.condition, &request, &sampling)?;
        let id = JobId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request, sampling));
        Ok(id)
    }

    /// Cancels a request; no more events follow. Returns whether it was still waiting or running.
    pub fn cancel(&mut self, job: JobId) -> bool {
        if let Some(place) = self.waiting.iter().position(|(id, ..)| *id == job) {
            self.waiting.remove(place);
            return true;
        }
        match self.running.iter().position(|running| running.id == job) {
            Some(_) if self.cancelled.contains(&job) => false,
            Some(_) if self.computing => {
                // The model is computing for all that run, so none may leave yet.
                self.cancelled.push(job);
                true
            }
            Some(place) => {
                self.leave(place);
                true
            }
            None => false,
        }
    }

    /// Whether there is nothing left to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Pictures that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Pictures that are being drawn.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Tokens of these pictures that are decided, forced ones included.
    pub fn decided(&self) -> usize {
        self.running.iter().map(|job| job.tokens.len()).sum()
    }

    fn leave(&mut self, place: usize) -> Job {
        let job = self.running.remove(place);
        self.free.push(job.conditional.slot);
        self.free.extend(job.unconditional.as_ref().map(|stream| stream.slot));
        // The lowest slots are taken first, so that few sequences stay close together.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        job
    }

    /// Lets those in who have waited longest, as far as there is room.
    fn admit(&mut self, events: &mut Vec<Event>) {
        let length = self.model.layout().len();
        while let Some((_, request, sampling)) = self.waiting.front() {
            if request.forced.len() == length {
                if let Some((job, request, _)) = self.waiting.pop_front() {
                    events.push(Event::Finished { job, tokens: request.forced });
                }
                continue;
            }
            let guided = guidance::is_guided(sampling.guidance);
            if self.free.len() < 1 + usize::from(guided) {
                return;
            }
            let Some((id, request, sampling)) = self.waiting.pop_front() else { return };
            let mut stream = |mut ids: Vec<usize>| {
                let condition = ids.len();
                // A slot that holds the condition already, else the lowest one.
                let holds = |&slot: &usize| condition > 1 && self.held[slot] == ids;
                let place = self.free.iter().rposition(holds).unwrap_or(self.free.len() - 1);
                let slot = self.free.remove(place);
                if self.held[slot] != ids {
                    self.held[slot].clear();
                }
                ids.reserve(length);
                ids.extend(request.forced.iter().map(|&token| usize::from(token)));
                Stream { slot, condition, ids, seen: 0, seen_by_drafter: 0, reads: 0 }
            };
            let [ids, others] = self
                .model
                .condition_ids(&request.condition)
                .expect("the condition was looked at when the request came");
            let conditional = stream(ids);
            let unconditional = guided.then(|| stream(others));
            let mut tokens = Vec::with_capacity(length);
            tokens.extend(&request.forced);
            self.running.push(Job {
                id,
                request,
                sampling,
                tokens,
                drafts: Vec::new(),
                guesses: Vec::new(),
                conditional,
                unconditional,
                choices: 0..0,
            });
        }
    }

    /// Decides the next token of every running picture, or several, or reads some of its forced
    /// ones, in one pass over the weights, and appends what has happened.
    pub fn step(&mut self, events: &mut Vec<Event>) {
        if !self.computing {
            self.admit(events);
        }
        if self.running.is_empty() {
            return;
        }
        let first = events.len();
        let advanced = self.advance();
        self.computing = matches!(advanced, Ok(false));
        match advanced {
            Ok(false) => return,
            Ok(true) => self.tell(events),
            Err(error) => self.fail(&error, events),
        }
        for job in std::mem::take(&mut self.cancelled) {
            self.cancel(job);
            let mut place = 0;
            events.retain(|event| {
                place += 1;
                place <= first || event.job() != job
            });
        }
    }

    /// Ends all running pictures, because what the model has seen of them is lost.
    fn fail(&mut self, error: &GenerateError, events: &mut Vec<Event>) {
        while !self.running.is_empty() {
            let job = self.leave(0);
            events.push(Event::Failed { job: job.id, error: error.clone() });
        }
        self.held.iter_mut().for_each(Vec::clear);
    }

    /// One pass over the weights, and the choices after it. Returns false while the model is still
    /// computing them.
    ///
    /// # Errors
    /// If the device fails.
    fn advance(&mut self) -> Result<bool, GenerateError> {
        if !self.computing {
            self.draft()?;
            self.share()?;
        }
        let Self { model, session, drafting, running, places, held, .. } = self;
        let (length, most) = (model.layout().len(), model.most_positions());
        let mut logits = 0;
        // Tokens of each picture that a model which chooses by itself can choose at a time.
        let mut room = usize::MAX;
        // Slots whose condition is being read; others of the same one wait for it.
        let mut reading: Vec<usize> = Vec::new();
        places.clear();
        for (index, job) in running.iter_mut().enumerate() {
            job.all_streams_mut().for_each(|stream| stream.reads = 0);
            let mut whole = true;
            for stream in job.streams_mut(length) {
                // What is left to read where it does not wait.
                stream.reads = stream.pending();
                if stream.seen < stream.shared() {
                    if reading.iter().any(|&slot| held[slot] == stream.condition()) {
                        stream.reads = 0;
                    } else {
                        held[stream.slot].clear();
                        held[stream.slot].extend(&stream.ids[..stream.condition]);
                        reading.push(stream.slot);
                    }
                }
                whole &= (1..=most).contains(&stream.reads);
            }
            let mut parts = 0;
            for stream in job.streams_mut(length) {
                if !whole && stream.reads > 0 {
                    // The last one is read together with the other half's.
                    stream.reads = most.min(stream.reads - 1);
                }
                parts += 1;
            }
            let (first, next) = (places.len(), job.tokens.len());
            room = room.min(if whole { 1 + job.room(length) } else { 1 });
            if whole {
                let count = job.drafts.len() + 1;
                places.extend((0..count).map(|draft| Place {
                    job: index,
                    token: next + draft,
                    conditional: logits + draft,
                    unconditional: (parts == 2).then_some(logits + count + draft),
                }));
                logits += parts * count;
            }
            job.choices = first..places.len();
        }
        let steps: Vec<Step<'_>> = running
            .iter()
            .flat_map(|job| {
                let streams = std::iter::once(&job.conditional).chain(&job.unconditional);
                streams.filter(|stream| stream.reads > 0).map(|stream| Step {
                    slot: stream.slot,
                    condition: stream.condition,
                    start: stream.seen,
                    ids: &stream.ids[stream.seen..stream.seen + stream.reads],
                    logits: job.choices.len(),
                })
            })
            .collect();
        let chooser = model.chooser().filter(|_| drafting.is_none());
        let positions = steps.iter().map(|step| step.ids.len()).sum();
        let most = chooser.map_or(0, |own| own.most_choices(session, positions, places.len()));
        let count = room.min(most);
        let chosen = match chooser.filter(|_| count > 0 && !places.is_empty()) {
            None => {
                model.step(session, &steps)?;
                None
            }
            Some(chooser) => {
                let pictures: Vec<Choosing<'_>> = places
                    .iter()
                    .map(|place| Choosing {
                        conditional: place.conditional,
                        unconditional: place.unconditional,
                        token: place.token,
                        request: &running[place.job].request,
                        sampling: &running[place.job].sampling,
                    })
                    .collect();
                match chooser.choose(session, &steps, &pictures, count)? {
                    // Nothing has changed, so that the next call does the same step.
                    None => return Ok(false),
                    chosen => chosen,
                }
            }
        };
        if let Some(chosen) = &chosen {
            for job in running.iter_mut().filter(|job| !job.choices.is_empty()) {
                let first = job.choices.start * count;
                job.choices = first..first + count;
                // All but the last have been read, as drafts that turned out right.
                let read = chosen[first..][..count - 1].iter().map_while(|token| *token);
                let before = job.drafts.len();
                read.for_each(|token| job.try_next(token));
                let read = job.drafts.len() - before;
                let streams = job.all_streams_mut().filter(|stream| stream.reads > 0);
                streams.for_each(|stream| stream.reads += read);
            }
        }
        for stream in running.iter_mut().flat_map(Job::all_streams_mut) {
            stream.seen += stream.reads;
            if stream.seen < stream.shared() {
                // Nobody may take it for whole.
                held[stream.slot].clear();
            }
        }
        let (choices, samplers) = (&mut self.choices, &mut self.samplers);
        if let Some(chosen) = chosen {
            *choices = chosen;
            return Ok(true);
        }
        choose_all(model, session, running, places, choices, samplers);
        Ok(true)
    }

    /// Gives those that have seen nothing yet what others have seen of the same condition.
    fn share(&mut self) -> Result<(), GenerateError> {
        let Self { model, session, running, held, .. } = self;
        for stream in running.iter_mut().flat_map(Job::all_streams_mut) {
            let (slot, shared) = (stream.slot, stream.shared());
            if stream.seen > 0 || shared == 0 {
                continue;
            }
            if held[slot] != stream.condition() {
                let other = held.iter().position(|held| held == stream.condition());
                held[slot].clear();
                let Some(other) = other else { continue };
                model.share(session, other, slot, shared)?;
                held[slot].extend(&stream.ids[..stream.condition]);
            }
            stream.seen = shared;
        }
        Ok(())
    }

    /// Finds tokens to try after those that are decided.
    fn draft(&mut self) -> Result<(), GenerateError> {
        let Self { model, session, drafting, running, places, choices, samplers, .. } = self;
        drafting.draft(model, session, running, places, choices, samplers)
    }

    /// Takes the choices in and tells of rows and pictures that are whole.
    fn tell(&mut self, events: &mut Vec<Event>) {
        let layout = self.model.layout();
        let mut place = 0;
        while place < self.running.len() {
            let job = &mut self.running[place];
            let drafts = std::mem::take(&mut job.drafts);
            let before = job.tokens.len();
            let choices = &self.choices[job.choices.clone()];
            let mut failed = None;
            for (index, choice) in choices.iter().enumerate() {
                let Some(token) = *choice else {
                    failed = Some(GenerateError::NotANumber { token: job.tokens.len() });
                    break;
                };
                job.tokens.push(token);
                let count = job.tokens.len();
                if (0..=layout.rows()).any(|row| layout.len_of_rows(row) == count) {
                    events.push(Event::Row { job: job.id, tokens: job.tokens.clone() });
                }
                if drafts.get(index) != Some(&token) {
                    // What follows was computed after another token than this one.
                    job.guesses = choices[index + 1..].iter().map_while(|choice| *choice).collect();
                    break;
                }
            }
            // The last token is new even where a draft was the same.
            let (count, known) = (job.tokens.len(), job.tokens.len().max(before + 1) - 1);
            let newest = job.tokens[known..count].first().copied();
            for stream in job.all_streams_mut() {
                let valid = stream.condition + known;
                stream.ids.truncate(valid);
                stream.seen = stream.seen.min(valid);
                stream.seen_by_drafter = stream.seen_by_drafter.min(valid);
                stream.ids.extend(newest.map(usize::from));
            }
            if let Some(error) = failed {
                let job = self.leave(place);
                events.push(Event::Failed { job: job.id, error });
            } else if count == layout.len() {
                let job = self.leave(place);
                events.push(Event::Finished { job: job.id, tokens: job.tokens });
            } else {
                place += 1;
            }
        }
    }
}

/// Checks that a model with room for conditions of `room` ids can draw a picture.
///
/// # Errors
/// If the request asks for what the model cannot draw, or its condition is too long.
pub(crate) fn check<M: SequenceModel>(
    model: &M,
    room: usize,
    request: &Request,
    sampling: &SamplingConfig,
) -> Result<(), GenerateError> {
    model.validate(request, sampling)?;
    let [ids, _] = model.condition_ids(&request.condition)?;
    match ids.len() {
        ids if ids > room => Err(GenerateError::ConditionRoom { ids, room }),
        _ => Ok(()),
    }
}

/// Chooses the tokens of these places from a session's logits.
pub(crate) fn choose_all<M: SequenceModel>(
    model: &M,
    session: &M::Session,
    running: &[Job],
    places: &[Place],
    choices: &mut Vec<Choice>,
    samplers: &mut [Sampler],
) {
    choices.clear();
    choices.resize(places.len(), None);
    let Some(first) = samplers.first() else { return };
    // A number of the noise costs some forty multiplications.
    let pool = model.pool().for_work(places.len() * first.conditional.len() * 40);
    pool.pieces(choices, 1, samplers, |index, choice, sampler| {
        let place = places[index];
        let Job { request, sampling, .. } = &running[place.job];
        model.logits(session, place.conditional, &mut sampler.conditional);
        if let Some(unconditional) = place.unconditional {
            model.logits(session, unconditional, &mut sampler.unconditional);
            let scale = scale(sampling, place.token, sampler.length);
            guidance::guide(&mut sampler.conditional, &sampler.unconditional, scale);
        }
        let mut noise =
            Noise::new(request.seed, Purpose::Sampling, place.token as u64, request.index);
        choice[0] = choose(&sampler.conditional, sampling, &mut noise);
    });
}

fn scale(sampling: &SamplingConfig, token: usize, length: usize) -> f64 {
    guidance::scale(sampling.guidance, sampling.guidance_power, token, length)
}
