//! Continuous batching: requests join and leave a running batch at any step.

use std::{collections::VecDeque, ops::Range};

use generator::{GenerateError, GeneratorConfig, Request, SamplingConfig, choose, guidance};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::{
    generator::{Generator, POSITIONS, Session, Step},
    parallel::Pool,
};

/// A request that a [`Scheduler`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

/// What a [`Scheduler`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prefix, or a row of the grid, is decided. Forced tokens are not told.
    Row {
        /// Whose it is.
        job: JobId,
        /// The sequence so far, up to the end of the row.
        tokens: Vec<CodebookIndex>,
    },
    /// A picture has all of its tokens.
    Finished {
        /// Whose they are.
        job: JobId,
        /// The whole sequence.
        tokens: Vec<CodebookIndex>,
    },
    /// A picture's logits are not numbers; the others go on.
    Failed {
        /// Whose they are.
        job: JobId,
        /// What happened.
        error: GenerateError,
    },
}

/// Where the tokens come from that a step tries beside the next one (speculative decoding).
///
/// The noise of every token is fixed by its address, so that what a token will be is settled before
/// it is computed. A step computes the logits after some drafted tokens too, in the same pass over
/// the weights, and keeps them as far as the drafts are what was chosen. Rows have the same bits
/// among any number of rows: the result is that of one token at a time, to the bit.
#[derive(Debug, Clone, Copy)]
pub enum Drafts<'a> {
    /// Nothing is tried.
    None,
    /// What the step before chose for these places, after drafts that turned out wrong (Jacobi
    /// decoding; Song et al. 2021, Santilli et al. 2023).
    Own,
    /// What another generator chooses with the same noise: a smaller one, or the same in a format
    /// that is faster to read (speculative decoding; Leviathan et al. 2023).
    Of(&'a Generator),
}

/// Most rows of a step that drafts may fill it up to: so many cost little more than one.
const DRAFT_ROWS: usize = 16;

/// The drafts' side of a scheduler.
#[derive(Debug)]
struct Drafting<'a> {
    drafts: Drafts<'a>,
    /// Most tokens tried at a time.
    window: usize,
    /// What the other generator has seen, in the slots of the first one's session.
    session: Option<Session>,
}

/// One sequence on its way through the generator.
#[derive(Debug)]
struct Stream {
    slot: usize,
    /// The class, the tokens decided so far, and those that are tried.
    ids: Vec<usize>,
    /// How many of them the generator has seen.
    seen: usize,
    /// How many of them the drafts' generator has seen.
    seen_by_drafter: usize,
    /// How many the generator reads in this step.
    reads: usize,
}

impl Stream {
    fn pending(&self) -> usize {
        self.ids.len() - self.seen
    }
}

#[derive(Debug)]
struct Job {
    id: JobId,
    request: Request,
    sampling: SamplingConfig,
    tokens: Vec<CodebookIndex>,
    /// What is tried after them.
    drafts: Vec<CodebookIndex>,
    /// What the step before chose for the places after the next one.
    guesses: Vec<CodebookIndex>,
    conditional: Stream,
    unconditional: Option<Stream>,
    /// Of this step: its choices, one after each draft and one before.
    choices: Range<usize>,
}

impl Job {
    /// Whether the unconditional half has a part in a token.
    fn is_guided(&self, token: usize, length: usize) -> bool {
        self.unconditional.is_some() && scale(&self.sampling, token, length) != 1.0
    }

    /// The sequences that have a part in the next token.
    fn streams_mut(&mut self, length: usize) -> impl Iterator<Item = &mut Stream> {
        let guided = self.is_guided(self.tokens.len(), length);
        let unconditional = self.unconditional.as_mut().filter(|_| guided);
        std::iter::once(&mut self.conditional).chain(unconditional)
    }

