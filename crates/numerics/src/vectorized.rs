//! Loops with the widest vector instructions of the machine that the program runs on.

#[cfg(not(target_family = "wasm"))]
use macerator::{AutoArch, Simd, WithSimd};

/// Work that [`vectorized`] compiles for each instruction set. Closures are kernels, too.
///
/// All instruction sets must give the same result, so kernels use no fused multiply-add.
pub trait Kernel {
    /// Does the work. This method and everything it calls must be `inline(always)`, because code
    /// that is not inlined is compiled for the oldest machine.
    fn run(self);
}

impl<F: FnOnce()> Kernel for F {
    #[inline(always)]
    fn run(self) {
        self();
    }
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

/// Runs a kernel with the widest vector instructions of this machine. WebAssembly has one
/// instruction set, which is chosen when the program is built.
#[inline]
pub fn vectorized(kernel: impl Kernel) {
    #[cfg(not(target_family = "wasm"))]
    AutoArch::new().dispatch(Work(kernel));
    #[cfg(target_family = "wasm")]
    kernel.run();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{add, exp, fold, gelu, map};

    struct Double<'a>(&'a mut [f32]);

    impl Kernel for Double<'_> {
        #[inline(always)]
        fn run(self) {
            for value in self.0 {
                *value *= 2.0;
            }
        }
    }

    #[test]
    fn should_run_structures_and_closures() {
        let mut values = vec![1.5; 37];
        vectorized(Double(&mut values));
        let mut sum = 0.0;
        vectorized(|| sum = fold(&values, 0.0, add, add));
        assert_eq!(sum, 111.0);
    }

    /// Here the compiler may use other instructions than in a kernel.
    #[inline(never)]
    fn plain(row: &mut [f32]) -> f32 {
        map(row, |x| gelu::<false>(x) + exp::<false>(x));
        fold(row, 0.0, add, add)
    }

    #[test]
    fn should_give_the_same_bits_with_any_instructions() {
        let numbers: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.0173).collect();
        let (mut first, mut second) = (numbers.clone(), numbers);
        let expected = plain(&mut first);
        let mut got = 0.0;
        vectorized(|| {
            map(&mut second, |x| gelu::<false>(x) + exp::<false>(x));
            got = fold(&second, 0.0, add, add);
        });
        assert_eq!(got.to_bits(), expected.to_bits());
        assert_eq!(first, second);
    }
}
