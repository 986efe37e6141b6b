//! The permutations of NumPy's `RandomState`, which torch-fidelity's protocol is defined by.
//!
//! All other randomness comes from addresses and never from a generator with a state. Here the
//! protocol itself says which rows are compared, as the first numbers of MT19937 (Matsumoto and
//! Nishimura 1998) at a fixed seed; the generator lives for the length of one call.

const LENGTH: usize = 624;
const SHIFT: usize = 397;

pub(crate) struct LegacyRandom {
    state: [u32; LENGTH],
    next: usize,
}

impl LegacyRandom {
    /// The seed that torch-fidelity's protocol has.
    pub(crate) const TORCH_FIDELITY: u32 = 2020;

    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [seed; LENGTH];
        for i in 1..LENGTH {
            let before = state[i - 1];
            state[i] =
                1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: LENGTH }
    }

    fn bits(&mut self) -> u32 {
        if self.next == LENGTH {
            for i in 0..LENGTH {
                let joined =
                    (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % LENGTH] & 0x7fff_ffff);
                let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[i] = self.state[(i + SHIFT) % LENGTH] ^ (joined >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    /// `RandomState.permutation(count)`; its first `n` are `choice(count, n, replace=False)`.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let mask = u32::MAX >> (last as u32).leading_zeros();
            let chosen = loop {
                let drawn = (self.bits() & mask) as usize;
                if drawn <= last {
                    break drawn;
                }
            };
            order.swap(last, chosen);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_permute_as_numpy_does() {
        // numpy 2.4.6: r = RandomState(2020); r.permutation(12); r.permutation(2000)[[0, 999, 1999]]
        let mut random = LegacyRandom::new(2020);
        assert_eq!(random.permutation(12), [2, 1, 11, 4, 10, 5, 7, 9, 6, 3, 8, 0]);
        let long = random.permutation(2000);
        assert_eq!([long[0], long[999], long[1999]], [1066, 1312, 560]);
    }
}
