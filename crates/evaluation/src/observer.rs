//! Who is told how far long work is.

/// Watches long work: a progress bar, a log, a server's stream of events. `()` watches nothing.
pub trait Observer {
    /// `done` of `total` units of the work `what` are done. Work begins with `done` = 0 and ends with
    /// `done` = `total`; another kind of work begins only after that.
    fn progress(&mut self, what: &'static str, done: u64, total: u64) {
        let _ = (what, done, total);
    }

    /// Something departs from how the number is defined. The result lists it too.
    fn departure(&mut self, text: &str) {
        let _ = text;
    }

    /// Something that a person should know.
    fn note(&mut self, text: &str) {
        let _ = text;
    }
}

impl Observer for () {}

/// Tells an observer each departure.
pub(crate) fn tell(observer: &mut dyn Observer, departures: &[String]) {
    departures.iter().for_each(|departure| observer.departure(departure));
}
