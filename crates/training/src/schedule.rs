//! The learning rate over a run.

/// Linear warm-up, then a half cosine down to the final rate (paper, 4.1, following RAR;
/// released code, `utils/lr_schedulers.py`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Rate that the cosine reaches after the last step.
    pub last: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
}

impl WarmupCosine {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let decay = (self.steps.saturating_sub(self.warmup)).max(1);
        let progress = ((step - self.warmup) as f64 / decay as f64).min(1.0);
        let weight = (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
        self.last + (self.peak - self.last) * weight
    }
}

/// The learning rate over a run: one schedule after another.
#[derive(Debug, Clone, PartialEq)]
pub struct LearningRates {
    /// First step of each, in order; the first begins with the run.
    parts: Vec<(u64, WarmupCosine)>,
}

impl LearningRates {
    /// A schedule of the whole run, and those that take over from some step on, in order. Each
    /// ends where the next begins, the last with the run.
    pub fn new(whole: WarmupCosine, later: impl IntoIterator<Item = (u64, WarmupCosine)>) -> Self {
        let mut parts = vec![(0, whole)];
        for (first, schedule) in later {
            parts.retain(|(known, _)| *known != first);
            parts.push((first, schedule));
        }
        let mut end = whole.steps;
        for (first, schedule) in parts.iter_mut().rev() {
            schedule.steps = end - *first;
            end = *first;
        }
        Self { parts }
    }

    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let part = self.parts.iter().rev().find(|(first, _)| *first <= step);
        let (first, schedule) = part.expect("the first schedule begins with the run");
        schedule.rate(step - first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_let_each_schedule_end_where_the_next_begins() {
        let schedule = |peak, last, warmup| WarmupCosine { peak, last, warmup, steps: 100 };
        let whole = schedule(4.0, 2.0, 10);
        let alone = LearningRates::new(whole, []);
        assert!((0..=100).all(|step| alone.rate(step) == whole.rate(step)));

        let later = [(40, schedule(1.0, 1.0, 0)), (60, schedule(3.0, 0.0, 20))];
        let rates = LearningRates::new(whole, later);
        assert_eq!([0, 5, 10].map(|step| rates.rate(step)), [0.0, 2.0, 4.0]);
        // Half way of the thirty steps after the warm-up, and nearly at their end.
        assert_eq!(rates.rate(25), 3.0);
        assert!(rates.rate(39) > 2.0 && rates.rate(39) < 2.01);
        assert_eq!([40, 59, 60, 70, 80].map(|step| rates.rate(step)), [1.0, 1.0, 0.0, 1.5, 3.0]);
        assert!(rates.rate(99) < 0.02 && rates.rate(100) < 1e-12);
        // One from the start on stands in place of the whole run's.
        let other = LearningRates::new(whole, [(0, schedule(1.0, 1.0, 0))]);
        assert_eq!(other.rate(50), 1.0);
    }
}
