//! Ctrl-C and SIGTERM: work that can save or finish is asked to, all other ends at once and leaves
//! nothing half-written.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::progress;

/// The first signal that asked this process to end; 0 before.
static ASKED: AtomicI32 = AtomicI32::new(0);
/// What the work that goes on does when it is asked to end, where it does anything.
static FINISHES: OnceLock<&str> = OnceLock::new();

/// Watches for signals. To be called once, before work begins.
#[cfg(not(windows))]
pub(crate) fn watch() {
    // Without it, signals do what they do by default.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for signal in signals.forever() {
            arrived(signal);
        }
    });
}

/// Watches for signals. To be called once, before work begins. Windows has no queue of signals to wait
/// for, so this looks from time to time.
#[cfg(windows)]
pub(crate) fn watch() {
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        time::Duration,
    };
    let last = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        // Without it, signals do what they do by default.
        let watched = signal_hook::flag::register_usize(signal, Arc::clone(&last), signal as usize);
        if watched.is_err() {
            return;
        }
    }
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(50));
            match last.swap(0, Ordering::SeqCst) {
                0 => {}
                signal => arrived(signal as i32),
            }
        }
    });
}

/// What a signal does.
fn arrived(signal: i32) {
    let first = ASKED.swap(signal, Ordering::SeqCst) == 0;
    if first && let Some(how) = FINISHES.get() {
        progress::note(how);
    } else {
        files::remove_unfinished();
        // Nobody can be waited for: the thread that works does not look.
        #[allow(clippy::exit)]
        process::exit(exit_code(signal));
    }
}

/// Says that what follows asks [`is_asked`] and ends by itself; `how` is what people are told then.
pub(crate) fn will_finish(how: &'static str) {
    // Only the first call counts; a process does one thing.
    let _ = FINISHES.set(how);
}

/// Whether this process was asked to end.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst) != 0
}

/// The exit code of a process that ended because it was asked to: 130 after Ctrl-C, 143 after
/// SIGTERM.
pub(crate) fn code() -> Option<u8> {
    let signal = ASKED.load(Ordering::SeqCst);
    (signal != 0).then(|| exit_code(signal) as u8)
}

fn exit_code(signal: i32) -> i32 {
    128 + signal
}
