//! The fused operations against Burn's own and against finite differences.

use std::cell::Cell;

use burn::tensor::{Device, Tensor, TensorData};
use operations::fused::{self, AttentionDropout, Geometry, composed};
use tokens::noise::{Noise, Purpose};

thread_local! {
    /// Each test runs on its own thread, so each draws the same numbers every time.
    static DRAWS: Cell<u64> = const { Cell::new(0) };
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let draw = DRAWS.replace(DRAWS.get() + 1);
    let mut noise = Noise::new(0, Purpose::Initialization, 0, draw);
    let values = (0..shape.iter().product()).map(|_| noise.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Scale or shift on the device of `x`, different in each place.
fn scale<const D: usize>(x: &Tensor<D>) -> Tensor<1> {
    ones(x) + Tensor::arange(0..x.dims()[D - 1] as i64, &x.device()).float() * 1e-3
}

fn ones<const D: usize>(x: &Tensor<D>) -> Tensor<1> {
    Tensor::ones([x.dims()[D - 1]], &x.device())
}

fn layer_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>) -> Tensor<D> {
    fused::layer_norm(x, scale.clone(), scale - 1.0, 1e-5)
}

fn composed_layer_norm<const D: usize>(x: Tensor<D>, scale: Tensor<1>) -> Tensor<D> {
    composed::layer_norm(x, scale.clone(), scale - 1.0, 1e-5)
}

fn largest_difference<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (numbers(a.clone()), numbers(b.clone()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, |largest, difference| {
        assert!(!difference.is_nan());
        difference.max(largest)
    })
}

fn assert_close<const D: usize>(fused: &Tensor<D>, composed: &Tensor<D>, tolerance: f32) {
    let difference = largest_difference(fused, composed);
    assert!(difference <= tolerance, "{:?}: difference {difference:e}", fused.dims());
}

/// Gradients of Σ f(x)·w for a fixed random w.
fn gradient<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let x = Tensor::from_inner(x.clone()).require_grad();
    let loss = (f(x.clone()) * Tensor::from_inner(weight.clone())).sum();
    x.grad(&loss.backward()).unwrap()
}

fn constant_of<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x.clone())
}

/// One number, less than a block of lanes, several chunks and a rest.
const SHAPES: [[usize; 4]; 5] =
    [[1, 1, 1, 1], [1, 1, 3, 5], [2, 3, 17, 17], [3, 2, 73, 73], [2, 3, 101, 136]];

#[test]
fn should_equal_burns_operations() {
    let device = Device::flex();
    for shape in SHAPES {
        let (x, y) = (random(shape, &device), random(shape, &device).tanh());
        assert_close(&fused::gelu(x.clone()), &composed::gelu(x.clone()), 1e-6);
        let leaky = fused::leaky_relu(x.clone(), 0.2);
        assert_close(&leaky, &composed::leaky_relu(x.clone(), 0.2), 1e-6);
        let gated = fused::silu_gate(x.clone(), y.clone());
        assert_close(&gated, &composed::silu_gate(x.clone(), y), 1e-6);
        // Sums of up to 136 exponentials, and results of up to 8.
        let logarithms = fused::log_softmax(x.clone());
        assert_close(&logarithms, &composed::log_softmax(x.clone()), 4e-6);
        let normalized = layer_norm(x.clone(), scale(&x));
        assert_close(&normalized, &composed_layer_norm(x.clone(), scale(&x)), 1e-6);
        let normalized = fused::rms_norm(x.clone(), scale(&x), 1e-5);
        assert_close(&normalized, &composed::rms_norm(x.clone(), scale(&x), 1e-5), 1e-6);
        for causal in [false, true] {
            if !causal || shape[2] <= shape[3] {
                let softmax = fused::scaled_softmax(x.clone(), 0.7, causal);
                assert_close(&softmax, &composed::scaled_softmax(x.clone(), 0.7, causal), 1e-6);
            }
        }
    }
}

