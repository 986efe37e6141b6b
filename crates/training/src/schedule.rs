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
