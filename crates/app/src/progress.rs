//! Telling a person how far long work is: a bar on a terminal, plain lines in a log. The only
//! place that prints on standard error.

use std::{
    io::{ErrorKind, IsTerminal, Write},
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// How often a log gets a line.
const INTERVAL: Duration = Duration::from_secs(10);

/// One paragraph: what, where, what to do.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Transparent errors repeat their source's words.
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    note(&format!("error: {text}"));
}

/// A line on standard error.
pub(crate) fn note(text: &str) {
    // There is nobody left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether nobody reads standard output any more, as after `| head`.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// A line on standard output, the command's result. Where nobody reads it, the command goes on without.
pub(crate) fn result(text: &str) -> anyhow::Result<()> {
    print(format!("{text}\n").as_bytes())
}

/// Bytes on standard output; see [`result`].
pub(crate) fn print(bytes: &[u8]) -> anyhow::Result<()> {
    if UNREAD.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        printed => Ok(printed.context("cannot write to standard output")?),
    }
}

/// When the program began.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Begins to count the time that [`wrote`] tells.
pub(crate) fn start_clock() {
    LazyLock::force(&STARTED);
}

/// The line that closes a command: what it wrote, how many, how long it took, and where it is.
pub(crate) fn wrote(count: usize, what: &str, out: &Path) {
    let plural = if count == 1 { "" } else { "s" };
    closing(&format!("{count} {what}{plural}"), out);
}

/// As [`wrote`], for what is not counted.
pub(crate) fn closing(what: &str, out: &Path) {
    // Whoever closed standard output wants to read no more.
    if UNREAD.load(Ordering::Relaxed) {
        return;
    }
    let mut place = out.display().to_string();
    if out.is_dir() && !place.ends_with('/') {
        place.push('/');
    }
    note(&format!("{what} in {} → {place}", duration(STARTED.elapsed().as_secs_f64())));
}

/// The line that closes a command that has written no file: what it did, how many, and how long it took.
pub(crate) fn did(what: &str, count: usize, of: &str) {
    if UNREAD.load(Ordering::Relaxed) {
        return;
    }
    let plural = if count == 1 { "" } else { "s" };
    note(&format!("{what} {count} {of}{plural} in {}", duration(STARTED.elapsed().as_secs_f64())));
}

/// Progress of work whose size is known.
pub(crate) struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{prefix} {bar:32} {pos}/{len} {per_sec} eta {eta} {msg}";
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
                .with_style(
                    ProgressStyle::with_template(style).expect("the template is well formed"),
                )
                .with_prefix(what)
        });
        let now = Instant::now();
        Self { what, bar, total, started: now, told: now }
    }

    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64();
            note(&format!("{} {done}/{} after {seconds:.0} s", self.what, self.total));
        }
    }

    /// The bar alone, where there is a terminal, to be led in another way.
    pub(crate) fn into_bar(self) -> Option<ProgressBar> {
        self.bar
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a result as one JSON object with sorted keys.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    result(&serde_json::to_value(value)?.to_string())
}

/// Seconds as `1 d 2 h`, `2 h 05 min`, `5 min`, `40 s` or `3.8 s`.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    // What is not finite becomes a large number that nobody takes for an estimate.
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0 | 1) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A number with three digits: `1234`, `123`, `12.3`, `1.23`, `0.0123`, `1.23e-5`.
pub(crate) fn three_digits(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.0}").replace("-0", "0");
    }
    let (value, digits) = match magnitude {
        _ if magnitude < 9.995e-4 => return format!("{value:.2e}"),
        _ if magnitude < 9.995e-3 => (value, 5),
        _ if magnitude < 9.995e-2 => (value, 4),
        _ if magnitude < 0.9995 => (value, 3),
        _ if magnitude < 9.995 => (value, 2),
        _ if magnitude < 99.95 => (value, 1),
        _ => (value, 0),
    };
    format!("{value:.digits$}")
}

/// A count with its thousands set apart: `1 234 567`.
pub(crate) fn thousands(count: impl Into<u128>) -> String {
    let digits = count.into().to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for part in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(part.iter().map(|&digit| char::from(digit)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{duration, thousands, three_digits};

    #[test]
    fn should_say_how_long_in_the_units_that_matter() {
        let said = [0.4, 59.4, 100.0, 3599.0, 7500.0, 93_600.0].map(duration);
        assert_eq!(said, ["0.4 s", "59 s", "100 s", "59 min", "2 h 05 min", "1 d 2 h"]);
    }

    #[test]
    fn should_say_numbers_with_three_digits() {
        let said = [0.0, -0.0, 1234.5, 123.4, -12.34, 1.2345, 0.12345, 0.0123, 0.00123, 1.234e-5]
            .map(three_digits);
        let expected =
            ["0", "0", "1234", "123", "-12.3", "1.23", "0.123", "0.0123", "0.00123", "1.23e-5"];
        assert_eq!(said, expected);
        assert_eq!([0u64, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1 000", "1 234 567"]);
    }
}