#[test]
fn should_have_the_gradients_of_burns_operations() {
    let device = Device::flex();
    for shape in SHAPES {
        let (x, y, weight) =
            (random(shape, &device), random(shape, &device), random(shape, &device));
        assert_close(
            &gradient(&x, &weight, fused::gelu),
            &gradient(&x, &weight, composed::gelu),
            1e-5,
        );
        assert_close(
            &gradient(&x, &weight, fused::log_softmax),
            &gradient(&x, &weight, composed::log_softmax),
            1e-5,
        );
        assert_close(
            &gradient(&x, &weight, |x| fused::leaky_relu(x, 0.2)),
            &gradient(&x, &weight, |x| composed::leaky_relu(x, 0.2)),
            1e-5,
        );
        for causal in [false, true] {
            if !causal || shape[2] <= shape[3] {
                assert_close(
                    &gradient(&x, &weight, |x| fused::scaled_softmax(x, 0.7, causal)),
                    &gradient(&x, &weight, |x| composed::scaled_softmax(x, 0.7, causal)),
                    1e-5,
                );
            }
        }
        let constant = || constant_of(&y);
        assert_close(
            &gradient(&x, &weight, |gate| fused::silu_gate(gate, constant())),
            &gradient(&x, &weight, |gate| composed::silu_gate(gate, constant())),
            1e-5,
        );
        assert_close(
            &gradient(&x, &weight, |up| fused::silu_gate(constant(), up)),
            &gradient(&x, &weight, |up| composed::silu_gate(constant(), up)),
            1e-5,
        );
        // The same tensor on both sides: both gradients reach it.
        assert_close(
            &gradient(&x, &weight, |x| fused::silu_gate(x.clone(), x)),
            &gradient(&x, &weight, |x| composed::silu_gate(x.clone(), x)),
            1e-5,
        );
        assert_close(
            &gradient(&x, &weight, |x| layer_norm(x.clone(), scale(&x))),
            &gradient(&x, &weight, |x| composed_layer_norm(x.clone(), scale(&x))),
            1e-5,
        );
        assert_close(
            &gradient(&x, &weight, |x| fused::rms_norm(x.clone(), scale(&x), 1e-5)),
            &gradient(&x, &weight, |x| composed::rms_norm(x.clone(), scale(&x), 1e-5)),
            1e-5,
        );
        // Every row reaches scale and shift: the sums grow with their number.
        let rows = (shape[0] * shape[1] * shape[2]) as f32;
        let along = |f: &dyn Fn(Tensor<1>) -> Tensor<4>| {
            let scale = scale(&Tensor::from_inner(x.clone())).require_grad();
            let loss = (f(scale.clone()) * Tensor::from_inner(weight.clone())).sum();
            scale.grad(&loss.backward()).unwrap() / rows
        };
        assert_close(
            &along(&|scale| layer_norm(constant_of(&x), scale)),
            &along(&|scale| composed_layer_norm(constant_of(&x), scale)),
            1e-6,
        );
        assert_close(
            &along(&|scale| fused::rms_norm(constant_of(&x), scale, 1e-5)),
            &along(&|scale| composed::rms_norm(constant_of(&x), scale, 1e-5)),
            1e-6,
        );
    }
}

/// Rows, inputs and outputs of a linear layer: one number, no multiple of anything, and enough
/// work for all threads.
const LINEAR: [[usize; 4]; 4] = [[1, 1, 1, 1], [1, 1, 16, 3], [2, 3, 5, 7], [3, 100, 150, 220]];

#[test]
fn should_multiply_and_differentiate_as_burns_linear_layer() {
    let device = Device::flex();
    for [batch, rows, inputs, outputs] in LINEAR {
        let x = random([batch, rows, inputs], &device);
        let weight = random([inputs, outputs], &device) / (inputs as f32).sqrt();
        let bias = random([outputs], &device);
        let arriving = random([batch, rows, outputs], &device);
        for bias in [Some(bias), None] {
            type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;
            let through = |linear: Linear| {
                let x = Tensor::from_inner(x.clone()).require_grad();
                let weight = Tensor::from_inner(weight.clone()).require_grad();
                let bias = bias.clone().map(|bias| Tensor::from_inner(bias).require_grad());
                let output = linear(x.clone(), weight.clone(), bias.clone());
                let loss = output.clone() * Tensor::from_inner(arriving.clone());
                let gradients = loss.sum().backward();
                (
                    output.inner(),
                    x.grad(&gradients).unwrap(),
                    weight.grad(&gradients).unwrap() / (batch * rows) as f32,
                    bias.map(|bias| bias.grad(&gradients).unwrap() / (batch * rows) as f32),
                )
            };
            let fused = through(fused::linear);
            let composed = through(composed::linear);
            assert_close(&fused.0, &composed.0, 1e-5);
            assert_close(&fused.1, &composed.1, 1e-5);
            assert_close(&fused.2, &composed.2, 1e-5);
            assert_eq!(fused.3.is_some(), composed.3.is_some());
            for (fused, composed) in fused.3.iter().zip(&composed.3) {
                assert_close(fused, composed, 1e-6);
            }
        }
    }
}

