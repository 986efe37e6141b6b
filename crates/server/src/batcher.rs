//! The thread that owns a model's generator and draws for all clients together.
//!
//! ```text
//! order ──bounded, fair queue──▶ thread that pulls the Drawing ──one channel an order──▶ events
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use generator::{Request, SamplingConfig};
use pipeline::{Draw, Drawing, Event, PipelineError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    metrics::ModelMetrics,
    queue::{ClientId, FairQueue},
};

/// A thread that draws what it is asked for, until this is dropped.
pub(crate) struct Batcher {
    shared: Arc<Shared>,
    /// `None` only while it is dropped.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    max_queue: usize,
    /// Pictures that are drawn at once.
    room: usize,
    metrics: ModelMetrics,
}

#[derive(Default)]
struct State {
    queue: FairQueue<Waiting>,
    /// Pictures that are being drawn.
    drawing: usize,
    next_order: u64,
    /// Seconds that a picture takes of the machine's time, of the latest ones.
    seconds_each: Option<f64>,
    last_end: Option<Instant>,
    /// The thread has ended, or should.
    closed: bool,
}

/// A picture that waits for its turn.
struct Waiting {
    order: u64,
    request: Request,
    sampling: SamplingConfig,
    listener: Listener,
}

/// Who hears of a picture.
struct Listener {
    index: usize,
    tell: UnboundedSender<Happened>,
    asked: Instant,
    /// Whether rows are told, or its end alone. Every event wakes a thread, which takes time from drawing.
    rows: bool,
}

/// What happens to a picture of an order.
#[derive(Debug)]
pub(crate) struct Happened {
    /// The picture's number within the order.
    pub(crate) index: usize,
    /// When it was begun.
    pub(crate) begun: Instant,
    /// When its prefix or first row was decided.
    pub(crate) first_row: Option<Instant>,
    /// What the drawing says.
    pub(crate) event: Event,
}

/// Pictures that were asked for. Dropping it cancels those that are not finished.
pub(crate) struct Order {
    shared: Arc<Shared>,
    client: ClientId,
    number: u64,
    events: UnboundedReceiver<Happened>,
    /// How many pictures wait or are being drawn before the order's last one.
    pub(crate) position: usize,
}

/// Why an order is not taken.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// The queue is full; it may have room after so many seconds.
    Full { limit: usize, seconds: u64 },
    /// So many never wait at once.
    TooMany { limit: usize },
    /// The thread has ended.
    Stopped,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_lengths(&self, state: &State) {
        self.metrics.queue.set(state.queue.waiting() as f64);
        self.metrics.drawing.set(state.drawing as f64);
    }
}

impl Batcher {
    /// Gives a generator to a thread of its own, which draws `pictures` at a time. Beside them, `max_queue`
    /// pictures may wait.
    ///
    /// # Errors
    /// If there is no memory for so many, or the system refuses a thread.
    pub(crate) fn start(
        drawer: Box<dyn Draw>,
        pictures: usize,
        max_queue: usize,
        metrics: ModelMetrics,
    ) -> Result<Self, StartError> {
        let (started, starting) = mpsc::channel();
        let thread = thread::Builder::new().name("batcher".to_owned()).spawn(move || {
            let drawing = match Drawing::new(&*drawer, pictures) {
                Ok(drawing) => drawing,
                Err(error) => return drop(started.send(Err(error))),
            };
            let shared = Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
                max_queue,
                room: drawing.room(),
                metrics,
            });
            if started.send(Ok(Arc::clone(&shared))).is_ok() {
                let _closing = Closing(&shared);
                draw(&shared, drawing);
            }
        })?;
        // A thread that panicked has sent nothing.
        let shared = starting.recv().map_err(|_| StartError::Panicked)??;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for pictures, all or none, and to hear of their rows or of their ends alone.
    pub(crate) fn order(
        &self,
        client: &ClientId,
        requests: Vec<Request>,
        sampling: SamplingConfig,
        rows: bool,
    ) -> Result<Order, Refusal> {
        let shared = &self.shared;
        let mut state = shared.state();
        if state.closed {
            return Err(Refusal::Stopped);
        }
        let limit = shared.max_queue + shared.room;
        if requests.len() > limit {
            return Err(Refusal::TooMany { limit });
        }
        let before = state.queue.waiting() + state.drawing;
        let position = (before + requests.len()).saturating_sub(1);
        if position >= limit {
            let seconds = state.seconds_each.unwrap_or(1.0) * requests.len() as f64;
            let seconds = seconds.ceil().clamp(1.0, 600.0) as u64;
            return Err(Refusal::Full { limit: shared.max_queue, seconds });
        }
        let number = state.next_order;
        state.next_order += 1;
        let (tell, events) = unbounded_channel();
        let asked = Instant::now();
        for (index, request) in requests.into_iter().enumerate() {
            let listener = Listener { index, tell: tell.clone(), asked, rows };
            state.queue.push(client, Waiting { order: number, request, sampling, listener });
        }
        shared.tell_lengths(&state);
        drop(state);
        shared.wake.notify_one();
        Ok(Order {
            shared: Arc::clone(shared),
            client: Arc::clone(client),
            number,
            events,
            position,
        })
    }

    /// Whether nothing waits or is being drawn.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.shared.state();
        state.queue.waiting() + state.drawing == 0
    }

    /// Whether the thread has ended: its generator panicked.
    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.state().closed
    }
}

