// What all products share: out = finish(x · weightsᵀ + bias).
//
// Before it stand the constants INPUTS4 (inputs / 4), OUTPUTS, STEPS (of a slice), FINISH, PARTS (2
// where panels of two matrices alternate, else 1). The layout of weights is told in weights.rs.

const LANES: u32 = 16u;
const SLICES: u32 = 16u;

const FINISH_ADD: u32 = 1u;      // add to what is there: the residual stream
const FINISH_SILU_GATE: u32 = 2u; // silu(first matrix) · second matrix
const FINISH_GELU: u32 = 3u;

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

@group(0) @binding(0) var<uniform> counts: vec4<u32>;      // rows, first row of x, first row of out
@group(0) @binding(1) var<uniform> band: vec4<u32>;        // first panel, panels
@group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>; // [OUTPUTS]
@group(0) @binding(4) var<storage, read> norm: array<vec4<f32>>; // [INPUTS]
@group(0) @binding(5) var<storage, read> x: array<vec4<f32>>;    // [rows, INPUTS]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;  // [rows, OUTPUTS]
@group(0) @binding(7) var<storage, read> scales: array<f32>;     // [PARTS, OUTPUTS], with SCALED

fn weight_index(panel: u32, part: u32, step: u32, lane: u32) -> u32 {
    return (((panel * PARTS + part) * SLICES * STEPS) + step) * LANES + lane;
}

// Adds eight products, one after the other: the order is a part of the result.
fn add_eight(sum: f32, low: vec4<f32>, high: vec4<f32>, w: Eight) -> f32 {
    var s = fma(low.x, w.low.x, sum);
    s = fma(low.y, w.low.y, s);
    s = fma(low.z, w.low.z, s);
    s = fma(low.w, w.low.w, s);
    s = fma(high.x, w.high.x, s);
    s = fma(high.y, w.high.y, s);
    s = fma(high.z, w.high.z, s);
    return fma(high.w, w.high.w, s);
}

// x Φ(x), by the polynomial of `numerics::gelu`.
fn gelu(value: f32) -> f32 {
    let magnitude = abs(value);
    let power = exp(-0.5 * magnitude * magnitude);
    let t = 1.0 / fma(0.3, magnitude, 1.0);
    var series = 0.035931956;
    series = fma(series, t, -0.15827684);
    series = fma(series, t, 0.20820795);
    series = fma(series, t, -0.055394977);
    series = fma(series, t, 0.12946974);
    series = fma(series, t, 0.09963734);
    series = fma(series, t, 0.12079838);
    series = fma(series, t, 0.11962639);
    return max(value, 0.0) - magnitude * (series * t * power);
}

fn finish(row: u32, output: u32, first_sum: f32, second_sum: f32) {
    var first = first_sum;
    var second = second_sum;
    if (SCALED) {
        first *= scales[output];
        if (PARTS == 2u) {
            second *= scales[OUTPUTS + output];
        }
    }
    let place = (counts.z + row) * OUTPUTS + output;
    if (FINISH == FINISH_SILU_GATE) {
        out[place] = first / (1.0 + exp(-first)) * second;
    } else if (FINISH == FINISH_ADD) {
        out[place] += first + bias[output];
    } else if (FINISH == FINISH_GELU) {
        out[place] = gelu(first + bias[output]);
    } else {
        out[place] = first + bias[output];
    }
}
