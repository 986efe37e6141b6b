//! Requests to tokens, and what happens on the way.

use std::collections::{BTreeMap, VecDeque};

use generator::{GenerateError, Request, SamplingConfig};
use pixels::Picture;
use tokens::{CodebookIndex, TokenLayout};

use crate::{Decode, PipelineError};

/// A loaded generator or language model, on some device.
pub trait Draw: Send + Sync {
    /// The layout of a picture's tokens.
    fn layout(&self) -> TokenLayout;

    /// Ids of a condition that a batch has room for where its requests are not known before: 1, which is a
    /// class, unless the model reads prompts.
    fn condition_room(&self) -> usize {
        1
    }

    /// A batch that pictures can join and leave at any time, with room for so many at once; fewer where
    /// more would not be drawn faster. Their conditions have up to `condition` ids.
    ///
    /// # Errors
    /// If there is no memory for so many.
    fn batch(
        &self,
        pictures: usize,
        condition: usize,
    ) -> Result<Box<dyn Batch + Send + '_>, PipelineError>;
}

/// Pictures that are drawn together, each as if it were alone.
///
/// Pictures are numbered from 0 in the order in which they are submitted.
pub trait Batch {
    /// Takes a request, which waits until there is room, and gives the picture's number.
    ///
    /// # Errors
    /// If it asks for what the generator cannot draw.
    fn submit(
        &mut self,
        request: &Request,
        sampling: &SamplingConfig,
    ) -> Result<usize, GenerateError>;

    /// Cancels a picture; no more events follow. Returns whether it was still waiting or being drawn.
    fn cancel(&mut self, picture: usize) -> bool;

    /// Draws a little further and appends what happened: rows, finished and failed pictures.
    fn step(&mut self, events: &mut Vec<Event>);

    /// Whether nothing waits or is being drawn.
    fn is_idle(&self) -> bool;

    /// How many pictures it draws at once. More may be submitted; they wait.
    fn room(&self) -> usize;

    /// Tokens that are decided of the pictures being drawn, given ones included.
    fn decided(&self) -> usize;
}

/// What happens while pictures are drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prefix, or a row of the grid, is decided. Rows that the request gave are not told.
    Row {
        /// The picture's number.
        picture: usize,
        /// Its tokens up to the end of the row.
        tokens: Vec<CodebookIndex>,
    },
    /// The rows that are decided so far, as a picture (see [`Drawing::with_previews`]).
    Preview {
        /// The picture's number.
        picture: usize,
        /// Its first rows.
        image: Picture,
    },
    /// A picture has all of its tokens.
    Finished {
        /// The picture's number.
        picture: usize,
        /// All of its tokens.
        tokens: Vec<CodebookIndex>,
    },
    /// A picture cannot be drawn; the others go on.
    Failed {
        /// The picture's number.
        picture: usize,
        /// Why.
        error: GenerateError,
    },
}

/// Pictures being drawn: an iterator over what happens, until nothing is left to draw. Requests may join
/// and leave between two events; a drawing that has ended goes on when another request joins.
///
/// It is the only loop that drives a generator. To draw beside other work, run it on a thread of its own.
pub struct Drawing<'a> {
    draw: &'a dyn Draw,
    batch: Box<dyn Batch + Send + 'a>,
    happened: Vec<Event>,
    events: VecDeque<Event>,
    previews: Option<Previews<'a>>,
    order: Option<Order>,
    /// Pictures that have ended.
    ended: usize,
}

impl std::fmt::Debug for Drawing<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Drawing").field("ended", &self.ended).finish_non_exhaustive()
    }
}

struct Previews<'a> {
    decoder: &'a dyn Decode,
    /// A preview is made of every so many rows.
    every: usize,
}

/// Holds pictures back that ended before earlier ones.
#[derive(Default)]
struct Order {
    next: usize,
    /// How pictures ended that are held back; `None` for a cancelled one.
    early: BTreeMap<usize, Option<Event>>,
}

impl<'a> Drawing<'a> {
    /// A drawing without requests, with room for so many pictures at once.
    ///
    /// # Errors
    /// If there is no memory for so many.
    pub fn new(draw: &'a dyn Draw, pictures: usize) -> Result<Self, PipelineError> {
        Self::with_room(draw, pictures, draw.condition_room())
    }

    fn with_room(
        draw: &'a dyn Draw,
        pictures: usize,
        condition: usize,
    ) -> Result<Self, PipelineError> {
        Ok(Self {
            draw,
            batch: draw.batch(pictures, condition)?,
            happened: Vec::new(),
            events: VecDeque::new(),
            previews: None,
            order: None,
            ended: 0,
        })
    }

    /// A drawing of these requests, `pictures` at a time. Others that join may not have a longer prompt than
    /// the longest of these.
    ///
    /// # Errors
    /// If the generator cannot draw one of them, or there is no memory.
    pub fn of(
        draw: &'a dyn Draw,
        requests: &[Request],
        sampling: &SamplingConfig,
        pictures: usize,
    ) -> Result<Self, PipelineError> {
        let condition = requests.iter().map(|request| request.condition.length()).max();
        let condition = condition.unwrap_or(1);
        let mut drawing = Self::with_room(draw, pictures.min(requests.len()), condition)?;
        for request in requests {
            drawing.submit(request, sampling)?;
        }
        Ok(drawing)
    }