impl Drop for Batcher {
    /// Stops after the step in progress.
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic has ended every order already.
            let _ = thread.join();
        }
    }
}

/// Why a thread does not draw.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("the system refuses a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the generator panicked; please report this")]
    Panicked,
}

impl Order {
    /// Waits for what happens next. `None` after all have ended, or if drawing has stopped.
    pub(crate) async fn next(&mut self) -> Option<Happened> {
        self.events.recv().await
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        // Those that are being drawn are seen to have no listener before the next step.
        self.events.close();
        let number = self.number;
        let mut state = self.shared.state();
        let before = state.queue.waiting();
        state.queue.remove(&self.client, |waiting| waiting.order == number);
        self.shared.metrics.cancelled.increment((before - state.queue.waiting()) as u64);
        self.shared.tell_lengths(&state);
    }
}

/// Marks the thread as ended however it ends, so that nobody waits for it.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        // What waits has no listener's other end any more: its orders end.
        state.queue = FairQueue::default();
        state.drawing = 0;
        self.0.tell_lengths(&state);
    }
}

/// A picture that is being drawn.
struct Drawn {
    client: ClientId,
    listener: Listener,
    /// Tokens that are known to be decided.
    decided: usize,
    begun: Instant,
    /// When its prefix or first row was decided.
    first_row: Option<Instant>,
}

/// Draws until it is closed.
fn draw(shared: &Shared, mut drawing: Drawing<'_>) {
    let metrics = &shared.metrics;
    let mut pictures: HashMap<usize, Drawn> = HashMap::new();
    loop {
        let gone = pictures.iter().filter(|(_, drawn)| drawn.listener.tell.is_closed());
        let gone: Vec<usize> = gone.map(|(&picture, _)| picture).collect();
        for picture in gone {
            drawing.cancel(picture);
            metrics.cancelled.increment(1);
            end(shared, &mut pictures, picture);
        }
        {
            let mut state = shared.state();
            while !state.closed {
                while pictures.len() < shared.room
                    && let Some((client, waiting)) = state.queue.take()
                {
                    metrics.queue_seconds.record(waiting.listener.asked.elapsed());
                    begin(&mut drawing, &mut pictures, &mut state, client, waiting);
                }
                state.drawing = pictures.len();
                shared.tell_lengths(&state);
                if !pictures.is_empty() {
                    break;
                }
                state.last_end = None;
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
        }
        let before = drawing.decided();
        let event = drawing.poll();
        // Without an event it was a step; most are.
        metrics.steps.increment(u64::from(drawing.decided() > before));
        if let Some(event) = event {
            tell(shared, &mut pictures, event);
        }
    }
}

fn begin(
    drawing: &mut Drawing<'_>,
    pictures: &mut HashMap<usize, Drawn>,
    state: &mut State,
    client: ClientId,
    waiting: Waiting,
) {
    let Waiting { request, sampling, listener, .. } = waiting;
    // The request was checked before. Were it refused here, its order would end without it.
    match drawing.submit(&request, &sampling) {
        Ok(picture) => {
            let decided = request.forced.len();
            let begun = Instant::now();
            pictures.insert(picture, Drawn { client, listener, decided, begun, first_row: None });
        }
        Err(error) => {
            tracing::error!(%error, "a checked request was refused");
            state.queue.end(&client);
        }
    }
}

/// Passes on what happened.
fn tell(shared: &Shared, pictures: &mut HashMap<usize, Drawn>, event: Event) {
    let metrics = &shared.metrics;
    let picture = event.picture();
    let Some(drawn) = pictures.get_mut(&picture) else { return };
    let waited = drawn.listener.asked.elapsed();
    match &event {
        Event::Row { tokens, .. } => {
            metrics.tokens.increment((tokens.len() - drawn.decided.min(tokens.len())) as u64);
            drawn.decided = tokens.len();
            if drawn.first_row.is_none() {
                drawn.first_row = Some(Instant::now());
                metrics.first_row_seconds.record(waited);
            }
        }
        Event::Finished { .. } => {
            metrics.finished.increment(1);
            metrics.picture_seconds.record(waited);
        }
        Event::Failed { .. } => metrics.failed.increment(1),
        Event::Preview { .. } => {}
    }
    let message = Happened {
        index: drawn.listener.index,
        begun: drawn.begun,
        first_row: drawn.first_row,
        event,
    };
    if !message.event.is_end() {
        if drawn.listener.rows {
            // Where nobody listens any more, it is cancelled before the next step.
            let _ = drawn.listener.tell.send(message);
        }
        return;
    }
    {
        let mut state = shared.state();
        let now = Instant::now();
        if let Some(last) = state.last_end.replace(now) {
            let seconds = (now - last).as_secs_f64();
            let each = state.seconds_each.unwrap_or(seconds);
            state.seconds_each = Some(0.9 * each + 0.1 * seconds);
        }
    }
    // Its place is free before anybody knows, so that who asks for another model then finds room.
    let tell = drawn.listener.tell.clone();
    end(shared, pictures, picture);
    let _ = tell.send(message);
}

/// Makes room for another picture.
fn end(shared: &Shared, pictures: &mut HashMap<usize, Drawn>, picture: usize) {
    if let Some(drawn) = pictures.remove(&picture) {
        let mut state = shared.state();
        state.drawing = pictures.len();
        state.queue.end(&drawn.client);
        shared.tell_lengths(&state);
    }
}
