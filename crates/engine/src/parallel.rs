//! Threads that stay: a pool without allocation, queues or locks on the way to the work.
//!
//! Work is a number of units, of which each thread has its own share: it takes them in order, so
//! that it reads weights and caches as one stream, and then helps the others with theirs. Helpers
//! spin for a little while after their last work, since the next comes within microseconds in a
//! decoding step, and then sleep. What a unit writes never depends on which
//! thread takes it.
#![allow(unsafe_code)] // borrowed work on threads that outlive it, and disjoint pieces of a slice

use std::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
};

/// How often a helper looks for work before it sleeps; some tens of microseconds.
const SPINS: usize = 4000;

/// What every thread does: it is given the number of a unit and its own number.
type Work<'a> = &'a (dyn Fn(usize, usize) + Sync);

struct Shared {
    /// The work of the present round. Written by the owner while no helper is active.
    work: UnsafeCell<Option<Work<'static>>>,
    /// The units of the present round, a share for each thread.
    shares: Vec<Share>,
    round: AtomicUsize,
    /// [`OPEN`] while helpers may join the round, and how many are in it.
    gate: AtomicUsize,
    asleep: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// A range of units, of which those before `next` are taken. On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: AtomicUsize,
}

/// Flag of a gate that helpers may pass.
const OPEN: usize = 1 << (usize::BITS - 1);

// SAFETY: `work` is written only by the owner of the round, while the gate is closed and nobody
// is behind it, and read only by helpers that have passed it.
unsafe impl Sync for Shared {}

/// Most threads of a pool.
const MAX_THREADS: usize = 256;

/// Multiplications from which on more threads pay.
const WORTHWHILE: usize = 1 << 17;

/// The calling thread alone.
static ALONE: LazyLock<Pool> = LazyLock::new(|| Pool::new(1));

/// A pool of threads, of which the calling one is the first.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<(JoinHandle<()>, Thread)>,
    /// Held while a round runs: a pool does one thing at a time.
    turn: Mutex<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pool of {}", self.threads())
    }
}

impl Default for Pool {
    /// One thread for each that the machine runs at a time.
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS))
    }
}

