use bytemuck::Zeroable;
use numerics::{from_bf16, to_bf16};
use tokens::noise::{Noise, Purpose};

use super::*;
use crate::kernels::rows::{HeadLayout, Memory};

fn numbers(count: usize, address: u64) -> Vec<f32> {
    let mut noise = Noise::new(address, Purpose::Initialization, 0, 0);
    (0..count).map(|_| noise.normal() as f32).collect()
}

/// Each output of each row in f64: `[rows, width]`, and the same sum of magnitudes.
fn exact(
    rows: usize,
    depth: usize,
    width: usize,
    x: impl Fn(usize, usize) -> f64,
    weight: impl Fn(usize, usize) -> f64,
) -> Vec<(f64, f64)> {
    let cell = |cell: usize| {
        let terms = (0..depth).map(|k| x(cell / width, k) * weight(k, cell % width));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    (0..rows * width).map(cell).collect()
}

fn assert_near(got: &[f32], exact: &[(f64, f64)], kernels: &Kernels) {
    for (&got, &(sum, size)) in got.iter().zip(exact) {
        assert!(
            (f64::from(got) - sum).abs() <= 2e-6 * size + 1e-30,
            "{}: {got} for {sum}",
            kernels.name
        );
    }
}

const SHAPES: [(usize, usize); 9] =
    [(1, 4), (1, 768), (2, 8), (2, 260), (3, 64), (4, 12), (5, 132), (6, 4), (6, 1024)];

#[test]
fn should_multiply_f32_tiles_of_any_shape() {
    for kernels in Kernels::available() {
        let width = kernels.width;
        for (count, depth) in SHAPES {
            // Rows with a gap between them, which must not be read.
            let stride = depth + 3;
            let mut x = numbers(count * stride, 1);
            for row in 0..count {
                x[row * stride + depth..(row + 1) * stride].fill(f32::NAN);
            }
            let panel = numbers(depth * width, 2);
            let mut tile: Tile = [f32::NAN; _];
            (kernels.product_f32)(
                Rows::new(&x, stride, count, depth),
                &panel,
                Fetch::NOTHING,
                &mut tile,
            );
            let exact = exact(
                count,
                depth,
                width,
                |row, k| x[row * stride + k].into(),
                |k, output| panel[k * width + output].into(),
            );
            assert_near(&tile, &exact, kernels);
        }
    }
}

#[test]
fn should_multiply_bf16_tiles_of_any_shape() {
    for kernels in Kernels::available() {
        let width = kernels.width;
        for (count, depth) in SHAPES {
            // Numbers that bf16 holds, so that rounding activations changes nothing.
            let x: Vec<u16> = numbers(count * depth, 3).into_iter().map(to_bf16).collect();
            let wide: Vec<f32> = x.iter().copied().map(from_bf16).collect();
            let panel: Vec<u16> = numbers(depth * width, 4).into_iter().map(to_bf16).collect();
            let mut tile: Tile = [f32::NAN; _];
            match kernels.product_bf16 {
                Bf16Product::Wide(product) => {
                    product(
                        Rows::new(&wide, depth, count, depth),
                        &panel,
                        Fetch::NOTHING,
                        &mut tile,
                    );
                    // The same bits as with the widened panel, which other products rely on.
                    let mut widened = vec![f32::NAN; depth * width];
                    (kernels.rows.widen)(&panel, width, &mut widened);
                    let mut other: Tile = [f32::NAN; _];
                    let rows = Rows::new(&wide, depth, count, depth);
                    (kernels.product_f32)(rows, &widened, Fetch::NOTHING, &mut other);
                    assert_eq!(tile[..count * width], other[..count * width]);
                }
                Bf16Product::Pairs(product) => {
                    product(Rows::new(&x, depth, count, depth), &panel, Fetch::NOTHING, &mut tile);
                }
            }
            let weight = |k: usize, output: usize| {
                from_bf16(panel[k / 2 * 2 * width + 2 * output + k % 2]).into()
            };
            let exact = exact(count, depth, width, |row, k| wide[row * depth + k].into(), weight);
            assert_near(&tile, &exact, kernels);
        }
    }
}

/// Takes from the second of two neighbouring weights what is too much for narrow pairs.
fn narrow(panel: &mut [i8]) {
    for [one, two] in panel.as_chunks_mut::<2>().0 {
        let (first, second) = (i32::from(*one), i32::from(*two));
        if first * second > 0 && (first + second).abs() > 128 {
            *two = (second.signum() * (128 - first.abs())) as i8;
        }
    }
}

#[test]
fn should_multiply_int8_tiles_exactly() {
    // The largest and smallest weights there are, and pairs that fill 16 bits.
    const EXTREMES: [[i8; 4]; 8] = [
        [127, 127, 127, 127],
        [-128, -128, -128, -128],
        [-127, -127, -127, -127],
        [-128, 0, 0, -128],
        [64, 64, -64, -64],
        [127, 1, -127, -1],
        [127, -128, -128, 127],
        [1, 127, -1, -127],
    ];
    for kernels in Kernels::available() {
        let width = kernels.width;
        for (count, depth) in SHAPES {
            for activations in [None, Some(255u8), Some(0)] {
                let mut noise = Noise::new(5, Purpose::Initialization, 0, 0);
                let x: Vec<u8> =
                    (0..count * depth).map(|_| activations.unwrap_or(noise.bits() as u8)).collect();
                let mut panel: Vec<i8> = (0..depth * width).map(|_| noise.bits() as i8).collect();
                // All over an output of their own.
                for four in panel.chunks_exact_mut(4 * width) {
                    for (extreme, weights) in EXTREMES.iter().zip(four.chunks_exact_mut(4)) {
                        weights.copy_from_slice(extreme);
                    }
                }
                if kernels.narrow_pairs {
                    narrow(&mut panel);
                }
                let rows: Vec<RowScale> = (0..count)
                    .map(|row| RowScale { scale: 0.5 + row as f32, zero: 51 * row as i32 })
                    .collect();
                let weight = |k: usize, output: usize| {
                    i64::from(panel[k / 4 * 4 * width + 4 * output + k % 4])
                };
                let sums: Vec<i32> =
                    (0..width).map(|n| (0..depth).map(|k| weight(k, n) as i32).sum()).collect();
                let scales: Vec<f32> = (0..width).map(|n| 0.25 * (1 + n) as f32).collect();
                let mut tile: Tile = [f32::NAN; _];
                let weights = Int8Panel { weights: &panel, scales: &scales, sums: &sums };
                (kernels.product_int8)(
                    Rows::new(&x, depth, count, depth),
                    &rows,
                    weights,
                    Fetch::NOTHING,
                    &mut tile,
                );
                for (row, RowScale { scale, zero }) in rows.into_iter().enumerate() {
                    for output in 0..width {
                        let x = |k: usize| i64::from(x[row * depth + k]) - i64::from(zero);
                        let sum: i64 = (0..depth).map(|k| x(k) * weight(k, output)).sum();
                        let expected = sum as f32 * (scale * scales[output]);
                        assert_eq!(tile[row * width + output], expected, "{}", kernels.name);
                    }
                }
            }
        }
    }
}

/// A product with 4-bit weights in the order that kernels sum in.
fn defined_int4(
    x: &[InputGroup],
    scale: f32,
    panel: &[u32],
    [width, output]: [usize; 2],
    add: fn(f32, f32, f32) -> f32,
) -> f32 {
    let mut sum = 0f32;
    for (x, panel) in x.iter().zip(panel.chunks_exact(INT4_WORDS * width)) {
        let mut exact = 0i64;
        for (input, &level) in x.levels.iter().enumerate() {
            let word = panel[input / 8 * width + output];
            let bits = 8 * (input % 4) + 4 * (input / 4 % 2);
            exact += i64::from(level) * i64::from(word >> bits & 15);
        }
        let ends = panel[(INT4_WORDS - 1) * width + output];
        sum = add(from_bf16(ends as u16), exact as f32, sum);
        sum = add(from_bf16((ends >> 16) as u16), x.sum, sum);
    }
    sum * scale
}

#[test]
fn should_multiply_int4_tiles_to_the_bit() {
    for kernels in Kernels::available() {
        let width = kernels.width;
        let add: fn(f32, f32, f32) -> f32 = match kernels.choice {
            "portable" => |a, b, c| a * b + c,
            _ => f32::mul_add,
        };
        for (count, groups) in [(1, 1), (1, 24), (2, 3), (3, 2), (4, 7), (5, 1), (6, 24)] {
            for extreme in [None, Some(127i8), Some(-128)] {
                let mut noise = Noise::new(7, Purpose::Initialization, 0, 0);
                let levels: Vec<i8> = (0..count * groups * INPUT_GROUP)
                    .map(|_| extreme.unwrap_or(noise.bits() as i8))
                    .collect();
                let x: Vec<InputGroup> = levels.chunks(INPUT_GROUP).map(InputGroup::new).collect();
                let ends: Vec<u16> =
                    numbers(2 * groups * width, 17).into_iter().map(to_bf16).collect();
                let mut ends = ends.into_iter();
                let mut panel = Vec::new();
                for _ in 0..groups {
                    panel.extend((0..(INT4_WORDS - 1) * width).map(|index| match index % width {
                        // The largest and smallest weights there are.
                        0 => u32::MAX,
                        1 => 0,
                        _ => noise.bits() as u32,
                    }));
                    let mut end = || u32::from(ends.next().unwrap());
                    panel.extend((0..width).map(|_| end() | end() << 16));
                }
                let scales: Vec<f32> = (0..count).map(|row| 0.25 + row as f32).collect();
                let mut tile: Tile = [f32::NAN; _];
                let rows = Rows::new(&x, groups, count, groups);
                (kernels.product_int4)(rows, &scales, &panel, Fetch::NOTHING, &mut tile);
                for (row, x) in x.chunks(groups).enumerate() {
                    for output in 0..width {
                        let expected = defined_int4(x, scales[row], &panel, [width, output], add);
                        let got = tile[row * width + output];
                        assert_eq!(got, expected, "{} {count} {groups}", kernels.name);
                    }
                }
            }
        }
    }
}

#[test]
fn should_widen_a_panel_while_it_multiplies() {
    for kernels in Kernels::available() {
        let (Some(widening), Bf16Product::Wide(product)) =
            (kernels.widening_bf16, kernels.product_bf16)
        else {
            continue;
        };
        let width = kernels.width;
        for (count, depth) in SHAPES {
            let x = numbers(count * depth, 3);
            let x = || Rows::new(&x, depth, count, depth);
            let panel: Vec<u16> = numbers(depth * width, 4).into_iter().map(to_bf16).collect();
            let mut expected = vec![f32::NAN; depth * width];
            (kernels.rows.widen)(&panel, width, &mut expected);
            let mut widened = vec![f32::NAN; depth * width];
            let (mut tile, mut other): (Tile, Tile) = ([f32::NAN; _], [f32::NAN; _]);
            widening(x(), &panel, Fetch::NOTHING, &mut widened, &mut tile);
            product(x(), &panel, Fetch::NOTHING, &mut other);
            assert_eq!(widened, expected, "{}", kernels.name);
            assert_eq!(tile[..count * width], other[..count * width], "{}", kernels.name);
        }
    }
}

#[test]
fn should_sum_f32_to_the_same_bits_with_any_fused_instructions() {
    let fused = |kernels: &&&Kernels| kernels.choice != "portable";
    let (count, depth, outputs) = (3, 260, MAX_WIDTH);
    let (x, weights) = (numbers(count * depth, 15), numbers(depth * outputs, 16));
    let mut before: Option<Vec<f32>> = None;
    for kernels in Kernels::available().iter().filter(fused) {
        let width = kernels.width;
        let mut all = vec![0.0; count * outputs];
        for first in (0..outputs).step_by(width) {
            let panel: Vec<f32> = weights
                .chunks_exact(outputs)
                .flat_map(|weights| &weights[first..first + width])
                .copied()
                .collect();
            let mut tile: Tile = [f32::NAN; _];
            let rows = Rows::new(&x, depth, count, depth);
            (kernels.product_f32)(rows, &panel, Fetch::NOTHING, &mut tile);
            for row in 0..count {
                let to = &mut all[row * outputs + first..][..width];
                to.copy_from_slice(&tile[row * width..][..width]);
            }
        }
        assert!(before.as_ref().is_none_or(|before| *before == all), "{}", kernels.name);
        before = Some(all);
    }
}

#[test]
fn should_give_a_row_the_same_bits_in_any_tile() {
    for kernels in Kernels::available() {
        let (width, depth) = (kernels.width, 772);
        let x = numbers(TILE_ROWS * depth, 6);
        let panel = numbers(depth * width, 7);
        let x_bf16: Vec<u16> = x.iter().copied().map(to_bf16).collect();
        let panel_bf16: Vec<u16> = panel.iter().copied().map(to_bf16).collect();
        let mut alone: Tile = [0.0; _];
        let mut together: Tile = [0.0; _];
        for count in 1..=TILE_ROWS {
            for place in 0..count {
                let rows = |start, count| Rows::new(&x[start * depth..], depth, count, depth);
                (kernels.product_f32)(rows(0, count), &panel, Fetch::NOTHING, &mut together);
                (kernels.product_f32)(rows(place, 1), &panel, Fetch::NOTHING, &mut alone);
                assert_eq!(together[place * width..][..width], alone[..width]);
                match kernels.product_bf16 {
                    Bf16Product::Wide(product) => {
                        product(rows(0, count), &panel_bf16, Fetch::NOTHING, &mut together);
                        product(rows(place, 1), &panel_bf16, Fetch::NOTHING, &mut alone);
                    }
                    Bf16Product::Pairs(product) => {
                        let rows =
                            |start, count| Rows::new(&x_bf16[start * depth..], depth, count, depth);
                        product(rows(0, count), &panel_bf16, Fetch::NOTHING, &mut together);
                        product(rows(place, 1), &panel_bf16, Fetch::NOTHING, &mut alone);
                    }
                }
                assert_eq!(together[place * width..][..width], alone[..width]);
            }
        }
    }
}

#[test]
#[should_panic(expected = "a panel of")]
fn should_refuse_a_panel_of_another_depth() {
    let kernels = Kernels::chosen().unwrap();
    let panel = vec![0.0; 3 * kernels.width];
    (kernels.product_f32)(Rows::new(&[0.0; 4], 4, 1, 4), &panel, Fetch::NOTHING, &mut [0.0; 64]);
}

#[test]
#[should_panic(expected = "rows in their slice")]
fn should_refuse_rows_beyond_their_slice() {
    Rows::new(&[0.0f32; 7], 4, 2, 4);
}

#[test]
fn should_compute_rows_as_defined() {
    for kernels in Kernels::available() {
        let rows = &kernels.rows;
        for count in [1, 4, 15, 16, 17, 48, 768, 1001] {
            let (x, weight, bias) = (numbers(count, 8), numbers(count, 9), numbers(count, 10));
            let wide: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let mut got = vec![0.0; count];
            let near = |got: &[f32], expected: &dyn Fn(usize) -> f64| {
                for (index, &got) in got.iter().enumerate() {
                    let expected = expected(index);
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 1e-5 * expected.abs() + 2e-6, "{got} {expected}");
                }
            };

            let mean_square = wide.iter().map(|x| x * x).sum::<f64>() / count as f64;
            (rows.rms_norm)(&x, &weight, 1e-5, &mut got);
            let scale = (mean_square + 1e-5).sqrt().recip();
            near(&got, &|i| wide[i] * scale * f64::from(weight[i]));

            let mean = wide.iter().sum::<f64>() / count as f64;
            let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count as f64;
            let scale = (variance + 1e-5).sqrt().recip();
            (rows.layer_norm)(&x, &weight, &bias, 1e-5, &mut got);
            near(&got, &|i| (wide[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i]));

            if count % 2 == 0 {
                // Any numbers do for cosines and sines.
                let (cosines, sines) = (&bias, numbers(count, 11));
                (rows.norm_rotate)(&x, &weight, 1e-5, cosines, &sines, &mut got);
                let scale = (mean_square + 1e-5).sqrt().recip();
                let normed = |i: usize| wide[i] * scale * f64::from(weight[i]);
                near(&got, &|i| {
                    normed(i) * f64::from(cosines[i]) + normed(i ^ 1) * f64::from(sines[i])
                });
                (rows.rotate)(&x, cosines, &sines, &mut got);
                near(&got, &|i| {
                    wide[i] * f64::from(cosines[i]) + wide[i ^ 1] * f64::from(sines[i])
                });
            }

            got.copy_from_slice(&x);
            (rows.silu_gate)(&mut got, &weight);
            near(&got, &|i| wide[i] / (1.0 + (-wide[i]).exp()) * f64::from(weight[i]));

            got.copy_from_slice(&x);
            (rows.sigmoid)(&mut got);
            near(&got, &|i| (1.0 + (-wide[i]).exp()).recip());

            got.copy_from_slice(&x);
            let inverse = (rows.softmax)(&mut got, 3.0);
            let highest = wide.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = wide.iter().map(|x| (3.0 * (x - highest)).exp()).sum();
            near(&got, &|i| (3.0 * (wide[i] - highest)).exp());
            assert!((f64::from(inverse) * total - 1.0).abs() < 1e-5);

            let mut rounded = vec![0; count];
            (rows.round)(&x, &mut rounded);
            assert!(rounded.iter().zip(&x).all(|(&r, &x)| r == to_bf16(x)));

            let mut levels = vec![0; count];
            let RowScale { scale, zero } = (rows.quantize)(&x, &mut levels);
            for (&level, &x) in levels.iter().zip(&x) {
                let back = scale * (i32::from(level) - zero) as f32;
                assert!((back - x).abs() <= 1.001 * scale, "{x} became {back}");
            }
        }
    }
}

