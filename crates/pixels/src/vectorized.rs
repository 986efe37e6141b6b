//! Loops with the widest vector instructions of the machine that the program runs on.

use macerator::{AutoArch, Simd, WithSimd};

/// Work on whole numbers, of which every instruction set makes the same.
pub(crate) trait Kernel {
    /// Does the work. This method and what it calls must be marked `inline(always)`: what is not
    /// inlined is compiled for the oldest machine.
    fn run(self);
}

struct Work<K>(K);

impl<K: Kernel> WithSimd for Work<K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        self.0.run();
    }
}

/// Runs a kernel that was compiled once for each instruction set.
#[inline]
pub(crate) fn vectorized(kernel: impl Kernel) {
    AutoArch::new().dispatch(Work(kernel));
}
