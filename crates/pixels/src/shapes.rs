//! Pictures of coloured shapes with prompts that say what is in them, so that whether a picture shows
//! what its prompt says can be told exactly.
//!
//! The tasks are those of GenEval (Ghosh et al. 2023, arXiv:2310.11513): one object, two objects,
//! counting, colours, position, attribute binding. Some combinations of words are held out: no picture
//! to learn from shows one, even where its prompt does not ask for it.

mod prompt;
mod scene;
mod set;

pub use prompt::{Colour, Held, Prompt, Relation, Shape, Task, Thing};
pub use scene::{Placed, Scene};
pub use set::{
    DEFAULT_HELD_OUT, DEFAULT_TRAIN, Options, TestPrompt, example, is_of_a_set, read_prompts,
    test_prompts, write,
};