#[test]
fn should_compute_gelu_everywhere() {
    // x Φ(x) from the series of erf and the continued fraction of its tail, to f64.
    fn upper_tail(x: f64) -> f64 {
        if x < 3.0 {
            let mut term = x;
            let mut sum = x;
            let mut n = 0.0;
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -x * x / (2.0 * n);
                sum += term / (2.0 * n + 1.0);
            }
            0.5 - sum / (std::f64::consts::TAU).sqrt()
        } else {
            let fraction = (1..200).rev().fold(x, |rest, n| x + f64::from(n) / rest);
            (-0.5 * x * x).exp() / (std::f64::consts::TAU).sqrt() / fraction
        }
    }
    let x: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).collect();
    for kernels in Kernels::available() {
        let mut got = x.clone();
        (kernels.rows.gelu)(&mut got);
        for (&x, got) in x.iter().zip(got) {
            let tail = upper_tail(f64::from(x).abs());
            let expected = f64::from(x) * if x < 0.0 { tail } else { 1.0 - tail };
            assert!(
                (f64::from(got) - expected).abs() < 5e-7 * expected.abs().max(1.0),
                "{x} {got}"
            );
        }
    }
}

#[test]
fn should_choose_what_is_asked_for_or_say_what_there_is() {
    let available = Kernels::available();
    for kernels in &available {
        let chosen = Kernels::choose(Some(kernels.choice.as_ref())).unwrap();
        assert_eq!(chosen.choice, kernels.choice);
    }
    for nothing in [None, Some("".as_ref())] {
        assert_eq!(Kernels::choose(nothing).unwrap().name, available[0].name);
    }
    let error = Kernels::choose(Some("mmx".as_ref())).unwrap_err().to_string();
    assert!(error.contains("`ALITOK_INSTRUCTIONS` is `mmx`"), "{error}");
    assert!(available.iter().all(|kernels| error.contains(kernels.choice)), "{error}");
}