/// Another third in each sample.
fn every_third_dropped() -> AttentionDropout {
    AttentionDropout::new(|sample, start, out| {
        for (place, factor) in out.iter_mut().enumerate() {
            *factor = if (start + place + sample).is_multiple_of(3) { 0.0 } else { 1.5 };
        }
    })
}

#[test]
fn should_norm_and_rotate_and_differentiate_as_burns_operations() {
    let device = Device::flex();
    for (batch, length, heads, head) in [(1, 1, 1, 2), (2, 7, 3, 6), (3, 21, 2, 64)] {
        let packed = random([batch, length, 3 * heads * head], &device);
        let arriving = random([batch, length, 3 * heads * head], &device);
        let scales = [random([head], &device), random([head], &device)];
        let tables = [random([length, head], &device), random([length, head], &device)];
        type Rotation = fn(Tensor<3>, Tensor<1>, Tensor<1>, Tensor<2>, Tensor<2>, f64) -> Tensor<3>;
        let through = |rotation: Rotation| {
            let packed = Tensor::from_inner(packed.clone()).require_grad();
            let [query, key] = scales.clone().map(|scale| Tensor::from_inner(scale).require_grad());
            let [cosines, sines] = tables.clone().map(Tensor::from_inner);
            let output = rotation(packed.clone(), query.clone(), key.clone(), cosines, sines, 1e-5);
            let loss = output.clone() * Tensor::from_inner(arriving.clone());
            let gradients = loss.sum().backward();
            let sums = (batch * length * heads) as f32;
            (
                output.inner(),
                packed.grad(&gradients).unwrap(),
                query.grad(&gradients).unwrap() / sums,
                key.grad(&gradients).unwrap() / sums,
            )
        };
        let fused = through(fused::normalize_and_rotate);
        let composed = through(composed::normalize_and_rotate);
        // Norm, scale and rotation round a handful of times, each by at most 6e-8 of the largest number.
        let largest = numbers(composed.0.clone()).iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert_close(&fused.0, &composed.0, 5e-7 * largest);
        // Vectors of two numbers may be short, and their gradients large.
        assert_close(&fused.1, &composed.1, 5e-5);
        assert_close(&fused.2, &composed.2, 2e-6);
        assert_close(&fused.3, &composed.3, 2e-6);
    }
}

#[test]
fn should_sum_squares_in_any_layout() {
    let device = Device::flex();
    let x = random([7, 41, 67], &device);
    let expected: f64 = numbers(x.clone()).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for x in [x.clone(), x.clone().swap_dims(0, 2), Tensor::from_inner(x)] {
        let sum = f64::from(fused::square_sum(x).into_scalar::<f32>());
        assert!((sum - expected).abs() < 1e-6 * expected, "{sum}, {expected}");
    }
}

#[test]
fn should_attend_and_differentiate_as_one_head_after_another() {
    let device = Device::flex();
    // Within one block of queries, a block to the last, a rest, and three blocks.
    for (batch, length, heads, head) in
        [(1, 1, 1, 1), (2, 7, 3, 5), (2, 128, 2, 16), (1, 131, 2, 8), (1, 300, 1, 64)]
    {
        let packed = random([batch, length, 3 * heads * head], &device);
        let arriving = random([batch, length, heads * head], &device);
        for causal in [false, true] {
            for dropout in [None, Some(every_third_dropped())] {
                type Attention = fn(Tensor<3>, usize, bool, Option<&AttentionDropout>) -> Tensor<3>;
                let through = |attention: Attention| {
                    let packed = Tensor::from_inner(packed.clone()).require_grad();
                    let output = attention(packed.clone(), heads, causal, dropout.as_ref());
                    let loss = output.clone() * Tensor::from_inner(arriving.clone());
                    (output.inner(), packed.grad(&loss.sum().backward()).unwrap())
                };
                let fused = through(fused::self_attention);
                let composed = through(composed::self_attention);
                assert_close(&fused.0, &composed.0, 2e-6);
                assert_close(&fused.1, &composed.1, 1e-5);
            }
        }
    }
}

