//! Pairs in one instruction: AVX-512 BF16.
#![allow(unsafe_code)] // intrinsics; the entry checks its slices

use std::arch::x86_64::*;

use super::{COLUMNS, Kernel, panels};

/// Rows of a tile of the result: with its columns, 24 registers of sums.
const ROWS: usize = 12;
const LANES: usize = 16;
const VECTORS: usize = COLUMNS / LANES;

/// The kernel, where the processor has the instructions.
pub(super) fn kernel() -> Option<Kernel> {
    let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    has.then_some(Kernel { rows: ROWS, pairs: 1, lay_out: panels::<ROWS>, multiply: tile })
}

fn tile(rows: &[u32], columns: &[u32], tile: &mut [f32]) {
    assert_eq!(rows.len() / ROWS, columns.len() / COLUMNS, "panels of different lengths");
    // SAFETY: both panels have `rows.len() / ROWS` groups; this function is handed out only
    // where the processor has the instructions.
    unsafe { multiply(rows.as_ptr(), columns.as_ptr(), rows.len() / ROWS, tile) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(rows: *const u32, columns: *const u32, pairs: usize, tile: &mut [f32]) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for pair in 0..pairs {
        // SAFETY: the caller answers for all that is read. Both types are 512 plain bits.
        unsafe {
            let rows = rows.add(pair * ROWS);
            let columns = columns.add(pair * COLUMNS);
            let columns: [__m512bh; VECTORS] = std::array::from_fn(|vector| {
                std::mem::transmute(_mm512_loadu_si512(columns.add(vector * LANES).cast()))
            });
            for (row, sums) in sums.iter_mut().enumerate() {
                let row: __m512bh = std::mem::transmute(_mm512_set1_epi32(*rows.add(row) as i32));
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = _mm512_dpbf16_ps(*sum, row, column);
                }
            }
        }
    }
    for (sums, row) in sums.iter().zip(tile.chunks_exact_mut(COLUMNS)) {
        for (&sum, to) in sums.iter().zip(row.chunks_exact_mut(LANES)) {
            // SAFETY: the slice has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) }
        }
    }
}