    fn all_streams_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        std::iter::once(&mut self.conditional).chain(&mut self.unconditional)
    }

    /// Tries a token more.
    fn try_next(&mut self, token: CodebookIndex) {
        self.drafts.push(token);
        self.all_streams_mut().for_each(|stream| stream.ids.push(token.into()));
    }

    /// How many tokens can be tried beside the next one: of no use are those beyond the end, and
    /// those whose halves are others.
    fn room(&mut self, length: usize) -> usize {
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
struct Place {
    /// Whose it is among those running.
    job: usize,
    /// Its index in the sequence.
    token: usize,
    /// Which of the step's logits are the conditional ones.
    conditional: usize,
    /// And which the unconditional ones, where they have a part.
    unconditional: Option<usize>,
}

/// What is chosen: a token, unless the logits are not numbers.
type Choice = Option<CodebookIndex>;

#[derive(Debug)]
struct Sampler {
    /// Tokens of a sequence.
    length: usize,
    conditional: Vec<f32>,
    unconditional: Vec<f32>,
}

/// Draws pictures on request, many at a time, each as if it were alone: a picture's tokens depend
/// on its own [`Request`] and [`SamplingConfig`], to the bit within one precision.
///
/// A guided picture takes two slots of the generator's cache, another one. The unconditional half
/// is left out of a step while its weight is exactly zero: at guidance 1, and for the first
/// tokens of the schedule, whose positions it catches up on in one later step.
#[derive(Debug)]
pub struct Scheduler<'a> {
    generator: &'a Generator,
    session: Session,
    drafting: Drafting<'a>,
    free: Vec<usize>,
    waiting: VecDeque<(JobId, Request, SamplingConfig)>,
    running: Vec<Job>,
    places: Vec<Place>,
    choices: Vec<Choice>,
    samplers: Vec<Sampler>,
    next: u64,
}