    /// Lets pictures end in the order of their requests: one that ends early is held back until those
    /// before it have ended. Rows are told as they come.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.order = Some(Order::default());
        self
    }

    /// Adds a preview after every `every`-th row of the grid, the last one excepted.
    ///
    /// # Errors
    /// If the decoder cannot decode the first rows of a picture.
    pub fn with_previews(
        mut self,
        decoder: &'a dyn Decode,
        every: usize,
    ) -> Result<Self, PipelineError> {
        if !decoder.decodes_rows() {
            return Err(PipelineError::NoPreviews { kind: decoder.kind() });
        }
        self.previews = Some(Previews { decoder, every: every.max(1) });
        Ok(self)
    }

    /// Takes a request and gives the picture's number: they are numbered from 0.
    ///
    /// # Errors
    /// If it asks for what the generator cannot draw.
    pub fn submit(
        &mut self,
        request: &Request,
        sampling: &SamplingConfig,
    ) -> Result<usize, PipelineError> {
        Ok(self.batch.submit(request, sampling)?)
    }

    /// Cancels a picture; no more events of it follow. Returns whether it was still to come.
    pub fn cancel(&mut self, picture: usize) -> bool {
        let of_it = |event: &Event| event.picture() == picture;
        let ends = self.events.iter().any(|event| of_it(event) && event.is_end());
        self.events.retain(|event| !of_it(event));
        let drawn = self.batch.cancel(picture);
        let Some(order) = &mut self.order else { return drawn || ends };
        let held_back = matches!(order.early.get(&picture), Some(Some(_)));
        if drawn || held_back {
            // Those behind it must not wait for it.
            order.early.insert(picture, None);
            order.release(&mut self.events);
        }
        drawn || ends || held_back
    }

    /// Tokens that are decided so far, over all pictures.
    pub fn decided(&self) -> usize {
        self.ended * self.draw.layout().len() + self.batch.decided()
    }

    /// How many pictures are drawn at once.
    pub fn room(&self) -> usize {
        self.batch.room()
    }

    /// The next event, after at most one step of the batch; `None` where that brought none yet, and where
    /// [nothing is left to draw](Self::is_idle). A server calls this rather than [`next`](Self::next), so
    /// that requests join and leave between two tokens and not between two rows.
    pub fn poll(&mut self) -> Option<Event> {
        if self.events.is_empty() && !self.batch.is_idle() {
            let mut happened = std::mem::take(&mut self.happened);
            self.batch.step(&mut happened);
            happened.drain(..).for_each(|event| self.take_in(event));
            self.happened = happened;
        }
        self.events.pop_front()
    }

    /// Whether no events follow unless another request joins.
    pub fn is_idle(&self) -> bool {
        self.events.is_empty() && self.batch.is_idle()
    }

    /// Draws until nothing is left and gives the tokens of each picture, in the order of the requests.
    ///
    /// # Errors
    /// If one of them cannot be drawn.
    pub fn tokens(self) -> Result<Vec<Vec<CodebookIndex>>, GenerateError> {
        self.in_order()
            .filter_map(|event| match event {
                Event::Finished { tokens, .. } => Some(Ok(tokens)),
                Event::Failed { error, .. } => Some(Err(error)),
                Event::Row { .. } | Event::Preview { .. } => None,
            })
            .collect()
    }

    /// Takes in what a step of the batch brought.
    fn take_in(&mut self, event: Event) {
        match event {
            Event::Row { picture, tokens } => {
                let preview = self.preview(&tokens);
                self.events.push_back(Event::Row { picture, tokens });
                self.events.extend(preview.map(|image| Event::Preview { picture, image }));
            }
            Event::Preview { .. } => self.events.push_back(event),
            Event::Finished { .. } | Event::Failed { .. } => {
                self.ended += 1;
                match &mut self.order {
                    None => self.events.push_back(event),
                    Some(order) => {
                        order.early.insert(event.picture(), Some(event));
                        order.release(&mut self.events);
                    }
                }
            }
        }
    }

    /// The picture of these rows, if one is wanted.
    fn preview(&self, tokens: &[CodebookIndex]) -> Option<Picture> {
        let Previews { decoder, every } = self.previews.as_ref()?;
        let layout = self.draw.layout();
        let rows = (1..layout.rows()).find(|&rows| layout.len_of_rows(rows) == tokens.len())?;
        // A generator's tokens are codes of its tokenizer.
        if rows.is_multiple_of(*every) { decoder.decode(tokens).ok() } else { None }
    }
}

impl Iterator for Drawing<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while !self.is_idle() {
            if let Some(event) = self.poll() {
                return Some(event);
            }
        }
        None
    }
}

impl Order {
    /// Hands on what no earlier picture holds back.
    fn release(&mut self, events: &mut VecDeque<Event>) {
        while let Some(event) = self.early.remove(&self.next) {
            events.extend(event);
            self.next += 1;
        }
    }
}

impl Event {
    /// The number of the picture that it tells of.
    pub const fn picture(&self) -> usize {
        match self {
            Self::Row { picture, .. }
            | Self::Preview { picture, .. }
            | Self::Finished { picture, .. }
            | Self::Failed { picture, .. } => *picture,
        }
    }

    /// Whether it is the last one of its picture.
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed { .. })
    }
}
