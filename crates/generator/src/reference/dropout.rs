//! Dropout that can be repeated.

use burn::tensor::{Tensor, TensorData};
use operations::fused::AttentionDropout;
use rayon::prelude::*;
use tokens::noise::{Noise, Purpose};

/// Dropout of one training step. Masks are pure functions of (seed, step, sample, call): they
/// neither depend on how samples are split over batches and processes, nor on what ran before.
///
/// As in the released configurations, one rate holds for all places: the embedded tokens, the
/// attention probabilities, and the outputs of attention and of the feed-forward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability that a number is zeroed, in [0, 1); the others are divided by 1 − rate.
    /// The paper's is 0.1.
    pub rate: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step.
    pub step: u64,
    /// Index, within the step, of the first sample of the batch.
    pub first_sample: u64,
}

/// A place of the forward pass where numbers are dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Embedding,
    Probabilities { layer: usize },
    Attention { layer: usize },
    FeedForward { layer: usize },
}

impl Place {
    /// The number of the call, different at each place.
    const fn call(self) -> u64 {
        let (layer, place) = match self {
            Self::Embedding => return 0,
            Self::Probabilities { layer } => (layer, 1),
            Self::Attention { layer } => (layer, 2),
            Self::FeedForward { layer } => (layer, 3),
        };
        3 * layer as u64 + place
    }
}

impl Dropout {
    /// Drops numbers of `x`, whose first dimension is the sample.
    ///
    /// # Shapes
    /// `x [batch, …]`, kept.
    pub(crate) fn apply<const D: usize>(&self, x: Tensor<D>, place: Place) -> Tensor<D> {
        if self.rate == 0.0 {
            return x;
        }
        let shape = x.dims();
        let mask = TensorData::new(self.mask(shape[0], shape[1..].iter().product(), place), shape);
        let device = x.device();
        x * Tensor::from_data(mask, &device)
    }

    /// The same dropout for the probabilities of attention, where any are dropped.
    pub(crate) fn of_attention(&self, place: Place) -> Option<AttentionDropout> {
        let dropout = *self;
        (self.rate > 0.0).then(|| {
            AttentionDropout::new(move |sample, start, out| {
                dropout.fill(dropout.first_sample + sample as u64, place, start, out);
            })
        })
    }

    /// `[batch, size]` factors: 0, or 1 / (1 − rate).
    fn mask(&self, batch: usize, size: usize, place: Place) -> Vec<f32> {
        let mut mask = vec![0.0; batch * size];
        mask.par_chunks_mut(size).enumerate().for_each(|(sample, mask)| {
            self.fill(self.first_sample + sample as u64, place, 0, mask);
        });
        mask
    }

    /// Factors of a sample from number `start` on. Each 64 random bits decide on two numbers.
    fn fill(&self, sample: u64, place: Place, start: usize, mask: &mut [f32]) {
        let keep = (1.0 / (1.0 - self.rate)) as f32;
        let threshold = (self.rate * 2f64.powi(32)) as u64;
        let factor = |bits: u64| if bits < threshold { 0.0 } else { keep };
        let address = Noise::new(self.seed, Purpose::Dropout, self.step, sample).bits();
        let mut noise = Noise::new(address, Purpose::Dropout, place.call(), 0);
        noise.skip(start as u64 / 2);
        let (first, rest) = mask.split_at_mut((start % 2).min(mask.len()));
        for second in first {
            *second = factor(noise.bits() & u64::from(u32::MAX));
        }
        for pair in rest.chunks_mut(2) {
            let bits = noise.bits();
            pair[0] = factor(bits >> 32);
            if let Some(second) = pair.get_mut(1) {
                *second = factor(bits & u64::from(u32::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DROPOUT: Dropout = Dropout { rate: 0.1, seed: 1, step: 2, first_sample: 3 };
    const PLACE: Place = Place::Attention { layer: 1 };

    #[test]
    fn should_drop_at_its_rate_and_keep_the_mean() {
        let mask = DROPOUT.mask(4, 50_001, PLACE);
        let dropped = mask.iter().filter(|&&factor| factor == 0.0).count() as f64;
        assert!((dropped / mask.len() as f64 - 0.1).abs() < 3e-3);
        assert!(mask.iter().all(|&factor| factor == 0.0 || factor == 1.0 / 0.9));
    }

    #[test]
    fn should_give_a_sample_the_same_mask_in_any_batch() {
        let together = DROPOUT.mask(3, 101, PLACE);
        let alone = Dropout { first_sample: 5, ..DROPOUT }.mask(1, 101, PLACE);
        assert_eq!(together[202..], alone);
    }

    #[test]
    fn should_give_a_part_of_a_sample_what_the_whole_has_there() {
        let whole = DROPOUT.mask(2, 101, PLACE);
        let dropout = DROPOUT.of_attention(PLACE).unwrap();
        for (start, end) in [(0, 101), (1, 2), (7, 50), (8, 51), (100, 101), (3, 3)] {
            let mut part = vec![0.0; end - start];
            dropout.factors(1, start, &mut part);
            assert_eq!(part, whole[101 + start..101 + end], "{start}..{end}");
        }
        assert!(Dropout { rate: 0.0, ..DROPOUT }.of_attention(PLACE).is_none());
    }

    #[test]
    fn should_number_all_places_apart() {
        let mut calls = vec![Place::Embedding.call()];
        for layer in 0..32 {
            calls.push(Place::Probabilities { layer }.call());
            calls.push(Place::Attention { layer }.call());
            calls.push(Place::FeedForward { layer }.call());
        }
        let distinct: std::collections::BTreeSet<u64> = calls.iter().copied().collect();
        assert_eq!(distinct.len(), calls.len());
    }

    #[test]
    fn should_differ_between_seeds_steps_samples_and_places() {
        let mask = |dropout: Dropout, place| dropout.mask(1, 256, place);
        let here = mask(DROPOUT, PLACE);
        for (dropout, place) in [
            (Dropout { seed: 2, ..DROPOUT }, PLACE),
            (Dropout { step: 3, ..DROPOUT }, PLACE),
            (Dropout { first_sample: 4, ..DROPOUT }, PLACE),
            (DROPOUT, Place::Embedding),
            (DROPOUT, Place::Probabilities { layer: 1 }),
            (DROPOUT, Place::FeedForward { layer: 1 }),
            (DROPOUT, Place::Attention { layer: 2 }),
        ] {
            assert_ne!(here, mask(dropout, place), "{dropout:?} {place:?}");
        }
    }
}