#[test]
fn should_attend_to_a_sample_the_same_in_any_batch_and_on_any_number_of_threads() {
    let device = Device::flex();
    let packed = random([5, 140, 48], &device);
    let arriving = random([5, 140, 16], &device);
    let through = |samples: std::ops::Range<usize>| {
        let packed = packed.clone().slice([samples.clone(), 0..140, 0..48]);
        let arriving = arriving.clone().slice([samples, 0..140, 0..16]);
        let packed = Tensor::from_inner(packed).require_grad();
        let output = fused::self_attention(packed.clone(), 2, true, None);
        let loss = (output.clone() * Tensor::from_inner(arriving)).sum();
        (numbers(output.inner()), numbers(packed.grad(&loss.backward()).unwrap()))
    };
    let together = through(0..5);
    let alone = through(3..4);
    assert_eq!(together.0[3 * 140 * 16..4 * 140 * 16], alone.0);
    assert_eq!(together.1[3 * 140 * 48..4 * 140 * 48], alone.1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert!(pool.install(|| through(0..5)) == together);
}

#[test]
fn should_have_the_slope_of_finite_differences() {
    let device = Device::flex();
    let (x, weight) = (random([1, 2, 3, 4], &device), random([1, 2, 3, 4], &device));
    type Operation = fn(Tensor<4>) -> Tensor<4>;
    let operations: [(&str, Operation); 7] = [
        ("gelu", fused::gelu),
        ("softmax", |x| fused::scaled_softmax(x, 0.7, true)),
        ("silu_gate", |x| fused::silu_gate(x.clone() * 0.5, x)),
        ("layer_norm", |x| fused::layer_norm(x.clone(), scale(&x), scale(&x), 0.1)),
        ("rms_norm", |x| fused::rms_norm(x.clone(), scale(&x), 0.1)),
        ("log_softmax", fused::log_softmax),
        ("normalize_and_rotate", |x| {
            let ones = Tensor::ones([2], &x.device());
            let tables = [[0.6, 0.8], [0.3, -0.7]];
            let tables = Tensor::from_floats(tables, &x.device());
            let packed = x.reshape([1, 2, 12]);
            fused::normalize_and_rotate(
                packed,
                ones.clone() * 0.5,
                ones,
                tables.clone(),
                tables * 2.0,
                0.5,
            )
            .reshape([1, 2, 3, 4])
        }),
    ];
    for (name, f) in operations {
        let slope = numbers(gradient(&x, &weight, f));
        let values = numbers(x.clone());
        for (index, slope) in slope.into_iter().enumerate() {
            let loss_at = |step: f32| {
                let mut moved = values.clone();
                moved[index] += step;
                let moved = Tensor::<1>::from_floats(moved.as_slice(), &device).reshape(x.dims());
                (f(moved) * weight.clone()).sum().into_scalar::<f32>()
            };
            let difference = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
            assert!((difference - slope).abs() < 5e-3, "{name}: {slope}, {difference}");
        }
    }
}

/// Kernels of odd and even sides, with and without steps, zeros and a rest at the edge; the last
/// has windows for more than one part of the batch.
fn convolutions() -> [([usize; 4], usize, Geometry); 6] {
    let geometry = |kernel, stride, padding| Geometry { kernel, stride, padding };
    [
        ([2, 5, 7, 3], 4, geometry([3, 3], 1, [1, 1, 1, 1])),
        ([1, 1, 1, 1], 1, geometry([1, 1], 1, [0, 0, 0, 0])),
        ([2, 9, 6, 2], 3, geometry([4, 4], 2, [1, 1, 1, 1])),
        ([3, 4, 5, 2], 3, geometry([2, 3], 3, [1, 0, 0, 2])),
        ([1, 3, 2, 2], 2, geometry([5, 5], 1, [2, 2, 2, 2])),
        ([5, 48, 48, 36], 2, Geometry::same(6)),
    ]
}

fn composed_convolution(x: Tensor<4>, weight: Tensor<4>, geometry: Geometry) -> Tensor<4> {
    let [out, channels, height, width] = weight.dims();
    let matrix = weight.permute([2, 3, 1, 0]).reshape([height * width * channels, out]);
    composed::matrix_convolution(x, matrix, geometry)
}

#[test]
fn should_convolve_as_burn_does_and_have_its_gradients() {
    let device = Device::flex();
    for (shape, out, geometry) in convolutions() {
        let [height, width] = geometry.kernel;
        let x = random(shape, &device);
        let kernel = random([out, shape[3], height, width], &device) / (height * width) as f32;
        let result = fused::convolution(x.clone(), kernel.clone(), geometry);
        let [down, across] = geometry.output(shape[1], shape[2]);
        assert_eq!(result.dims(), [shape[0], down, across, out]);
        let expected = composed_convolution(x.clone(), kernel.clone(), geometry);
        assert_close(&result, &expected, 2e-5);

        let matrix = kernel.clone().permute([2, 3, 1, 0]).reshape([height * width * shape[3], out]);
        let bias = random([out], &device);
        let constant = || (Tensor::from_inner(matrix.clone()), Tensor::from_inner(bias.clone()));
        let in_one = |x: Tensor<4>| {
            let autodiff = x.device().is_autodiff();
            let (matrix, bias) = if autodiff { constant() } else { (matrix.clone(), bias.clone()) };
            fused::clamped_convolution(x, matrix, bias, geometry, -0.2, 0.9)
        };
        let in_two = fused::shifted_clamp(result.clone(), bias.clone(), -0.2, 0.9);
        assert_close(&in_one(x.clone()), &in_two, 0.0);

        let weight = random(result.dims(), &device);
        assert_close(
            &gradient(&x, &weight, in_one),
            &gradient(&x, &weight, |x| {
                let (matrix, bias) = constant();
                let sums = composed::matrix_convolution(x, matrix, geometry);
                composed::clamp(sums + bias.unsqueeze(), -0.2, 0.9)
            }),
            2e-5,
        );
        let of = |f: &dyn Fn(Tensor<4>, Tensor<4>, Geometry) -> Tensor<4>, both: bool| {
            let x = Tensor::from_inner(x.clone()).set_require_grad(both);
            let kernel = Tensor::from_inner(kernel.clone()).require_grad();
            let loss = f(x.clone(), kernel.clone(), geometry) * Tensor::from_inner(weight.clone());
            let gradients = loss.sum().backward();
            (kernel.grad(&gradients).unwrap(), x.grad(&gradients))
        };
        let (for_kernel, for_x) = of(&fused::convolution, true);
        let (expected_kernel, expected_x) = of(&composed_convolution, true);
        // Each place of the result adds to every number of the kernel.
        let places = (shape[0] * down * across) as f32;
        assert_close(&(for_kernel.clone() / places), &(expected_kernel / places), 1e-6);
        assert_close(&for_x.unwrap(), &expected_x.unwrap(), 2e-5);
        let (alone, nothing) = of(&fused::convolution, false);
        assert_close(&alone, &for_kernel, 0.0);
        assert!(nothing.is_none());
        // Only x is tracked, as where a discriminator judges but does not learn.
        let fixed = |x| fused::convolution(x, Tensor::from_inner(kernel.clone()), geometry);
        let composed = |x| composed_convolution(x, Tensor::from_inner(kernel.clone()), geometry);
        let to_result = |f: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let x = Tensor::from_inner(x.clone()).require_grad();
            let loss = f(x.clone()) * Tensor::from_inner(weight.clone());
            x.grad(&loss.sum().backward()).unwrap()
        };
        assert_close(&to_result(&fixed), &to_result(&composed), 2e-5);
    }
}