#[test]
fn should_keep_damage_visible() {
    for kernels in Kernels::available() {
        for damage in [f32::NAN, f32::INFINITY] {
            let mut x = numbers(40, 11);
            x[33] = damage;
            let mut levels = [0; 40];
            assert!(!(kernels.rows.quantize)(&x, &mut levels).scale.is_finite());
        }
    }
}

fn attend<E: Entries>(kernels: &Kernels, head: usize, length: usize, tolerance: f64) {
    let capacity = 48;
    let layout = HeadLayout { head };
    let query = numbers(head, 12);
    let (key, value) = (numbers(capacity * head, 13), numbers(capacity * head, 14));
    // Whatever lies beyond the positions seen must not matter.
    let mut damaged = E::default();
    let mut no_number = [E::Number::zeroed()];
    E::round(&kernels.rows, &[f32::NAN], &mut no_number);
    (0..E::NUMBERS).for_each(|index| damaged.set(index, no_number[0]));
    let mut entries = vec![damaged; capacity / BLOCK * layout.block::<E>()];
    if E::SCALED {
        for block in entries.chunks_exact_mut(layout.block::<E>()) {
            block[layout.numbers::<E>()..].iter_mut().for_each(|scale| scale.set_scale(f32::NAN));
        }
    }
    // What is stored, as numbers.
    let mut stored = [vec![0.0; length * head], vec![0.0; length * head]];
    let mut rounded = [vec![E::Number::zeroed(); head], vec![E::Number::zeroed(); head]];
    for position in 0..length {
        let row = position * head..(position + 1) * head;
        let scales = [
            E::round(&kernels.rows, &key[row.clone()], &mut rounded[0]),
            E::round(&kernels.rows, &value[row], &mut rounded[1]),
        ];
        layout.keep(&mut entries, position, rounded.each_ref().map(|numbers| &numbers[..]), scales);
        let mut one = E::default();
        for ((stored, rounded), scale) in stored.iter_mut().zip(&rounded).zip(scales) {
            for (number, &rounded) in rounded.iter().enumerate() {
                one.set(0, rounded);
                stored[position * head + number] = f64::from(one.number(0)) * f64::from(scale);
            }
        }
        // The neighbours of the last value.
        let lane = position % BLOCK;
        if position + 1 == length && lane % E::NUMBERS + 1 < E::NUMBERS {
            let block = &mut entries[position / BLOCK * layout.block::<E>()..];
            for part in
                block[layout.keys::<E>()..layout.numbers::<E>()].chunks_mut(layout.part::<E>())
            {
                let row = &mut part[lane / E::NUMBERS * BLOCK..][..BLOCK];
                row.iter_mut().for_each(|entry| entry.set(lane % E::NUMBERS + 1, no_number[0]));
            }
        }
    }
    for (stored, exact) in stored.iter().zip([&key, &value]) {
        for (&stored, &exact) in stored.iter().zip(exact) {
            assert!((stored - f64::from(exact)).abs() < tolerance, "{stored} for {exact}");
        }
    }
    let scores: Vec<f64> = (0..length)
        .map(|position| {
            let dot: f64 =
                (0..head).map(|n| f64::from(query[n]) * stored[0][position * head + n]).sum();
            (dot / (head as f64).sqrt()).exp()
        })
        .collect();
    let total: f64 = scores.iter().sum();
    let mut got = vec![0.0; head];
    let memory = Memory { entries: &entries, length, ahead: 0 };
    E::attend(&kernels.rows)(&query, memory, &mut [0.0; 48], &mut got);
    for (number, got) in got.into_iter().enumerate() {
        let sum: f64 = (0..length).map(|p| scores[p] * stored[1][p * head + number]).sum();
        assert!((f64::from(got) - sum / total).abs() < tolerance, "{got} {}", sum / total);
    }
}

