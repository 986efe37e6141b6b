//! What a scheduler drives: a model that reads a condition and a picture's tokens one after the other.

use std::{ops::Deref, sync::Arc};

use generator::{Condition, GenerateError, Request, SamplingConfig};
use tokens::{CodebookIndex, TokenLayout};

use crate::parallel::Pool;

/// A model that predicts a picture's tokens from left to right, many sequences at a time.
///
/// A sequence is the ids of a condition, then the picture's tokens as ids. What the model has seen
/// of some sequences is in a session, which the caller owns.
///
/// A sequence's logits must be the same to the bit whatever other sequences are in a step, and
/// whether its positions come one by one or several at a time.
pub trait SequenceModel: Send + Sync {
    /// What the model has seen of some sequences, each in a slot of its own, and the logits of the
    /// last step.
    type Session: Send + Sync;

    /// The layout of a picture's tokens.
    fn layout(&self) -> TokenLayout;

    /// Number of codes, each of which has a logit.
    fn codes(&self) -> usize;

    /// The input ids of a condition, and those that take their place in the unconditional half of
    /// guidance; at least one, and equally many.
    ///
    /// # Errors
    /// If the model does not know what the condition names.
    fn condition_ids(&self, condition: &Condition) -> Result<[Vec<usize>; 2], GenerateError>;

    /// Checks that the model can draw a picture.
    ///
    /// # Errors
    /// If a sampling option, the condition or a known token is out of range.
    fn validate(&self, request: &Request, sampling: &SamplingConfig) -> Result<(), GenerateError>;

    /// Room for `slots` sequences side by side, whose conditions have up to `condition` ids.
    ///
    /// # Errors
    /// If there is no memory for so many.
    fn session(&self, condition: usize, slots: usize) -> Result<Self::Session, GenerateError>;

    /// Decodes the next positions of some sequences in one pass over the weights.
    ///
    /// # Errors
    /// If the device that computes fails. What these sequences have seen is lost then.
    ///
    /// # Panics
    /// If a step is not one that the session has room for.
    fn step(&self, session: &mut Self::Session, steps: &[Step<'_>]) -> Result<(), GenerateError>;

    /// Copies the `index`-th wanted logits of the last step, in the order of its steps, one a code.
    ///
    /// # Panics
    /// If there are fewer, or `out` is not as long as there are codes.
    fn logits(&self, session: &Self::Session, index: usize, out: &mut [f32]);

    /// Copies what slot `from` has seen of its first positions to slot `to`.
    ///
    /// # Errors
    /// If the device that computes fails.
    ///
    /// # Panics
    /// If the session has no such slots, or fewer positions.
    fn share(
        &self,
        session: &mut Self::Session,
        from: usize,
        to: usize,
        positions: usize,
    ) -> Result<(), GenerateError>;

    /// Most positions that one sequence decodes in one step: at least [`POSITIONS`].
    fn most_positions(&self) -> usize {
        POSITIONS
    }

    /// The threads that choose tokens.
    fn pool(&self) -> &Pool;

    /// The model as one that chooses tokens by itself, where it computes, if it does.
    fn chooser(&self) -> Option<&dyn Chooser<Self::Session>> {
        None
    }
}

/// A model that chooses tokens where it computes, so that several follow from one call.
pub trait Chooser<S> {
    /// Most tokens of each of so many pictures that it chooses in one call whose steps have so many
    /// positions; 0 if it cannot, and logits are to be asked for.
    fn most_choices(&self, session: &S, positions: usize, pictures: usize) -> usize;

    /// Decodes steps as [`SequenceModel::step`] does, chooses the next token of each picture as
    /// [`generator::choose`] does, reads it as the next position of the picture's sequences, chooses
    /// again, and so on. The last token chosen has not been read then. If `choices` is more than 1,
    /// every step wants logits after its last position alone.
    ///
    /// Returns `None` while the device is still computing and must not be waited for, as in a browser. The
    /// caller must then repeat the same call until it returns the tokens, and make no other call before.
    ///
    /// # Shapes
    /// `pictures [P]` → tokens `[P, choices]`; `None` where logits are not numbers.
    ///
    /// # Errors
    /// If the device that computes fails. What these sequences have seen is lost then.
    ///
    /// # Panics
    /// As [`SequenceModel::step`] does, and if there are more choices than the model makes in one call.
    fn choose(
        &self,
        session: &mut S,
        steps: &[Step<'_>],
        pictures: &[Choosing<'_>],
        choices: usize,
    ) -> Result<Option<Vec<Option<CodebookIndex>>>, GenerateError>;
}

/// A picture whose next tokens are to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Choosing<'a> {
    /// Which of the steps' logits are the conditional ones.
    pub conditional: usize,
    /// And which the unconditional ones, where they have a part.
    pub unconditional: Option<usize>,
    /// The next token's place among the picture's tokens.
    pub token: usize,
    /// Whose seed and number the noise has.
    pub request: &'a Request,
    /// How it is sampled.
    pub sampling: &'a SamplingConfig,
}

/// Most positions that one sequence of a model decodes in one step, unless the model says otherwise.
pub const POSITIONS: usize = 32;

/// The next positions of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Where the session keeps the sequence.
    pub slot: usize,
    /// Ids of the condition that the sequence begins with.
    pub condition: usize,
    /// Position of the first identifier, counted from the start of the condition. All before must
    /// have been decoded in this slot; what was decoded from here on is forgotten.
    pub start: usize,
    /// Identifiers, see [`tokens::Vocabulary`].
    pub ids: &'a [usize],
    /// After how many of the last positions logits are wanted.
    pub logits: usize,
}

macro_rules! through_a_pointer {
    ($($pointer:ty),*) => {$(
        impl<M: SequenceModel + ?Sized> SequenceModel for $pointer {
            type Session = M::Session;

            fn layout(&self) -> TokenLayout {
                self.deref().layout()
            }

            fn codes(&self) -> usize {
                self.deref().codes()
            }

            fn condition_ids(
                &self,
                condition: &Condition,
            ) -> Result<[Vec<usize>; 2], GenerateError> {
                self.deref().condition_ids(condition)
            }

            fn validate(
                &self,
                request: &Request,
                sampling: &SamplingConfig,
            ) -> Result<(), GenerateError> {
                self.deref().validate(request, sampling)
            }

            fn session(
                &self,
                condition: usize,
                slots: usize,
            ) -> Result<Self::Session, GenerateError> {
                self.deref().session(condition, slots)
            }

            fn step(
                &self,
                session: &mut Self::Session,
                steps: &[Step<'_>],
            ) -> Result<(), GenerateError> {
                self.deref().step(session, steps)
            }

            fn logits(&self, session: &Self::Session, index: usize, out: &mut [f32]) {
                self.deref().logits(session, index, out);
            }

            fn share(
                &self,
                session: &mut Self::Session,
                from: usize,
                to: usize,
                positions: usize,
            ) -> Result<(), GenerateError> {
                self.deref().share(session, from, to, positions)
            }

            fn most_positions(&self) -> usize {
                self.deref().most_positions()
            }

            fn pool(&self) -> &Pool {
                self.deref().pool()
            }

            fn chooser(&self) -> Option<&dyn Chooser<Self::Session>> {
                self.deref().chooser()
            }
        }
    )*};
}

through_a_pointer!(&M, Arc<M>, Box<M>);