#[test]
fn should_convolve_each_channel_as_burn_does_and_have_its_gradient() {
    let device = Device::flex();
    for (shape, _, geometry) in convolutions() {
        for channels in [1, 16, 23, 100] {
            let shape = [shape[0], shape[1], shape[2], channels];
            let [height, width] = geometry.kernel;
            let x = random(shape, &device);
            let filter = random([height, width, channels], &device) / (height * width) as f32;
            let bias = random([channels], &device);
            let result =
                fused::depthwise_convolution(x.clone(), filter.clone(), bias.clone(), geometry);
            let [down, across] = geometry.output(shape[1], shape[2]);
            assert_eq!(result.dims(), [shape[0], down, across, channels]);
            type Depthwise = fn(Tensor<4>, Tensor<3>, Tensor<1>, Geometry) -> Tensor<4>;
            let composed: Depthwise = composed::depthwise_convolution;
            let expected = composed(x.clone(), filter.clone(), bias.clone(), geometry);
            assert_close(&result, &expected, 1e-5);

            let weight = random(result.dims(), &device);
            let to_x = |f: Depthwise| {
                let x = Tensor::from_inner(x.clone()).require_grad();
                let filter = Tensor::from_inner(filter.clone());
                let bias = Tensor::from_inner(bias.clone());
                let loss = f(x.clone(), filter, bias, geometry) * constant_of(&weight);
                x.grad(&loss.sum().backward()).unwrap()
            };
            assert_close(&to_x(fused::depthwise_convolution), &to_x(composed), 1e-5);
        }
    }
}

