//! Tiles of 16 × 32 numbers in one instruction: Intel's Advanced Matrix Extensions, which Sapphire Rapids
//! and later Xeons have. A process must ask Linux for the tiles; other systems are not supported.
#![allow(unsafe_code)] // instructions that the standard library has no stable functions for

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::LazyLock,
};

use numerics::{bf16_bits, vectorized};
use rayon::prelude::*;

use super::{COLUMNS, Kernel, Matrix, pair_up};

/// Rows of a tile of the result, in two registers; its columns are in two, as well.
const ROWS: usize = 32;
/// Pairs of a register of factors.
const PAIRS: usize = 16;

/// What the eight registers of tiles hold, as the processor reads it.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_a_row: [u16; 16],
    rows: [u8; 16],
}

/// Registers of 16 rows of 64 bytes, all that they can hold.
static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_a_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The kernel, where processor and system have the instructions.
pub(super) fn kernel() -> Option<Kernel> {
    static HAS: LazyLock<bool> = LazyLock::new(|| is_there() && is_permitted());
    HAS.then_some(Kernel { rows: ROWS, pairs: PAIRS, lay_out: lines, multiply: tile })
}

/// Whether the processor has tiles, and multiplies bfloat16 in them (Intel's manual, CPUID, leaf 7).
fn is_there() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    // The leaf is there where AVX-512 is.
    is_x86_feature_detected!("avx512f") && {
        let features = __cpuid_count(7, 0).edx;
        features & BF16 != 0 && features & TILE != 0
    }
}

/// Asks the system for the tiles, which this process and all its threads may use from then on.
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: this call of the system changes what the process may do, and no memory. It overwrites
    // the two registers that are named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// The rows of a matrix, rounded: each row's pairs side by side; what is missing at the ends is zero.
///
/// # Shapes
/// `[rows, columns]` → `[⌈rows / ROWS⌉ · ROWS, pairs]`.
fn lines(matrix: Matrix<'_>, pairs: usize) -> Vec<u32> {
    let Matrix { values, rows, columns, row_stride, column_stride } = matrix;
    let mut output = vec![0; rows.next_multiple_of(ROWS) * pairs];
    output.par_chunks_exact_mut(ROWS * pairs).enumerate().for_each(|(index, panel)| {
        let first = index * ROWS;
        let count = ROWS.min(rows - first);
        let values = &values[first * row_stride..];
        vectorized(|| {
            if column_stride == 1 {
                for (row, line) in panel.chunks_exact_mut(pairs).take(count).enumerate() {
                    pair_up(&values[row * row_stride..][..columns], line);
                }
            } else {
                assert_eq!(row_stride, 1, "a matrix lies by rows or by columns");
                for pair in 0..columns.div_ceil(2) {
                    let even = &values[2 * pair * column_stride..][..count];
                    let places = panel[pair..].iter_mut().step_by(pairs);
                    if 2 * pair + 1 < columns {
                        let odd = &values[(2 * pair + 1) * column_stride..][..count];
                        for ((to, &even), &odd) in places.zip(even).zip(odd) {
                            *to = bf16_bits(even) | bf16_bits(odd) << 16;
                        }
                    } else {
                        places.zip(even).for_each(|(to, &even)| *to = bf16_bits(even));
                    }
                }
            }
        });
    });
    output
}

fn tile(rows: &[u32], columns: &[u32], tile: &mut [f32]) {
    let pairs = rows.len() / ROWS;
    assert!(pairs > 0 && pairs.is_multiple_of(PAIRS), "{pairs} pairs");
    assert_eq!(rows.len(), pairs * ROWS, "a panel of rows");
    assert_eq!(columns.len(), pairs * COLUMNS, "panels of different lengths");
    assert_eq!(tile.len(), ROWS * COLUMNS, "the tile");
    let stride = 4 * pairs;
    // SAFETY: this function is handed out only where processor and system have the instructions. Both
    // panels have `pairs` pairs of all rows and columns, a multiple of what a round reads, and the tile
    // has room for four registers; all was checked above. All that is overwritten is named.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {stride}]",
            "tileloadd tmm6, [{columns} + {step}]",
            "tileloadd tmm7, [{columns} + {step} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {stride}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {columns}, 2048",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{tile} + {step}], tmm0",
            "tilestored [{tile} + {step} + 64], tmm1",
            "tilestored [{tile} + {step} + 2048], tmm2",
            "tilestored [{tile} + {step} + 2112], tmm3",
            "tilerelease",
            configuration = in(reg) &CONFIGURATION,
            upper = inout(reg) rows.as_ptr() => _,
            lower = inout(reg) rows[pairs * ROWS / 2..].as_ptr() => _,
            stride = in(reg) stride,
            columns = inout(reg) columns.as_ptr() => _,
            step = in(reg) 4 * COLUMNS,
            rounds = inout(reg) pairs / PAIRS => _,
            tile = in(reg) tile.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
