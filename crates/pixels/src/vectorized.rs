//! Loops with the widest vector instructions of the machine that the program runs on.

#[cfg(not(target_family = "wasm"))]
use macerator::{AutoArch, Simd, WithSimd};

/// Work on whole numbers, of which every instruction set makes the same.
pub(crate) trait Kernel {
    /// Does the work. This method and what it calls must be marked `inline(always)`: what is not
    /// inlined is compiled for the oldest machine.
    fn run(self);
}

#[cfg(not(target_family = "wasm"))]
struct Work<K>(K);

#[cfg(not(target_family = "wasm"))]
impl<K: Kernel> WithSimd for Work<K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        self.0.run();
    }
}

/// Runs a kernel that was compiled once for each instruction set. WebAssembly has one, which is
/// chosen when the program is built.
#[inline]
pub(crate) fn vectorized(kernel: impl Kernel) {
    #[cfg(not(target_family = "wasm"))]
    AutoArch::new().dispatch(Work(kernel));
    #[cfg(target_family = "wasm")]
    kernel.run();
}