impl<'a> Scheduler<'a> {
    /// A scheduler with room for `pictures` guided pictures at a time, at least one.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn new(generator: &'a Generator, pictures: usize) -> Result<Self, GenerateError> {
        Self::with_drafts(generator, pictures, Drafts::None, 0)
    }

    /// A scheduler that tries up to `window` drafted tokens a picture and step, fewer where many
    /// pictures are drawn.
    ///
    /// # Errors
    /// If there is no memory for so many.
    ///
    /// # Panics
    /// If the drafts' generator has other codes, classes or another layout.
    pub fn with_drafts(
        generator: &'a Generator,
        pictures: usize,
        drafts: Drafts<'a>,
        window: usize,
    ) -> Result<Self, GenerateError> {
        let slots = 2 * pictures.max(1);
        let config = generator.config();
        let sampler = || Sampler {
            length: config.layout.len(),
            conditional: vec![0.0; config.codes],
            unconditional: vec![0.0; config.codes],
        };
        let session = match drafts {
            Drafts::None | Drafts::Own => None,
            Drafts::Of(drafter) => {
                let of = |config: &GeneratorConfig| (config.layout, config.codes, config.classes);
                assert_eq!(of(drafter.config()), of(config), "drafts are tokens of this model");
                Some(drafter.session(slots)?)
            }
        };
        Ok(Self {
            generator,
            session: generator.session(slots)?,
            drafting: Drafting { drafts, window, session },
            free: (0..slots).rev().collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            places: Vec::new(),
            choices: Vec::new(),
            samplers: (0..generator.pool().threads()).map(|_| sampler()).collect(),
            next: 0,
        })
    }

    /// Takes a request; it waits until there is room.
    ///
    /// # Errors
    /// If it asks for what the generator cannot draw.
    pub fn submit(
        &mut self,
        request: Request,
        sampling: SamplingConfig,
    ) -> Result<JobId, GenerateError> {
        request.validate(self.generator.config(), &sampling)?;
        let id = JobId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request, sampling));
        Ok(id)
    }

    /// Forgets a request; nothing more is told of it. Whether it was still known.
    pub fn cancel(&mut self, job: JobId) -> bool {
        if let Some(place) = self.waiting.iter().position(|(id, ..)| *id == job) {
            self.waiting.remove(place);
            return true;
        }
        match self.running.iter().position(|running| running.id == job) {
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
        let config = self.generator.config();
        let vocabulary = config.vocabulary();
        while let Some((_, request, sampling)) = self.waiting.front() {
            if request.forced.len() == config.layout.len() {
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
            let mut stream = |condition: Vec<usize>| {
                let mut ids = condition;
                ids.reserve(config.layout.len());
                ids.extend(request.forced.iter().map(|&token| usize::from(token)));
                let slot = self.free.pop().expect("there are free slots, as was checked");
                Stream { slot, ids, seen: 0, seen_by_drafter: 0, reads: 0 }
            };
            let condition = &request.condition;
            let ids = condition.ids(vocabulary).expect("the request was validated");
            let conditional = stream(ids);
            let unconditional = guided.then(|| stream(condition.unconditional_ids(vocabulary)));
            let mut tokens = Vec::with_capacity(config.layout.len());
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
    /// ones, in one pass over the weights, and appends what there is to tell.
    pub fn step(&mut self, events: &mut Vec<Event>) {
        self.admit(events);
        if self.running.is_empty() {
            return;
        }
        self.draft();
        let Self { generator, session, running, places, .. } = self;
        let length = generator.config().layout.len();
        let mut logits = 0;
        places.clear();
        for (index, job) in running.iter_mut().enumerate() {
            job.all_streams_mut().for_each(|stream| stream.reads = 0);
            let whole = job.streams_mut(length).all(|stream| stream.pending() <= POSITIONS);
            let mut parts = 0;
            for stream in job.streams_mut(length) {
                // Who is not far behind waits for the other half.
                if whole || stream.pending() > POSITIONS {
                    stream.reads = stream.pending().min(POSITIONS);
                }
                parts += 1;
            }
            let (first, next) = (places.len(), job.tokens.len());
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
                    start: stream.seen,
                    ids: &stream.ids[stream.seen..stream.seen + stream.reads],
                    logits: job.choices.len(),
                })
            })
            .collect();
        generator.step(session, &steps);
        for stream in running.iter_mut().flat_map(Job::all_streams_mut) {
            stream.seen += stream.reads;
        }
        choose_all(
            generator.pool(),
            session,
            running,
            places,
            &mut self.choices,
            &mut self.samplers,
        );
        self.tell(events);
    }

    /// Finds tokens to try after those that are decided.
    fn draft(&mut self) {
        let Self { generator, session, drafting, running, places, choices, samplers, .. } = self;
        let length = generator.config().layout.len();
        let streams: usize = running.iter_mut().map(|job| job.streams_mut(length).count()).sum();
        let window = drafting.window.min((DRAFT_ROWS / streams).saturating_sub(1));
        match (drafting.drafts, &mut drafting.session) {
            (Drafts::Of(drafter), Some(session)) => {
                let wanted: Vec<usize> =
                    running.iter_mut().map(|job| job.room(length).min(window)).collect();
                for round in 0..wanted.iter().copied().max().unwrap_or(0) {
                    let waiting = |job: &Job, index: usize| {
                        job.drafts.len() == round && round < wanted[index]
                    };
                    read_with(drafter, session, running, waiting, places, length);
                    choose_all(drafter.pool(), session, running, places, choices, samplers);
                    for (place, choice) in places.iter().zip(choices.iter()) {
                        if let Some(token) = choice {
                            running[place.job].try_next(*token);
                        }
                    }
                }
            }
            (Drafts::Own, _) => {
                // The logits of the step before are still there: the last ones of a picture, with
                // the noise of later tokens, make the first guess.
                let mut guesses = Vec::new();
                for (index, job) in running.iter_mut().enumerate() {
                    let room = job.room(length).min(window);
                    let last = job.choices.clone().last().map(|place| places[place]);
                    let found = std::mem::take(&mut job.guesses);
                    let Some(last) = last else { continue };
                    found.into_iter().take(room).for_each(|token| job.try_next(token));
                    let next = job.tokens.len();
                    guesses.extend((next + job.drafts.len()..next + room).map(|token| Place {
                        job: index,
                        token,
                        ..last
                    }));
                }
                choose_all(generator.pool(), session, running, &guesses, choices, samplers);
                for (place, choice) in guesses.iter().zip(choices.iter()) {
                    let job = &mut running[place.job];
                    if let (Some(token), true) =
                        (choice, job.tokens.len() + job.drafts.len() == place.token)
                    {
                        job.try_next(*token);
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes the choices in and tells of rows and pictures that are whole.
    fn tell(&mut self, events: &mut Vec<Event>) {
        let layout = self.generator.config().layout;
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
                stream.ids.truncate(1 + known);
                stream.seen = stream.seen.min(1 + known);
                stream.seen_by_drafter = stream.seen_by_drafter.min(1 + known);
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

/// Lets a drafts' generator read what it has not seen of the pictures that wait for a draft, and
/// lists the tokens that it can then choose.
fn read_with(
    drafter: &Generator,
    session: &mut Session,
    running: &mut [Job],
    waiting: impl Fn(&Job, usize) -> bool,
    places: &mut Vec<Place>,
    length: usize,
) {
    places.clear();
    let unseen = |stream: &Stream| stream.ids.len() - stream.seen_by_drafter;
    loop {
        // Whoever is far behind comes first, so that all are ready together.
        let mut far = false;
        for (index, job) in running.iter_mut().enumerate() {
            if waiting(job, index) {
                far |= job.streams_mut(length).any(|stream| unseen(stream) > POSITIONS);
            }
        }
        let mut logits = 0;
        for (index, job) in running.iter_mut().enumerate() {
            job.all_streams_mut().for_each(|stream| stream.reads = 0);
            if !waiting(job, index) {
                continue;
            }
            let mut parts = 0;
            for stream in job.streams_mut(length) {
                if !far || unseen(stream) > POSITIONS {
                    stream.reads = unseen(stream).min(POSITIONS);
                }
                parts += 1;
            }
            if !far {
                places.push(Place {
                    job: index,
                    token: job.tokens.len() + job.drafts.len(),
                    conditional: logits,
                    unconditional: (parts == 2).then_some(logits + 1),
                });
                logits += parts;
            }
        }
        let steps: Vec<Step<'_>> = running
            .iter()
            .flat_map(|job| std::iter::once(&job.conditional).chain(&job.unconditional))
            .filter(|stream| stream.reads > 0)
            .map(|stream| Step {
                slot: stream.slot,
                start: stream.seen_by_drafter,
                ids: &stream.ids[stream.seen_by_drafter..][..stream.reads],
                logits: usize::from(!far),
            })
            .collect();
        drafter.step(session, &steps);
        for stream in running.iter_mut().flat_map(Job::all_streams_mut) {
            stream.seen_by_drafter += stream.reads;
        }
        if !far {
            return;
        }
    }
}

/// Chooses the tokens of these places from a session's logits.
fn choose_all(
    pool: &Pool,
    session: &Session,
    running: &[Job],
    places: &[Place],
    choices: &mut Vec<Choice>,
    samplers: &mut [Sampler],
) {
    choices.clear();
    choices.resize(places.len(), None);
    let Some(first) = samplers.first() else { return };
    // A number of the noise costs some forty multiplications.
    let pool = pool.for_work(places.len() * first.conditional.len() * 40);
    pool.pieces(choices, 1, samplers, |index, choice, sampler| {
        let place = places[index];
        let Job { request, sampling, .. } = &running[place.job];
        session.logits(place.conditional, &mut sampler.conditional);
        if let Some(unconditional) = place.unconditional {
            session.logits(unconditional, &mut sampler.unconditional);
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

/// How far [`generate`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pictures whose tokens are all decided.
    pub finished: usize,
    /// Passes over the weights so far.
    pub steps: usize,
}

/// Draws the tokens of each request, in order, `pictures` at a time.
///
/// `progress` is called after every step.
///
/// # Errors
/// If an option, a class or a forced token is out of range or there is no memory, before anything
/// is computed; or if the model's logits are not numbers.
pub fn generate(
    generator: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    pictures: usize,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<Vec<CodebookIndex>>, GenerateError> {
    sampling.validate()?;
    let mut scheduler = Scheduler::new(generator, pictures.min(requests.len()))?;
    for request in requests {
        scheduler.submit(request.clone(), *sampling)?;
    }
    let mut drawn = vec![Vec::new(); requests.len()];
    let mut events = Vec::new();
    let (mut finished, mut steps) = (0, 0);
    while !scheduler.is_idle() {
        scheduler.step(&mut events);
        steps += 1;
        for event in events.drain(..) {
            match event {
                Event::Row { .. } => {}
                Event::Finished { job, tokens } => {
                    drawn[job.0 as usize] = tokens;
                    finished += 1;
                }
                Event::Failed { error, .. } => return Err(error),
            }
        }
        progress(Progress { finished, steps });
    }
    Ok(drawn)
}
