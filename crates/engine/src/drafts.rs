//! Tokens that are tried ahead of their turn (speculative decoding).
//!
//! The noise of every token is fixed by its address, so that what a token will be is settled before
//! it is computed. A step computes the logits after some drafted tokens too, in the same pass over
//! the weights, and keeps them as far as the drafts are what was chosen. Rows have the same bits among
//! any number of rows: the result is that of one token at a time, to the bit.

use generator::GenerateError;

use crate::{
    scheduler::{Choice, Job, Place, Sampler, Stream, choose_all},
    sequence::{POSITIONS, SequenceModel, Step},
};

/// Where the tokens come from that a step tries beside the next one.
#[derive(Debug, Clone, Copy)]
pub enum Drafts<M> {
    /// Nothing is tried.
    None,
    /// What the step before chose for these places, after drafts that turned out wrong (Jacobi
    /// decoding; Song et al. 2021, Santilli et al. 2023).
    Own,
    /// What another model chooses with the same noise: a smaller one, or the same in a format that is
    /// faster to read (speculative decoding; Leviathan et al. 2023).
    Of(M),
}

/// Most rows of a step that drafts may fill it up to: so many cost little more than one.
const DRAFT_ROWS: usize = 16;

/// The drafts' side of a scheduler.
pub(crate) struct Drafting<M: SequenceModel> {
    drafts: Drafts<M>,
    /// Most tokens tried at a time.
    window: usize,
    /// What the other model has seen, in the slots of the first one's session.
    session: Option<M::Session>,
}

impl<M: SequenceModel> Drafting<M> {
    /// Nothing is tried.
    pub(crate) fn none() -> Self {
        Self { drafts: Drafts::None, window: 0, session: None }
    }

    /// Whether nothing is tried.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.drafts, Drafts::None)
    }

    /// Drafts for a model, with room for conditions of so many ids and so many sequences.
    ///
    /// # Errors
    /// If there is no memory for what another model has seen.
    ///
    /// # Panics
    /// If the drafts' model has other codes or another layout.
    pub(crate) fn new(
        model: &M,
        drafts: Drafts<M>,
        window: usize,
        (condition, slots): (usize, usize),
    ) -> Result<Self, GenerateError> {
        let session = match &drafts {
            Drafts::None | Drafts::Own => None,
            Drafts::Of(drafter) => {
                let of = |model: &M| (model.layout(), model.codes());
                assert_eq!(of(drafter), of(model), "drafts are tokens of this model");
                Some(drafter.session(condition, slots)?)
            }
        };
        Ok(Self { drafts, window, session })
    }

    /// Finds tokens to try after those that are decided.
    ///
    /// # Errors
    /// If the device of the drafts' model fails.
    pub(crate) fn draft(
        &mut self,
        model: &M,
        session: &M::Session,
        running: &mut [Job],
        places: &mut Vec<Place>,
        choices: &mut Vec<Choice>,
        samplers: &mut [Sampler],
    ) -> Result<(), GenerateError> {
        let length = model.layout().len();
        let streams: usize = running.iter_mut().map(|job| job.streams_mut(length).count()).sum();
        let window = self.window.min((DRAFT_ROWS / streams).saturating_sub(1));
        match (&self.drafts, &mut self.session) {
            (Drafts::Of(drafter), Some(session)) => {
                let wanted: Vec<usize> =
                    running.iter_mut().map(|job| job.room(length).min(window)).collect();
                for round in 0..wanted.iter().copied().max().unwrap_or(0) {
                    let waiting = |job: &Job, index: usize| {
                        job.drafts.len() == round && round < wanted[index]
                    };
                    read_with(drafter, session, running, waiting, places, length)?;
                    choose_all(drafter, session, running, places, choices, samplers);
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
                choose_all(model, session, running, &guesses, choices, samplers);
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
        Ok(())
    }
}

/// Lets a drafts' model read what it has not seen of the pictures that wait for a draft, and
/// lists the tokens that it can then choose.
///
/// # Errors
/// If its device fails.
fn read_with<M: SequenceModel>(
    drafter: &M,
    session: &mut M::Session,
    running: &mut [Job],
    waiting: impl Fn(&Job, usize) -> bool,
    places: &mut Vec<Place>,
    length: usize,
) -> Result<(), GenerateError> {
    places.clear();
    let unseen = |stream: &Stream| stream.ids.len() - stream.seen_by_drafter;
    loop {
        // Those far behind come first, so that all are ready together.
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
                condition: stream.condition,
                start: stream.seen_by_drafter,
                ids: &stream.ids[stream.seen_by_drafter..][..stream.reads],
                logits: usize::from(!far),
            })
            .collect();
        drafter.step(session, &steps)?;
        for stream in running.iter_mut().flat_map(Job::all_streams_mut) {
            stream.seen_by_drafter += stream.reads;
        }
        if !far {
            return Ok(());
        }
    }
}
