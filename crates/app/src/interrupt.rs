//! Ctrl-C and SIGTERM: work that can save is asked to, all other ends at once and leaves nothing
//! half-written.

use std::{
    process,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::progress;

/// The first signal that asked this process to end; 0 before.
static ASKED: AtomicI32 = AtomicI32::new(0);
/// Whether the work that goes on saves when it is asked to end.
static SAVES: AtomicBool = AtomicBool::new(false);

/// Watches for signals. To be called once, before work begins.
pub(crate) fn watch() {
    // Without it, signals do what they do by default.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for signal in signals.forever() {
            let first = ASKED.swap(signal, Ordering::SeqCst) == 0;
            if first && SAVES.load(Ordering::SeqCst) {
                progress::note("saving after this step; the same again ends at once");
            } else {
                files::remove_unfinished();
                // Nobody can be waited for: the thread that works does not look.
                #[allow(clippy::exit)]
                process::exit(exit_code(signal));
            }
        }
    });
}

/// Says that what follows asks [`is_asked`] and saves.
pub(crate) fn will_save() {
    SAVES.store(true, Ordering::SeqCst);
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
