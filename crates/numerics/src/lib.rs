//! Arithmetic that the engine, the fused operations and the image code share: elementary functions
//! in f32, reductions in a fixed order, rounding to bfloat16, and loops compiled for each
//! instruction set.
//!
//! Everything is plain Rust without branches on data, so the compiler can turn loops over these
//! functions into vector instructions. The results do not depend on the machine:
//!
//! - Functions with the parameter `FUSED` multiply and add in one rounding if it is `true`. Pass
//!   `true` only in code that is compiled for a processor with that instruction; elsewhere
//!   [`f32::mul_add`] calls a library function. With `false` every instruction set gives the same
//!   bits. So does `true`, but they are other bits.
//! - [`fold`] and its relatives keep one partial result for each of [`LANES`] lanes and join the
//!   lanes in halves, whatever the width of the registers.
//!
//! Functions are `inline(always)`: a function that is not inlined is compiled for the oldest
//! processor.

mod bf16;
mod functions;
mod rows;
#[cfg(feature = "vectorized")]
mod vectorized;

pub use bf16::{bf16_bits, from_bf16, round_to_bf16, to_bf16};
pub use functions::{clamp, exp, gelu, gelu_derivative, multiply_add, sigmoid};
pub use rows::{LANES, add, fold, fold_pairs, greater, map};
#[cfg(feature = "vectorized")]
pub use vectorized::{Kernel, vectorized};
