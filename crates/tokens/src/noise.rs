//! Randomness as a pure function of its address.
//!
//! Dropout, class dropout, crops, data order and sampling noise are read from here by
//! (seed, purpose, step, sample), never from a generator that remembers. That makes a resumed
//! run equal an uninterrupted one to the bit, and a picture independent of its batch.

/// What a stream of noise is for. Two purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Initial values of parameters.
    Initialization = 1,
    /// The order in which samples are visited.
    Order = 2,
    /// Crops, flips and other augmentation.
    Augmentation = 3,
    /// Dropout inside a model.
    Dropout = 4,
    /// Replacing a class label by the unconditional one.
    ClassDropout = 5,
    /// Choosing tokens.
    Sampling = 6,
    /// Choosing the features that rarely used codes move to.
    Clustering = 7,
    /// Choosing the samples that take the places of bad ones.
    Replacement = 8,
    /// Drawing rows anew, to see how a measure scatters.
    Bootstrap = 9,
    /// Choosing pictures of a class.
    Selection = 10,
    /// Choosing pictures that are not learned from.
    HeldOut = 11,
    /// Choosing one of a picture's captions.
    Caption = 12,
    /// Dropping a caption.
    CaptionDropout = 13,
    /// Placing shapes in pictures that are made up.
    Shapes = 14,
}