/// Attention of a table, and that of the definition with fused multiply-adds.
#[cfg(target_arch = "x86_64")]
fn attend_twice<E: Entries>(
    kernels: &Kernels,
    definition: rows::Attend<E>,
    [head, length]: [usize; 2],
) {
    let layout = HeadLayout { head };
    let mut entries = vec![E::default(); length.div_ceil(BLOCK) * layout.block::<E>()];
    let mut rounded = [vec![E::Number::zeroed(); head], vec![E::Number::zeroed(); head]];
    for position in 0..length {
        let scales = [0, 1].map(|of| {
            let row = numbers(head, 20 + (2 * position + of) as u64);
            E::round(&kernels.rows, &row, &mut rounded[of])
        });
        layout.keep(&mut entries, position, rounded.each_ref().map(|row| &row[..]), scales);
    }
    let query = numbers(head, 19);
    let attend = |attend: rows::Attend<E>| {
        let mut out = vec![f32::NAN; head];
        let memory = Memory { entries: &entries, length, ahead: 0 };
        attend(&query, memory, &mut vec![0.0; length.next_multiple_of(BLOCK)], &mut out);
        out
    };
    assert_eq!(attend(E::attend(&kernels.rows)), attend(definition), "{head} {length}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn should_attend_to_the_bits_of_the_definition_with_avx2() {
    for kernels in Kernels::available() {
        if !kernels.choice.starts_with("avx2") {
            continue;
        }
        for head in [4, 12, 16, 48, 64, 80] {
            for length in [1, 2, 3, 15, 16, 17, 38, 273] {
                attend_twice::<f32>(kernels, rows::attend_f32::<true>, [head, length]);
                attend_twice::<Pair>(kernels, rows::attend_bf16::<true>, [head, length]);
                attend_twice::<i32>(kernels, rows::attend_int8::<true>, [head, length]);
            }
        }
    }
}

#[test]
fn should_attend_to_exactly_what_is_seen() {
    for kernels in Kernels::available() {
        for head in [4, 12, 16, 48, 64, 80] {
            for length in [1, 2, 15, 16, 17, 33, 48] {
                attend::<f32>(kernels, head, length, 1e-5);
                // Queries and weights may also be rounded to bf16.
                attend::<Pair>(kernels, head, length, 0.02);
                attend::<i32>(kernels, head, length, 0.03);
            }
        }
    }
}