#[test]
fn should_clamp_and_pass_gradients_between_the_bounds_only() {
    let device = Device::flex();
    let infinity = f32::INFINITY;
    let x = Tensor::<1>::from_floats([-3.0, -0.0, 0.0, 0.5, 6.0, 7.0, f32::NAN], &device);
    let relu6 = numbers(fused::clamp(x.clone(), 0.0, 6.0));
    assert_eq!(relu6[..6], [0.0, 0.0, 0.0, 0.5, 6.0, 6.0]);
    assert!(relu6[6].is_nan());
    let ones = x.ones_like();
    let slopes = numbers(gradient(&x, &ones, |x| fused::clamp(x, 0.0, 6.0)));
    assert_eq!(slopes, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    for shape in SHAPES {
        let (x, weight) = (random(shape, &device), random(shape, &device));
        let clamped = fused::clamp(x.clone(), -0.3, 0.7);
        assert_close(&clamped, &composed::clamp(x.clone(), -0.3, 0.7), 0.0);
        let bias = scale(&x) - 1.5;
        let shifted = fused::shifted_clamp(x.clone(), bias.clone(), 0.0, infinity);
        let composed = composed::clamp(x.clone() + bias.clone().unsqueeze(), 0.0, infinity);
        assert_close(&shifted, &composed, 0.0);
        let constant = || Tensor::from_inner(bias.clone());
        assert_close(
            &gradient(&x, &weight, |x| fused::shifted_clamp(x, constant(), -0.3, 0.7)),
            &gradient(&x, &weight, |x| composed::clamp(x + constant().unsqueeze(), -0.3, 0.7)),
            0.0,
        );
    }
    // What somebody else reads stays.
    let before = random([2, 3, 4, 5], &device);
    let kept = before.clone() * 1.0;
    let _ = fused::shifted_clamp(before.clone(), ones_of(5, &device), 0.0, 1.0);
    let _ = fused::clamp(before.clone(), 0.0, 1.0);
    assert_close(&before, &kept, 0.0);
}

#[test]
fn should_pool_as_burn_does_and_give_the_gradient_to_the_first_of_the_largest() {
    let device = Device::flex();
    let geometry =
        |side, stride, zeros| Geometry { kernel: [side; 2], stride, padding: [zeros; 4] };
    for (shape, geometry) in [
        ([2, 4, 6, 5], geometry(2, 2, 0)),
        ([1, 7, 5, 33], geometry(2, 2, 0)),
        ([2, 9, 7, 16], geometry(3, 2, 0)),
        ([3, 5, 6, 3], geometry(3, 1, 1)),
    ] {
        let x = random(shape, &device);
        let pooled = fused::max_pool(x.clone(), geometry);
        assert_close(&pooled, &composed::max_pool(x.clone(), geometry), 0.0);
        let weight = random(pooled.dims(), &device);
        let to_x = |f: fn(Tensor<4>, Geometry) -> Tensor<4>| {
            let x = Tensor::from_inner(x.clone()).require_grad();
            let loss = f(x.clone(), geometry) * constant_of(&weight);
            x.grad(&loss.sum().backward()).unwrap()
        };
        assert_close(&to_x(fused::max_pool), &to_x(composed::max_pool), 1e-6);
    }
    // A picture of one colour: the first of each window, as PyTorch has it.
    let flat = Tensor::<4>::ones([1, 3, 3, 1], &device);
    let ones = Tensor::<4>::ones([1, 2, 2, 1], &device);
    let x = Tensor::from_inner(flat).require_grad();
    let loss = fused::max_pool(x.clone(), geometry(2, 1, 0)) * constant_of(&ones);
    let slopes = numbers(x.grad(&loss.sum().backward()).unwrap());
    assert_eq!(slopes, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

fn ones_of(count: usize, device: &Device) -> Tensor<1> {
    Tensor::ones([count], device)
}

#[test]
fn should_cover_a_picture_as_tensorflow_does() {
    // Extents 5 and 6 by threes in steps of two: one zero each side, or one at the end.
    let geometry = Geometry::covering(3, 2, [5, 6]);
    assert_eq!(geometry.padding, [1, 1, 0, 1]);
    assert_eq!(geometry.output(5, 6), [3, 3]);
    assert_eq!(Geometry::covering(5, 1, [7, 7]), Geometry::same(5));
    assert_eq!(Geometry::covering(1, 2, [5, 6]).padding, [0; 4]);
}

#[test]
fn should_read_any_layout() {
    let device = Device::flex();
    let whole = random([3, 4, 60, 50], &device);
    let views = [
        whole.clone().swap_dims(2, 3),
        whole.clone().swap_dims(0, 1).swap_dims(1, 3),
        whole.clone().narrow(2, 7, 31).swap_dims(2, 3),
        whole.clone().narrow(0, 1, 1),
        // Row-major from the start, but the buffer goes on.
        whole.clone().narrow(0, 0, 2),
        whole.clone().narrow(2, 3, 1).expand([3, 4, 20, 50]),
    ];
    for view in views {
        let copied = Tensor::<4>::from_data(view.to_data(), &device);
        let weight = random(view.dims(), &device);
        assert_close(&fused::gelu(view.clone()), &fused::gelu(copied.clone()), 0.0);
        assert_close(
            &fused::scaled_softmax(view.clone(), 1.3, false),
            &fused::scaled_softmax(copied.clone(), 1.3, false),
            0.0,
        );
        assert_close(
            &fused::silu_gate(view.clone(), weight.clone()),
            &fused::silu_gate(copied.clone(), weight.clone()),
            0.0,
        );
        assert_close(
            &fused::silu_gate(weight.clone(), view.clone()),
            &fused::silu_gate(weight.clone(), copied.clone()),
            0.0,
        );
        assert_close(
            &gradient(&view, &weight, fused::log_softmax),
            &gradient(&copied, &weight, fused::log_softmax),
            0.0,
        );
        assert_close(
            &gradient(&view, &weight, fused::gelu),
            &gradient(&copied, &weight, fused::gelu),
            0.0,
        );
        assert_close(
            &gradient(&weight, &view, |x| fused::scaled_softmax(x, 1.0, false)),
            &gradient(&weight, &copied, |x| fused::scaled_softmax(x, 1.0, false)),
            0.0,
        );
        assert_close(
            &gradient(&view, &weight, |x| layer_norm(x.clone(), scale(&x))),
            &gradient(&copied, &weight, |x| layer_norm(x.clone(), scale(&x))),
            0.0,
        );
    }
}

#[test]
fn should_leave_shared_inputs_alone() {
    let device = Device::flex();
    let shape = [2, 3, 40, 50];
    let (x, y) = (random(shape, &device), random(shape, &device));
    let before = (x.to_data(), y.to_data());
    let _ = fused::gelu(x.clone());
    let _ = fused::scaled_softmax(x.clone(), 0.5, true);
    let _ = fused::silu_gate(x.clone(), y.clone());
    let _ = layer_norm(x.clone(), ones(&x));
    let _ = gradient(&x, &y, fused::gelu);
    let _ = gradient(&x, &y, |x| layer_norm(x.clone(), ones(&x)));
    let _ = gradient(&x, &y, |x| fused::scaled_softmax(x, 0.5, true));
    let _ = gradient(&x, &y, |up| fused::silu_gate(Tensor::from_inner(x.clone()), up));
    assert_eq!(before, (x.to_data(), y.to_data()));

    // A tracked tensor with two users: the first must not write on what the second reads.
    let both = |f: fn(Tensor<4>) -> Tensor<4>| gradient(&x, &y, |x| f(x.clone()) * x.sin());
    assert_close(&both(fused::gelu), &both(composed::gelu), 1e-5);
}

#[test]
fn should_be_the_exact_gelu_to_a_millionth() {
    // x Φ(x), from a table of the normal distribution to ten digits.
    let table: [(f64, f64); 8] = [
        (0.0, 0.0),
        (0.5, 0.345_731_230_6),
        (1.0, 0.841_344_746_1),
        (2.0, 1.954_499_736_1),
        (3.0, 2.995_950_305_9),
        (4.5, 4.499_984_710_1),
        (9.0, 9.0),
        (60.0, 60.0),
    ];
    let device = Device::flex();
    for (x, expected) in table.map(|(x, expected)| (x as f32, expected as f32)) {
        let both = Tensor::<1>::from_floats([x, -x], &device);
        let values = numbers(fused::gelu(both));
        assert!((values[0] - expected).abs() < 1e-6, "gelu({x}) = {}", values[0]);
        assert!((values[1] - (expected - x)).abs() < 1e-6, "gelu(-{x}) = {}", values[1]);
    }
}

#[test]
fn should_not_depend_on_the_number_of_threads() {
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let device = Device::flex();
            let values = (0..6 * 101 * 136).map(|i| ((i * 7919) % 10_007) as f32 / 2000.0 - 2.5);
            let x = Tensor::<1>::from_floats(&*values.collect::<Vec<_>>(), &device);
            let x = x.reshape([2, 3, 101, 136]);
            let weight = x.clone().flip([2, 3]);
            let scale = Tensor::<1>::ones([136], &device.autodiff()).require_grad();
            let normalized = layer_norm(Tensor::from_inner(x.clone()), scale.clone());
            let loss = (normalized * Tensor::from_inner(weight.clone())).sum();
            let for_scale = scale.grad(&loss.backward()).unwrap();
            let each = [
                fused::gelu(x.clone()),
                fused::scaled_softmax(x.clone(), 0.7, true),
                fused::log_softmax(x.clone()),
                gradient(&x, &weight, fused::log_softmax),
                gradient(&x, &weight, fused::gelu),
                gradient(&x, &weight, |x| fused::scaled_softmax(x, 0.7, true)),
                gradient(&x, &weight, |x| fused::silu_gate(x.clone(), x)),
                gradient(&x, &weight, |x| layer_norm(x.clone(), ones(&x))),
            ];
            (each.map(numbers), numbers(for_scale))
        })
    };
    let one = with_threads(1);
    assert!(one == with_threads(2) && one == with_threads(5));
}

