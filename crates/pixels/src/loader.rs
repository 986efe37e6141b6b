//! Work on the pictures of a data set, done ahead on a bounded pool of threads and handed out in
//! order.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use crate::{DataSet, PixelsError};

/// Bad samples in a row after which a loader gives up: the disk or the whole data set is at fault.
const MOST_IN_A_ROW: u64 = 1000;

/// How far and how wide a [`Loader`] works ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Threads that read, decode and crop; 0 counts as 1.
    pub threads: usize,
    /// Most results that are finished or being worked on; this bounds the memory. Less than
    /// `threads` leaves some of them without work; 0 counts as 1.
    pub ahead: usize,
}

impl LoaderOptions {
    /// One thread a processor, and work for `ahead` samples or, if those are fewer, for two samples
    /// a thread.
    pub fn of_this_machine(ahead: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, ahead: ahead.max(2 * threads) }
    }
}

/// A place in the order of a loader.
pub trait Place: Copy + Send + 'static {
    /// The sample in its data set.
    fn index(&self) -> usize;
}

impl Place for usize {
    fn index(&self) -> usize {
        *self
    }
}

/// What becomes of the place of a bad sample: one whose picture cannot be had.
pub enum OnBad<P> {
    /// The sample's error is the last item.
    Stop,
    /// Nothing takes the place.
    LeaveOut,
    /// The sample of another place takes it: a function of the place, and of how many others were
    /// tried before. If it is a pure function, what takes the place depends only on the data.
    Replace(Box<dyn Fn(P, u64) -> P + Send + Sync>),
}

/// A sample that was left out or replaced.
#[derive(Debug)]
pub struct BadSample {
    /// The sample in its data set.
    pub index: usize,
    /// Why.
    pub error: PixelsError,
}

/// Results for the samples of an order, computed on threads of the loader's own.
///
/// An iterator over places and results, in the order that was asked for, whichever thread was
/// faster. Threads wait when [`ahead`](LoaderOptions::ahead) results are unclaimed. A sample whose
/// work fails is dealt with as [`OnBad`] says, counted and noted under
/// [`take_bad`](Self::take_bad). After a thousand bad samples in a row, or where one is to be
/// replaced for a [fault of the system](PixelsError::is_of_the_system), its error is the last item.
/// Dropping the loader stops its threads after the samples they are at.
pub struct Loader<P, T> {
    shared: Arc<Shared<P, T>>,
    threads: Vec<JoinHandle<()>>,
    leaves_out: bool,
    bad: Vec<BadSample>,
    bad_count: u64,
    in_a_row: u64,
    ended: bool,
}

type Order<P> = Box<dyn Iterator<Item = P> + Send>;

/// What came of a place: the bad samples that were met, and the result or the last of them.
struct Outcome<T> {
    bad: Vec<BadSample>,
    result: Result<T, BadSample>,
}

struct Shared<P, T> {
    on_bad: OnBad<P>,
    queue: Mutex<Queue<P, T>>,
    /// A place has become free, or the loader is gone.
    room: Condvar,
    /// A result is there, or the order has ended.
    news: Condvar,
}

struct Queue<P, T> {
    /// What is left of the order; nothing after its end or the loader's.
    order: Option<Order<P>>,
    /// Places that were begun and not yet claimed, in order, with the results there are.
    begun: VecDeque<(P, Option<Outcome<T>>)>,
    /// How many were claimed.
    claimed: u64,
}