impl Pool {
    /// A pool of this many threads, the calling one included. Where the system refuses threads,
    /// there are fewer.
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, MAX_THREADS);
        let shared = Arc::new(Shared {
            work: UnsafeCell::new(None),
            shares: (0..threads).map(|_| Share::default()).collect(),
            round: AtomicUsize::new(0),
            gate: AtomicUsize::new(0),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut helpers = Vec::new();
        for helper in 0..shared.asleep.len() {
            let for_helper = Arc::clone(&shared);
            let name = format!("engine {}", helper + 1);
            let spawned =
                thread::Builder::new().name(name).spawn(move || help(&for_helper, helper));
            let Ok(handle) = spawned else { break };
            let thread = handle.thread().clone();
            helpers.push((handle, thread));
        }
        Self { shared, helpers, turn: Mutex::new(()) }
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// The calling thread alone.
    pub(crate) fn alone() -> &'static Self {
        &ALONE
    }

    /// This pool, or the calling thread alone where the work is too small to share.
    pub fn for_work(&self, multiplications: usize) -> &Self {
        if multiplications < WORTHWHILE { &ALONE } else { self }
    }

    /// Calls `work` once for each unit below `units`, with the number of the thread that does it.
    ///
    /// # Panics
    /// If `work` does.
    pub(crate) fn run(&self, units: usize, work: impl Fn(usize, usize) + Sync) {
        if self.helpers.is_empty() || units <= 1 {
            return (0..units).for_each(|unit| work(unit, 0));
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let work: Work<'_> = &work;
        // SAFETY: helpers use the work only behind the gate, and this function does not return, nor
        // unwind, before the gate is closed and nobody is left behind it.
        unsafe { *shared.work.get() = Some(std::mem::transmute::<Work<'_>, Work<'static>>(work)) };
        let threads = self.threads();
        for (thread, share) in shared.shares.iter().enumerate() {
            share.next.store(units * thread.min(threads) / threads, Ordering::Relaxed);
            share.end.store(units * (thread + 1).min(threads) / threads, Ordering::Relaxed);
        }
        shared.gate.store(OPEN, Ordering::SeqCst);
        shared.round.fetch_add(1, Ordering::SeqCst);
        for ((_, helper), asleep) in self.helpers.iter().zip(&shared.asleep) {
            if asleep.swap(false, Ordering::SeqCst) {
                helper.unpark();
            }
        }
        let result = catch_unwind(AssertUnwindSafe(|| take_units(shared, work, 0)));
        // There is nothing left to take. Who has not come yet need not come: where other programs
        // hold the processors, waiting for a helper that is not running would take longest.
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.gate.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!panicked, "a thread of the pool panicked");
    }

    /// Cuts `values` into pieces of `length` and calls `work` once for each, with its number. A
    /// thread's calls share one of `scratch`, of which there are as many as threads.
    ///
    /// # Panics
    /// If `values` is no whole number of pieces, there are too few scratches, or `work` panics.
    pub fn pieces<T: Send, S: Send>(
        &self,
        values: &mut [T],
        length: usize,
        scratch: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        self.pieces_of_two(
            (values, length),
            (&mut [(); 0], 0),
            scratch,
            |unit, piece, _, scratch| {
                work(unit, piece, scratch);
            },
        );
    }

    /// Like [`pieces`](Self::pieces), for two slices cut into equally many pieces. A
    /// length of 0 stands for a slice that is not used.
    ///
    /// # Panics
    /// As [`pieces`](Self::pieces), or if the numbers of pieces differ.
    pub(crate) fn pieces_of_two<A: Send, B: Send, S: Send>(
        &self,
        first: (&mut [A], usize),
        second: (&mut [B], usize),
        scratch: &mut [S],
        work: impl Fn(usize, &mut [A], &mut [B], &mut S) + Sync,
    ) {
        let third = (&mut [(); 0][..], 0);
        self.pieces_of_three(first, second, third, scratch, |unit, first, second, _, scratch| {
            work(unit, first, second, scratch);
        });
    }

    /// Like [`pieces_of_two`](Self::pieces_of_two), for three slices.
    ///
    /// # Panics
    /// As [`pieces_of_two`](Self::pieces_of_two).
    pub(crate) fn pieces_of_three<A: Send, B: Send, C: Send, S: Send>(
        &self,
        (first, first_length): (&mut [A], usize),
        (second, second_length): (&mut [B], usize),
        (third, third_length): (&mut [C], usize),
        scratch: &mut [S],
        work: impl Fn(usize, &mut [A], &mut [B], &mut [C], &mut S) + Sync,
    ) {
        if first.is_empty() {
            return;
        }
        let units = first.len() / first_length;
        assert_eq!(units * first_length, first.len(), "whole pieces");
        assert!(second_length == 0 || units * second_length == second.len(), "as many pieces");
        assert!(third_length == 0 || units * third_length == third.len(), "as many pieces");
        assert!(scratch.len() >= self.threads(), "a scratch for each thread");
        let (first, second, third) = (Pieces::new(first), Pieces::new(second), Pieces::new(third));
        let scratch = Pieces::new(scratch);
        self.run(units, |unit, thread| {
            // SAFETY: each unit is taken once, so pieces are lent once; they lie apart and within
            // their slices, as checked above. A thread does one unit at a time.
            let (first, second, third, scratch) = unsafe {
                (
                    first.piece(unit * first_length, first_length),
                    second.piece(unit * second_length, second_length),
                    third.piece(unit * third_length, third_length),
                    scratch.piece(thread, 1),
                )
            };
            work(unit, first, second, third, &mut scratch[0]);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        for (handle, thread) in self.helpers.drain(..) {
            thread.unpark();
            // A helper's panic was reported by the round it belonged to.
            let _ = handle.join();
        }
    }
}

/// A slice of which threads borrow different pieces.
struct Pieces<'a, T> {
    start: *mut T,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow that is handed out in pieces; `T` may be sent.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), lent: PhantomData }
    }

    /// # Safety
    /// The piece lies within the slice, and nobody else has borrowed a part of it.
    #[allow(clippy::mut_from_ref)] // that is what it is for
    unsafe fn piece(&self, start: usize, length: usize) -> &mut [T] {
        // SAFETY: the caller answers for it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}

fn take_units(shared: &Shared, work: Work<'_>, thread: usize) {
    let (before, own) = shared.shares.split_at(thread);
    for share in own.iter().chain(before) {
        let end = share.end.load(Ordering::Relaxed);
        loop {
            let unit = share.next.fetch_add(1, Ordering::Relaxed);
            if unit >= end {
                break;
            }
            work(unit, thread);
        }
    }
}

/// Waits for a moment, and lets others run when it has been many.
fn pause(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

fn help(shared: &Shared, helper: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.round.load(Ordering::SeqCst) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // Announce the sleep, then look once more: the owner looks at this after it has
            // announced a round, so one of the two sees the other.
            shared.asleep[helper].store(true, Ordering::SeqCst);
            if shared.round.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            shared.asleep[helper].store(false, Ordering::SeqCst);
        }
        seen = shared.round.load(Ordering::SeqCst);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let enter = |gate| (gate & OPEN != 0).then_some(gate + 1);
        if shared.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, enter).is_err() {
            continue;
        }
        // SAFETY: this helper has passed the gate, so the owner neither writes the work nor ends
        // its life before the helper leaves below.
        let work = unsafe { *shared.work.get() };
        let done = catch_unwind(AssertUnwindSafe(|| {
            if let Some(work) = work {
                take_units(shared, work, helper + 1);
            }
        }));
        if done.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.gate.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_do_every_unit_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let mut scratch = vec![0usize; threads];
            for round in 0..500 {
                let units = round % 17;
                let mut values = vec![0; units * 3];
                pool.pieces(&mut values, 3, &mut scratch, |unit, piece, done| {
                    piece.iter_mut().for_each(|value| *value += unit + 1);
                    *done += 1;
                });
                let expected: Vec<usize> = (0..units * 3).map(|index| index / 3 + 1).collect();
                assert_eq!(values, expected);
            }
            let total: usize = (0..500).map(|round| round % 17).sum();
            assert_eq!(scratch.iter().sum::<usize>(), total);
        }
    }

    #[test]
    fn should_serve_callers_on_several_threads_in_turn() {
        let pool = Pool::new(3);
        thread::scope(|scope| {
            for caller in 0..3 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let mut values = [0; 8];
                        pool.pieces(&mut values, 1, &mut [(); 3], |unit, piece, ()| {
                            piece[0] = caller * 100 + unit;
                        });
                        assert_eq!(values, std::array::from_fn(|unit| caller * 100 + unit));
                    }
                });
            }
        });
    }

    #[test]
    fn should_pass_a_panic_on_and_work_again() {
        let pool = Pool::new(2);
        for _ in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, |unit, _| assert!(unit != 5, "unit five"));
            }));
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            pool.run(8, |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 8);
        }
    }

    #[test]
    fn should_wake_helpers_that_sleep() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            while !pool.shared.asleep[0].load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // Unit 0 ends only after the other thread has done unit 1, or the other way round.
            let both = std::sync::Barrier::new(2);
            pool.run(2, |_, _| {
                both.wait();
            });
        }
    }

    #[test]
    #[should_panic(expected = "whole pieces")]
    fn should_refuse_a_slice_that_is_no_whole_number_of_pieces() {
        Pool::new(1).pieces(&mut [0; 7], 3, &mut [()], |_, _, ()| ());
    }
}