#[test]
fn should_let_fewer_queries_see_the_last_keys() {
    let device = Device::flex();
    let scores = random([2, 3, 4, 9], &device);
    let probabilities = fused::scaled_softmax(scores.clone(), 0.5, true);
    assert_close(&probabilities, &composed::scaled_softmax(scores, 0.5, true), 1e-6);
    let rows = numbers(probabilities);
    for (index, row) in rows.chunks(9).enumerate() {
        let seen = 9 - 4 + index % 4 + 1;
        assert!(row[..seen].iter().all(|&p| p > 0.0));
        assert!(row[seen..].iter().all(|&p| p == 0.0));
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn should_give_masked_scores_exactly_zero_and_pass_on_nan() {
    let device = Device::flex();
    let scores = [1.0, f32::NEG_INFINITY, 2.0, 0.0, f32::NAN, 1.0];
    let scores = Tensor::<1>::from_floats(scores, &device).reshape([1, 1, 2, 3]);
    let rows = numbers(fused::scaled_softmax(scores, 1.0, false));
    assert_eq!(rows[1], 0.0);
    assert!((rows[0] + rows[2] - 1.0).abs() < 1e-6);
    assert!(rows[3..].iter().all(|p| p.is_nan()));
    let nan = Tensor::<1>::from_floats([f32::NAN, 0.0], &device);
    let values = numbers(fused::gelu(nan.clone()));
    assert!(values[0].is_nan() && values[1] == 0.0);
    let gated = fused::silu_gate(nan.clone(), nan.ones_like());
    assert!(numbers(gated)[0].is_nan());
}
