//! Shows how far measurements and experiments are.

use training::telemetry::Observer;

use crate::{
    progress::{self, Progress},
    reference::training_progress::TrainingProgress,
};

/// Shows how far a measurement is.
#[derive(Default)]
pub(crate) struct Watcher {
    current: Option<(&'static str, Progress)>,
}

impl evaluation::Observer for Watcher {
    fn progress(&mut self, what: &'static str, done: u64, total: u64) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != what) {
            self.current = Some((what, Progress::new(what, total)));
        }
        if let Some((_, progress)) = &mut self.current {
            progress.set(done);
        }
        if done >= total
            && let Some((_, progress)) = self.current.take()
        {
            progress.finish();
        }
    }

    fn departure(&mut self, text: &str) {
        progress::note(&format!("NOTE: {text}"));
    }

    fn note(&mut self, text: &str) {
        progress::note(text);
    }
}

impl experiment::Observer for Watcher {
    fn training(&mut self) -> Box<dyn Observer + '_> {
        Box::new(TrainingProgress::new(true))
    }
}
