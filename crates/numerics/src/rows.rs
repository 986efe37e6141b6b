//! Reductions and maps over rows of numbers.

/// Numbers that are worked on at a time: as many as the widest registers (AVX-512) hold.
pub const LANES: usize = 16;

/// a + b.
#[inline(always)]
pub fn add(a: f32, b: f32) -> f32 {
    a + b
}

/// The greater of two numbers; `a` if `b` is NaN.
#[inline(always)]
pub fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Folds a row into one partial result for each lane with `each`, starting from `start`, and joins
/// these with `join`. The order depends only on the length of the row.
#[inline(always)]
pub fn fold(
    row: &[f32],
    start: f32,
    each: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (blocks, tail) = row.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = each(lanes[lane], block[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = each(*lane, value);
    }
    join_lanes(lanes, join)
}

/// [`fold`] over the pairs of two rows. Numbers of the longer row that have no partner are not
/// read.
#[inline(always)]
pub fn fold_pairs(
    a: &[f32],
    b: &[f32],
    start: f32,
    each: impl Fn(f32, f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let length = a.len().min(b.len());
    let mut lanes = [start; LANES];
    let (a_blocks, a_tail) = a[..length].as_chunks::<LANES>();
    let (b_blocks, b_tail) = b[..length].as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] = each(lanes[lane], a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_tail.iter().zip(b_tail)) {
        *lane = each(*lane, a, b);
    }
    join_lanes(lanes, join)
}

/// Joins the lanes in halves.
#[inline(always)]
fn join_lanes(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    // If the compiler sees these halves beside the loop that makes the lanes, it splits the
    // registers of that loop, too.
    let mut lanes = std::hint::black_box(lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Replaces each number by `f` of it. The last numbers, which do not fill a block, are padded to
/// one, so that every number is computed by the same instructions.
#[inline(always)]
pub fn map(row: &mut [f32], f: impl Fn(f32) -> f32) {
    let (blocks, tail) = row.as_chunks_mut::<LANES>();
    for block in blocks {
        for value in block {
            *value = f(*value);
        }
    }
    if !tail.is_empty() {
        let mut block = [0.0; LANES];
        block[..tail.len()].copy_from_slice(tail);
        for value in &mut block {
            *value = f(*value);
        }
        tail.copy_from_slice(&block[..tail.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 101) as f32 * 0.173 - 8.0).collect()
    }

    const LENGTHS: [usize; 8] = [0, 1, 15, 16, 17, 32, 136, 1000];

    #[test]
    fn should_sum_each_lane_and_then_the_lanes_in_halves() {
        for length in LENGTHS {
            let row = numbers(length);
            let mut lanes = [0.0; LANES];
            for (index, value) in row.iter().enumerate() {
                lanes[index % LANES] += value;
            }
            let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
            let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
            let expected = (four[0] + four[2]) + (four[1] + four[3]);
            assert_eq!(fold(&row, 0.0, add, add).to_bits(), expected.to_bits(), "{length}");
            let products = fold_pairs(&row, &vec![1.0; length], 0.0, |sum, a, b| sum + a * b, add);
            assert_eq!(products.to_bits(), expected.to_bits(), "{length}");
        }
    }

    #[test]
    fn should_find_the_greatest_number_wherever_it_is() {
        for length in LENGTHS {
            for place in 0..length {
                let mut row = numbers(length);
                row[place] = 100.0;
                assert_eq!(fold(&row, f32::NEG_INFINITY, greater, greater), 100.0);
            }
        }
        assert_eq!(fold(&[], f32::NEG_INFINITY, greater, greater), f32::NEG_INFINITY);
    }

    #[test]
    fn should_read_pairs_as_far_as_both_rows_go() {
        let (a, b) = (numbers(40), numbers(33));
        let sum = |a: &[f32], b: &[f32]| fold_pairs(a, b, 0.0, |sum, a, b| sum + a * b, add);
        assert_eq!(sum(&a, &b), sum(&a[..33], &b));
        assert_eq!(sum(&b, &a), sum(&a, &b));
    }

    #[test]
    fn should_map_each_number() {
        for length in LENGTHS {
            let mut row = numbers(length);
            let expected: Vec<f32> = row.iter().map(|x| x * 2.0 + 1.0).collect();
            map(&mut row, |x| x * 2.0 + 1.0);
            assert_eq!(row, expected);
        }
    }
}
