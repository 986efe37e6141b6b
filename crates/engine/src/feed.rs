//! A scheduler on a thread of its own, which other threads feed.
//!
//! ```text
//! submit ──bounded queue──▶ thread that owns the Scheduler ──one channel a request──▶ Events
//! ```

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel},
    },
    thread::{self, JoinHandle},
};

use generator::{GenerateError, Request, SamplingConfig};

use crate::{
    scheduler::{Event, JobId, Scheduler, check},
    sequence::SequenceModel,
};

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The model cannot draw it.
    #[error(transparent)]
    Request(#[from] GenerateError),
    /// As many requests wait as may.
    #[error("{limit} requests are waiting already; try again later")]
    Full {
        /// Requests that may wait.
        limit: usize,
    },
    /// The thread has ended: it was stopped, or its scheduler panicked.
    #[error("drawing has stopped; start it again")]
    Stopped,
}

/// What a [`Feed`] tells of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Events {
    told: Receiver<Event>,
    dropped: Arc<AtomicBool>,
}

impl Events {
    /// Waits for the next event. `None` after the last one, or if drawing was stopped before it.
    pub fn wait(&self) -> Option<Event> {
        self.told.recv().ok()
    }

    /// The next event if there is one already.
    ///
    /// # Errors
    /// If there is none yet, or none will follow.
    pub fn poll(&self) -> Result<Event, TryRecvError> {
        self.told.try_recv()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.wait()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// A request on its way to the thread.
struct Order {
    request: Request,
    sampling: SamplingConfig,
    listener: Listener,
}

/// The other end of [`Events`].
struct Listener {
    tell: Sender<Event>,
    dropped: Arc<AtomicBool>,
}

impl Listener {
    fn is_gone(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A thread that draws what it is asked for, until this is dropped.
#[derive(Debug)]
pub struct Feed<M> {
    model: M,
    /// Most ids of a condition.
    condition: usize,
    limit: usize,
    /// `None` only while it is dropped.
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl<M: SequenceModel + Clone + 'static> Feed<M> {
    /// Moves an idle scheduler to a thread of its own. Beside the pictures that it draws, `limit`
    /// requests may wait, at least one.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn start(scheduler: Scheduler<M>, limit: usize) -> io::Result<Self> {
        let (model, condition) = (scheduler.model().clone(), scheduler.condition());
        let limit = limit.max(1);
        let (orders, received) = sync_channel(limit);
        let thread = thread::Builder::new()
            .name("scheduler".to_owned())
            .spawn(move || serve(scheduler, &received))?;
        Ok(Self { model, condition, limit, orders: Some(orders), thread: Some(thread) })
    }

    /// Asks for a picture.
    ///
    /// # Errors
    /// If the model cannot draw it, too many requests wait, or the thread has ended.
    pub fn submit(&self, request: Request, sampling: SamplingConfig) -> Result<Events, FeedError> {
        check(&self.model, self.condition, &request, &sampling)?;
        let dropped = Arc::new(AtomicBool::new(false));
        let (tell, told) = channel();
        let listener = Listener { tell, dropped: Arc::clone(&dropped) };
        let orders = self.orders.as_ref().ok_or(FeedError::Stopped)?;
        match orders.try_send(Order { request, sampling, listener }) {
            Ok(()) => Ok(Events { told, dropped }),
            Err(TrySendError::Full(_)) => Err(FeedError::Full { limit: self.limit }),
            Err(TrySendError::Disconnected(_)) => Err(FeedError::Stopped),
        }
    }
}

impl<M> Drop for Feed<M> {
    /// Stops after the step in progress; pictures that are not finished are cancelled.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the scheduler has ended every `Events` already.
            let _ = thread.join();
        }
    }
}

/// Takes orders and steps, until nobody can send orders any more.
fn serve<M: SequenceModel>(mut scheduler: Scheduler<M>, orders: &Receiver<Order>) {
    let mut listeners: BTreeMap<JobId, Listener> = BTreeMap::new();
    let mut events = Vec::new();
    loop {
        listeners.retain(|&job, listener| {
            let gone = listener.is_gone();
            if gone {
                scheduler.cancel(job);
            }
            !gone
        });
        // One may wait inside the scheduler; the others wait in the queue, which is bounded.
        while scheduler.waiting() == 0 {
            let order = match scheduler.is_idle() {
                true => orders.recv().map_err(|_| TryRecvError::Disconnected),
                false => orders.try_recv(),
            };
            match order {
                Ok(order) => take(&mut scheduler, &mut listeners, order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        scheduler.step(&mut events);
        for event in events.drain(..) {
            let (job, last) = match &event {
                Event::Row { job, .. } => (*job, false),
                Event::Finished { job, .. } | Event::Failed { job, .. } => (*job, true),
            };
            if let Some(listener) = listeners.get(&job) {
                // Events that nobody waits for are cancelled above.
                let _ = listener.tell.send(event);
            }
            if last {
                listeners.remove(&job);
            }
        }
    }
}

fn take<M: SequenceModel>(
    scheduler: &mut Scheduler<M>,
    listeners: &mut BTreeMap<JobId, Listener>,
    Order { request, sampling, listener }: Order,
) {
    if listener.is_gone() {
        return;
    }
    // The request was checked before it was sent. Were it refused here, its events would end at once.
    if let Ok(job) = scheduler.submit(request, sampling) {
        listeners.insert(job, listener);
    }
}
