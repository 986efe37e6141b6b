//! What a run is about to do, so that a person can stop it before it has cost hours.

/// What a trainer works with.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// What is trained: "the tokenizer's encoder, codebook and causal decoder".
    pub trains: String,
    /// Pictures of the whole data set, before any are held out.
    pub pictures: usize,
    /// Pictures that are learned from.
    pub learned: usize,
    /// Classes of the data set.
    pub classes: usize,
    /// Pictures that are evaluated on, if there are any.
    pub heldout: Option<usize>,
    /// Width and height of a picture in pixels.
    pub image: (usize, usize),
    /// Tokens of a picture.
    pub tokens: usize,
    /// Numbers that the optimizer changes.
    pub parameters: usize,
    /// Numbers that the forward pass of one sample leaves for the backward pass.
    pub activations: usize,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// What a run is about to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the trainer works with.
    pub scope: Scope,
    /// Steps that are done already.
    pub done: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Samples a step, over all processes.
    pub batch: usize,
    /// How often the whole run sees each picture.
    pub epochs: f64,
    /// Bytes of memory that the run takes about: parameters, gradients and moments exactly,
    /// activations and the program itself as an estimate.
    pub memory: u64,
    /// Of these, parameters, gradients and moments.
    pub state: u64,
}

impl Plan {
    /// Bytes that the program takes besides the model: its code, threads, pictures that are read ahead, and
    /// what the allocator holds in reserve. Measured on runs of 20 steps of `quick` at 64 pixels, which
    /// took 90 to 160 MiB more than parameters and activations.
    const PROGRAM: u64 = 100 << 20;
    /// Bytes of a number in single precision.
    const NUMBER: u64 = 4;

    /// A run of `steps` steps, of which some are done, of `batch` samples each. A process has
    /// `side_by_side` samples in memory at a time and keeps `copies` of the parameters: the
    /// parameters themselves, gradients, two moments and averages.
    pub(crate) fn new(
        scope: Scope,
        (done, steps): (u64, u64),
        batch: usize,
        side_by_side: usize,
        copies: u64,
    ) -> Self {
        let times = |count: usize, by: u64| (count as u64).saturating_mul(by);
        let state = times(scope.parameters, copies * Self::NUMBER);
        let activations = times(scope.activations, Self::NUMBER);
        let memory = state.saturating_add(activations.saturating_mul(side_by_side as u64));
        let memory = memory.saturating_add(Self::PROGRAM);
        let samples = steps as f64 * batch as f64;
        let epochs = samples / scope.learned.max(1) as f64;
        Self { scope, done, steps, batch, epochs, memory, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_count_epochs_and_memory_and_never_overflow() {
        let scope = |parameters| Scope {
            trains: "a model".into(),
            pictures: 60,
            learned: 50,
            classes: 2,
            heldout: None,
            image: (64, 64),
            tokens: 72,
            parameters,
            activations: 1000,
            warnings: Vec::new(),
        };
        let plan = Plan::new(scope(10), (0, 100), 16, 8, 4);
        assert_eq!(
            (plan.epochs, plan.state, plan.memory),
            (32.0, 160, Plan::PROGRAM + 160 + 32_000)
        );
        assert_eq!(Plan::new(scope(usize::MAX), (0, u64::MAX), 16, 8, 4).memory, u64::MAX);
    }
}