impl<P: Place, T> Shared<P, T> {
    fn queue(&self) -> MutexGuard<'_, Queue<P, T>> {
        // Only short moves are made under the lock; none leaves it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does: the next place of the order, as long as there is one.
    fn work(&self, ahead: usize, work: &(impl Fn(P) -> Result<T, PixelsError> + ?Sized)) {
        loop {
            let mut queue = self.queue();
            while queue.order.is_some() && queue.begun.len() >= ahead {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(place) = queue.order.as_mut().and_then(Iterator::next) else {
                queue.order = None;
                self.news.notify_all();
                self.room.notify_all();
                return;
            };
            let number = queue.claimed + queue.begun.len() as u64;
            queue.begun.push_back((place, None));
            drop(queue);

            let outcome = self.fill(place, work);
            let mut queue = self.queue();
            let number = (number - queue.claimed) as usize;
            if let Some((_, result)) = queue.begun.get_mut(number) {
                *result = Some(outcome);
            }
            self.news.notify_all();
        }
    }

    /// The result of a place, or of the first that can take it.
    fn fill(&self, place: P, work: &(impl Fn(P) -> Result<T, PixelsError> + ?Sized)) -> Outcome<T> {
        let mut bad = Vec::new();
        let mut tried = place;
        loop {
            let index = tried.index();
            let result = catch_unwind(AssertUnwindSafe(|| work(tried))).unwrap_or_else(|panic| {
                Err(PixelsError::Damaged {
                    name: format!("number {index} of the data set"),
                    reason: format!("its decoder failed: {}", message(panic.as_ref())),
                })
            });
            let error = match result {
                Ok(result) => return Outcome { bad, result: Ok(result) },
                Err(error) => BadSample { index, error },
            };
            let tries = bad.len() as u64;
            match &self.on_bad {
                // A system fault is not the sample's fault: another sample would fail too.
                OnBad::Replace(other)
                    if tries + 1 < MOST_IN_A_ROW && !error.error.is_of_the_system() =>
                {
                    tried = other(place, tries);
                    bad.push(error);
                }
                _ => return Outcome { bad, result: Err(error) },
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

impl<P: Place, T: Send + 'static> Loader<P, T> {
    /// Starts `work` on the places of an order, which may be endless. `work` is given the data set
    /// and the place whose sample it is to read.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(
        data: Arc<dyn DataSet>,
        order: impl Iterator<Item = P> + Send + 'static,
        options: LoaderOptions,
        on_bad: OnBad<P>,
        work: impl Fn(&dyn DataSet, P) -> Result<T, PixelsError> + Send + Sync + 'static,
    ) -> Self {
        let queue = Queue { order: Some(Box::new(order)), begun: VecDeque::new(), claimed: 0 };
        let leaves_out = matches!(on_bad, OnBad::LeaveOut);
        let shared = Arc::new(Shared {
            on_bad,
            queue: Mutex::new(queue),
            room: Condvar::new(),
            news: Condvar::new(),
        });
        let work = Arc::new(move |place| work(data.as_ref(), place));
        let ahead = options.ahead.max(1);
        let threads = (0..options.threads.max(1))
            .map(|_| {
                let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
                std::thread::spawn(move || shared.work(ahead, work.as_ref()))
            })
            .collect();
        let (bad, bad_count, in_a_row) = (Vec::new(), 0, 0);
        Self { shared, threads, leaves_out, bad, bad_count, in_a_row, ended: false }
    }
}

impl<P, T> Loader<P, T> {
    /// How often a sample was left out or replaced so far, each time that the order came to it.
    pub fn bad_count(&self) -> u64 {
        self.bad_count
    }

    /// The bad samples since this was asked last, in order, as far as results were claimed. They
    /// are kept until somebody asks.
    pub fn take_bad(&mut self) -> Vec<BadSample> {
        std::mem::take(&mut self.bad)
    }
}

impl<P: Place, T> Loader<P, T> {
    /// The next place of the order with what came of it.
    fn claim(&self) -> Option<(P, Outcome<T>)> {
        let mut queue = self.shared.queue();
        loop {
            match queue.begun.front() {
                Some((_, Some(_))) => {
                    queue.claimed += 1;
                    self.shared.room.notify_one();
                    return match queue.begun.pop_front() {
                        Some((place, Some(outcome))) => Some((place, outcome)),
                        _ => unreachable!("it was just seen"),
                    };
                }
                None if queue.order.is_none() => return None,
                _ => queue = self.shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn note(&mut self, bad: BadSample) {
        self.bad_count += 1;
        self.in_a_row += 1;
        self.bad.push(bad);
    }
}

impl<P: Place, T> Iterator for Loader<P, T> {
    type Item = Result<(P, T), PixelsError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some((place, outcome)) = self.claim() else { break };
            outcome.bad.into_iter().for_each(|bad| self.note(bad));
            match outcome.result {
                Ok(result) => {
                    self.in_a_row = 0;
                    return Some(Ok((place, result)));
                }
                Err(bad) if !self.leaves_out || self.in_a_row + 1 == MOST_IN_A_ROW => {
                    self.bad_count += 1;
                    self.ended = true;
                    return Some(Err(bad.error));
                }
                Err(bad) => self.note(bad),
            }
        }
        self.ended = true;
        None
    }
}

impl<P, T> Drop for Loader<P, T> {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).order = None;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of the work were caught; there is none to pass on.
            let _ = thread.join();
        }
    }
}
