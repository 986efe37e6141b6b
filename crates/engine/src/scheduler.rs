//! Continuous batching: requests join and leave a running batch at any step.

use std::collections::VecDeque;

use generator::{GenerateError, Request, SamplingConfig, choose, guidance};
use tokens::{
    CodebookIndex,
    noise::{Noise, Purpose},
};

use crate::generator::{Generator, POSITIONS, Session, Step};

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

/// One sequence on its way through the generator.
#[derive(Debug)]
struct Stream {
    slot: usize,
    /// The class, then the tokens decided so far.
    ids: Vec<usize>,
    /// How many of them the generator has seen.
    seen: usize,
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
    conditional: Stream,
    unconditional: Option<Stream>,
    /// Of this step: which logits are the conditional and the unconditional ones.
    logits: Option<(usize, Option<usize>)>,
}

/// What comes of a job in a step.
type Choice = Option<Option<CodebookIndex>>;

#[derive(Debug, Default)]
struct Sampler {
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
    free: Vec<usize>,
    waiting: VecDeque<(JobId, Request, SamplingConfig)>,
    running: Vec<Job>,
    choices: Vec<Choice>,
    samplers: Vec<Sampler>,
    next: u64,
}

impl<'a> Scheduler<'a> {
    /// A scheduler with room for `pictures` guided pictures at a time, at least one.
    pub fn new(generator: &'a Generator, pictures: usize) -> Self {
        let slots = 2 * pictures.max(1);
        let sampler = || Sampler {
            conditional: vec![0.0; generator.config().codes],
            unconditional: vec![0.0; generator.config().codes],
        };
        Self {
            generator,
            session: generator.session(slots),
            free: (0..slots).rev().collect(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            choices: Vec::new(),
            samplers: (0..generator.pool().threads()).map(|_| sampler()).collect(),
            next: 0,
        }
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
            let mut stream = |id: usize| {
                let mut ids = Vec::with_capacity(config.layout.len() + 1);
                ids.push(id);
                ids.extend(request.forced.iter().map(|&token| usize::from(token)));
                let slot = self.free.pop().expect("there are free slots, as was checked");
                Stream { slot, ids, seen: 0 }
            };
            let class = vocabulary.class(request.class).expect("the request was validated");
            let conditional = stream(class);
            let unconditional = guided.then(|| stream(vocabulary.unconditional()));
            let mut tokens = Vec::with_capacity(config.layout.len());
            tokens.extend(&request.forced);
            self.running.push(Job {
                id,
                request,
                sampling,
                tokens,
                conditional,
                unconditional,
                logits: None,
            });
        }
    }

    /// Decides the next token of every running picture, or reads some of its forced ones, in one
    /// pass over the weights, and appends what there is to tell.
    pub fn step(&mut self, events: &mut Vec<Event>) {
        self.admit(events);
        if self.running.is_empty() {
            return;
        }
        let length = self.generator.config().layout.len();
        let mut steps: Vec<Step<'_>> = Vec::with_capacity(2 * self.running.len());
        let mut wanted = 0;
        for job in &mut self.running {
            let Job { sampling, tokens, conditional, unconditional, logits, .. } = job;
            let scale = scale(sampling, tokens.len(), length);
            let unconditional = unconditional.as_ref().filter(|_| scale != 1.0);
            let streams = [Some(&*conditional), unconditional];
            let whole = streams.iter().flatten().all(|stream| stream.pending() <= POSITIONS);
            *logits = whole.then(|| {
                let first = wanted;
                wanted += 1 + usize::from(unconditional.is_some());
                (first, unconditional.map(|_| first + 1))
            });
            for stream in streams.into_iter().flatten() {
                // Who is not far behind waits for the other half.
                let count = if whole { stream.pending() } else { POSITIONS };
                if whole || stream.pending() > POSITIONS {
                    steps.push(Step {
                        slot: stream.slot,
                        start: stream.seen,
                        ids: &stream.ids[stream.seen..stream.seen + count],
                        logits: usize::from(whole),
                    });
                }
            }
        }
        self.generator.step(&mut self.session, &steps);
        let done: Vec<(usize, usize)> =
            steps.iter().map(|step| (step.slot, step.start + step.ids.len())).collect();
        for job in &mut self.running {
            for stream in [Some(&mut job.conditional), job.unconditional.as_mut()] {
                let Some(stream) = stream else { continue };
                if let Some(&(_, seen)) = done.iter().find(|(slot, _)| *slot == stream.slot) {
                    stream.seen = seen;
                }
            }
        }
        self.choose();
        self.tell(events);
    }

    /// Chooses the next token of each picture that has logits.
    fn choose(&mut self) {
        let Self { session, running, choices, samplers, generator, .. } = self;
        let (codes, length) = (generator.config().codes, generator.config().layout.len());
        choices.clear();
        choices.resize(running.len(), None);
        // A number of the noise costs some forty multiplications.
        let pool = generator.pool().for_work(running.len() * codes * 40);
        pool.pieces(choices, 1, samplers, |index, choice, sampler| {
            let job = &running[index];
            let Some((first, second)) = job.logits else { return };
            let token = job.tokens.len();
            session.logits(first, &mut sampler.conditional);
            if let Some(second) = second {
                session.logits(second, &mut sampler.unconditional);
                let scale = scale(&job.sampling, token, length);
                guidance::guide(&mut sampler.conditional, &sampler.unconditional, scale);
            }
            let Request { seed, index, .. } = job.request;
            let mut noise = Noise::new(seed, Purpose::Sampling, token as u64, index);
            choice[0] = Some(choose(&sampler.conditional, &job.sampling, &mut noise));
        });
    }

    /// Takes the choices in and tells of rows and pictures that are whole.
    fn tell(&mut self, events: &mut Vec<Event>) {
        let layout = self.generator.config().layout;
        let mut place = 0;
        for choice in 0..self.choices.len() {
            let job = &mut self.running[place];
            match self.choices[choice] {
                None => place += 1,
                Some(None) => {
                    let error = GenerateError::NotANumber { token: job.tokens.len() };
                    events.push(Event::Failed { job: job.id, error });
                    self.leave(place);
                }
                Some(Some(token)) => {
                    job.tokens.push(token);
                    job.conditional.ids.push(token.into());
                    if let Some(stream) = &mut job.unconditional {
                        stream.ids.push(token.into());
                    }
                    let count = job.tokens.len();
                    if (0..=layout.rows()).any(|row| layout.len_of_rows(row) == count) {
                        events.push(Event::Row { job: job.id, tokens: job.tokens.clone() });
                    }
                    if count == layout.len() {
                        let job = self.leave(place);
                        events.push(Event::Finished { job: job.id, tokens: job.tokens });
                    } else {
                        place += 1;
                    }
                }
            }
        }
    }
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
/// If an option, a class or a forced token is out of range, before anything is computed; or if
/// the model's logits are not numbers.
pub fn generate(
    generator: &Generator,
    requests: &[Request],
    sampling: &SamplingConfig,
    pictures: usize,
    mut progress: impl FnMut(Progress),
) -> Result<Vec<Vec<CodebookIndex>>, GenerateError> {
    sampling.validate()?;
    let mut scheduler = Scheduler::new(generator, pictures.min(requests.len()));
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