/// A seed that stands for a text: its FNV-1a hash.
pub fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// An endless row of random numbers at one address.
///
/// SplitMix64 (Steele, Lea and Flood 2014) over a key that is mixed from the address; it passes
/// the usual test batteries and costs a few nanoseconds a number.
#[derive(Debug, Clone)]
pub struct Noise {
    state: u64,
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Noise {
    /// The noise at (seed, purpose, step, sample).
    pub fn new(seed: u64, purpose: Purpose, step: u64, sample: u64) -> Self {
        let state = [purpose as u64, step, sample].into_iter().fold(
            mix(seed.wrapping_add(GOLDEN)),
            |key, part| {
                mix(key.wrapping_add(GOLDEN) ^ mix(part.wrapping_mul(GOLDEN).wrapping_add(1)))
            },
        );
        Self { state }
    }

    /// The noise of a parameter's initial values. It depends on the parameter's name, by FNV-1a,
    /// and not on the order of fields; `part` counts pieces of a large parameter that are drawn
    /// apart.
    pub fn of_parameter(seed: u64, name: &str, part: u64) -> Self {
        let address = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(seed, Purpose::Initialization, address, part)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Leaves out as many calls of [`bits`](Self::bits), at once.
    pub fn skip(&mut self, count: u64) {
        self.state = self.state.wrapping_add(GOLDEN.wrapping_mul(count));
    }

    /// A number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A whole number in `0..bound`, without bias.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "no number is below zero");
        let bound = bound as u64;
        // Lemire's multiply-and-reject.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// A number of the standard normal distribution (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A number of the standard Gumbel distribution: adding one to each logit and taking the
    /// largest draws from their softmax.
    pub fn gumbel(&mut self) -> f64 {
        // Shifted by half a step, so that neither logarithm meets zero.
        let uniform = ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64);
        -(-uniform.ln()).ln()
    }

    /// The numbers `0..count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// Rounds of a [`Permutation`]. Few would do for many numbers; the smallest counts need more to
/// reach every order about equally often.
const ROUNDS: usize = 16;

/// The numbers `0..count` in random order, each computed when it is asked for. Nothing is listed:
/// the order of a billion samples takes no more memory than that of ten, and any part of it can be
/// read by any process.
///
/// A Feistel network with additions (Black and Rogaway 2002, section 5, "generalized Feistel"):
/// a number is written as two digits, of bases about √count, and each round adds a hash of one
/// digit to the other. Results of `count` and more go through it again ("cycle walking").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    count: u64,
    bases: [u64; 2],
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// An order of `0..count`, chosen by the next numbers of `noise`.
    pub fn new(noise: &mut Noise, count: usize) -> Self {
        let count = count as u64;
        let root = count.isqrt();
        let larger = if root * root == count { root } else { root + 1 }.max(1);
        let bases = [larger, count.div_ceil(larger).max(1)];
        Self { count, bases, keys: std::array::from_fn(|_| noise.bits()) }
    }

    /// The number at `position`.
    ///
    /// # Panics
    /// If `position` is not smaller than the count.
    pub fn at(&self, position: usize) -> usize {
        let mut number = position as u64;
        assert!(number < self.count, "position {number} of {} numbers", self.count);
        loop {
            number = self.encipher(number);
            if number < self.count {
                return number as usize;
            }
        }
    }

    fn encipher(&self, number: u64) -> u64 {
        let mut digits = [number / self.bases[1], number % self.bases[1]];
        for (round, key) in self.keys.iter().enumerate() {
            let (to, from) = (round % 2, 1 - round % 2);
            let hash = mix(key ^ mix(digits[from].wrapping_add(GOLDEN)));
            let step = (u128::from(hash) * u128::from(self.bases[to])) >> 64;
            digits[to] = (digits[to] + step as u64) % self.bases[to];
        }
        digits[0] * self.bases[1] + digits[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(count: usize, mut next: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..count).map(|_| next()).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64;
        (mean, variance)
    }

    #[test]
    fn should_repeat_at_the_same_address_and_differ_at_any_other() {
        let at = |seed, purpose, step, sample| Noise::new(seed, purpose, step, sample).bits();
        let here = at(7, Purpose::Sampling, 3, 5);
        assert_eq!(here, at(7, Purpose::Sampling, 3, 5));
        for other in [
            at(8, Purpose::Sampling, 3, 5),
            at(7, Purpose::Dropout, 3, 5),
            at(7, Purpose::Sampling, 5, 3),
            at(7, Purpose::Sampling, 3, 6),
        ] {
            assert_ne!(here, other);
        }
    }

    #[test]
    fn should_skip_what_it_would_have_drawn() {
        let mut drawn = Noise::new(7, Purpose::Sampling, 3, 5);
        let mut skipped = drawn.clone();
        for _ in 0..1000 {
            drawn.bits();
        }
        skipped.skip(1000);
        assert_eq!(drawn.bits(), skipped.bits());
    }

    #[test]
    fn should_have_the_moments_of_its_distributions() {
        let mut noise = Noise::new(1, Purpose::Dropout, 0, 0);
        let (mean, variance) = draw(200_000, || noise.uniform());
        assert!((mean - 0.5).abs() < 3e-3 && (variance - 1.0 / 12.0).abs() < 1e-3);
        let (mean, variance) = draw(200_000, || noise.normal());
        assert!(mean.abs() < 8e-3 && (variance - 1.0).abs() < 2e-2);
        let (mean, variance) = draw(200_000, || noise.gumbel());
        assert!((mean - 0.577_216).abs() < 1e-2 && (variance - 1.644_934).abs() < 3e-2);
    }

    #[test]
    fn should_permute_without_loss() {
        let mut order = Noise::new(1, Purpose::Order, 0, 0).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn should_order_any_count_without_loss() {
        for count in (1..70).chain([1000, 1023, 1024, 1025, 65_537]) {
            let order = Permutation::new(&mut Noise::new(3, Purpose::Order, 0, 0), count);
            let mut numbers: Vec<usize> = (0..count).map(|position| order.at(position)).collect();
            if count > 20 {
                let stayed = numbers.iter().enumerate().filter(|(at, number)| at == *number);
                assert!(stayed.count() < 10, "{count}: the numbers hardly moved");
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>());
        }
        let huge = Permutation::new(&mut Noise::new(3, Purpose::Order, 0, 0), usize::MAX);
        assert_ne!(huge.at(usize::MAX - 1), huge.at(0));
    }

    #[test]
    fn should_reach_every_order_about_equally_often() {
        let mut seen = std::collections::HashMap::new();
        for seed in 0..24_000 {
            let order = Permutation::new(&mut Noise::new(seed, Purpose::Order, 0, 0), 4);
            let order: [usize; 4] = std::array::from_fn(|position| order.at(position));
            *seen.entry(order).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 24);
        // 1000 is expected of each, with a standard deviation of 31.
        assert!(seen.values().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn should_leave_no_trace_of_neighbours_in_an_order() {
        // Of two neighbours the second follows the first by chance alone, and so does the parity.
        let count = 10_000;
        let order = Permutation::new(&mut Noise::new(9, Purpose::Order, 2, 0), count);
        let numbers: Vec<usize> = (0..count).map(|position| order.at(position)).collect();
        let rising = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((4_800..5_200).contains(&rising), "{rising}"); // deviation 29
        let steps: std::collections::HashSet<_> =
            numbers.windows(2).map(|pair| pair[1] as i64 - pair[0] as i64).collect();
        // As many as of a list that was shuffled: 1 - 1/e of them would differ, were all equally likely.
        assert!(steps.len() > 5_000, "{}", steps.len());
    }
}
