//! Work on the pictures of a data set, done ahead on a bounded pool of threads and handed out in
//! order.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use crate::{DataSet, PixelsError};

/// Bad samples in a row after which a loader gives up: the disk or the whole data set is at fault.
const MOST_IN_A_ROW: usize = 1000;
/// Most bad samples that are listed; more are counted.
const MOST_LISTED: usize = 10_000;

/// How far and how wide a [`Loader`] works ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Threads that read, decode and crop; 0 counts as 1.
    pub threads: usize,
    /// Most results that are finished or being worked on; this bounds the memory. Less than
    /// `threads` leaves some of them without work; 0 counts as 1.
    pub ahead: usize,
    /// Whether a bad sample ends the work; otherwise it is left out, counted and listed.
    pub strict: bool,
}

/// Samples that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How often one was left out, counting each time that the order came to it.
    pub count: u64,
    /// Index of the sample in its data set, and why it was left out; the first 10,000.
    pub samples: BTreeMap<usize, String>,
}

/// Results for the samples of an order, computed on threads of the loader's own.
///
/// An iterator over sample and result, in the order that was asked for, whichever thread was
/// faster. Threads wait when [`ahead`](LoaderOptions::ahead) results are unclaimed. A sample whose
/// work fails is left out and noted under [`skipped`](Self::skipped), and nothing takes its place;
/// strictly, its error is the last item. Dropping the loader stops its threads after the samples
/// they are at.
pub struct Loader<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
    strict: bool,
    skipped: Skipped,
    in_a_row: usize,
    ended: bool,
}

type Order = Box<dyn Iterator<Item = usize> + Send>;
type Outcome<T> = Result<T, PixelsError>;

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// A place has become free, or the loader is gone.
    room: Condvar,
    /// A result is there, or the order has ended.
    news: Condvar,
}

struct Queue<T> {
    /// What is left of the order; nothing after its end or the loader's.
    order: Option<Order>,
    /// Samples that were begun and not yet claimed, in order, with the results there are.
    begun: VecDeque<(usize, Option<Outcome<T>>)>,
    /// How many were claimed.
    claimed: u64,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // Only short moves are made under the lock; none leaves it half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does: the next sample of the order, as long as there is one.
    fn work(&self, ahead: usize, work: &(impl Fn(usize) -> Outcome<T> + ?Sized)) {
        loop {
            let mut queue = self.queue();
            while queue.order.is_some() && queue.begun.len() >= ahead {
                queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(index) = queue.order.as_mut().and_then(Iterator::next) else {
                queue.order = None;
                self.news.notify_all();
                self.room.notify_all();
                return;
            };
            let place = queue.claimed + queue.begun.len() as u64;
            queue.begun.push_back((index, None));
            drop(queue);

            let outcome = catch_unwind(AssertUnwindSafe(|| work(index))).unwrap_or_else(|panic| {
                Err(PixelsError::Damaged {
                    name: format!("number {index} of the data set"),
                    reason: format!("its decoder failed: {}", message(panic.as_ref())),
                })
            });
            let mut queue = self.queue();
            let place = (place - queue.claimed) as usize;
            if let Some((_, result)) = queue.begun.get_mut(place) {
                *result = Some(outcome);
            }
            self.news.notify_all();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

impl<T: Send + 'static> Loader<T> {
    /// Starts `work` on the samples of `data` in this order, which may be endless. `work` is given
    /// the data set and the index of a sample.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(
        data: Arc<dyn DataSet>,
        order: impl Iterator<Item = usize> + Send + 'static,
        options: LoaderOptions,
        work: impl Fn(&dyn DataSet, usize) -> Result<T, PixelsError> + Send + Sync + 'static,
    ) -> Self {
        let queue = Queue { order: Some(Box::new(order)), begun: VecDeque::new(), claimed: 0 };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            room: Condvar::new(),
            news: Condvar::new(),
        });
        let work = Arc::new(move |index| work(data.as_ref(), index));
        let ahead = options.ahead.max(1);
        let threads = (0..options.threads.max(1))
            .map(|_| {
                let (shared, work) = (Arc::clone(&shared), Arc::clone(&work));
                std::thread::spawn(move || shared.work(ahead, work.as_ref()))
            })
            .collect();
        let (strict, skipped) = (options.strict, Skipped::default());
        Self { shared, threads, strict, skipped, in_a_row: 0, ended: false }
    }
}

impl<T> Loader<T> {
    /// What was left out so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// The next sample of the order with its result.
    fn claim(&self) -> Option<(usize, Outcome<T>)> {
        let mut queue = self.shared.queue();
        loop {
            match queue.begun.front() {
                Some((_, Some(_))) => {
                    queue.claimed += 1;
                    self.shared.room.notify_one();
                    return match queue.begun.pop_front() {
                        Some((index, Some(outcome))) => Some((index, outcome)),
                        _ => unreachable!("it was just seen"),
                    };
                }
                None if queue.order.is_none() => return None,
                _ => queue = self.shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl<T> Iterator for Loader<T> {
    type Item = Result<(usize, T), PixelsError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some((index, outcome)) = self.claim() else { break };
            let error = match outcome {
                Ok(result) => {
                    self.in_a_row = 0;
                    return Some(Ok((index, result)));
                }
                Err(error) => error,
            };
            self.skipped.count += 1;
            self.in_a_row += 1;
            if self.skipped.samples.len() < MOST_LISTED {
                self.skipped.samples.entry(index).or_insert_with(|| error.to_string());
            }
            if self.strict || self.in_a_row == MOST_IN_A_ROW {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ended = true;
        None
    }
}

impl<T> Drop for Loader<T> {
    fn drop(&mut self) {
        self.shared.queue().order = None;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Panics of the work were caught; there is none to pass on.
            let _ = thread.join();
        }
    }
}
