// Layer norm of rows: mean 0, deviation 1, then weight and bias. Before it stand WIDTH4 and EPSILON.

@group(0) @binding(0) var<uniform> counts: vec4<u32>; // rows, first row of x, first row of out
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>; // [WIDTH]
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;   // [WIDTH]
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;      // [rows, WIDTH]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> sums: array<f32, 256>;

// The sum of one number of each thread, in every thread.
fn total(value: f32, thread: u32) -> f32 {
    sums[thread] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            sums[thread] += sums[thread + half];
        }
        workgroupBarrier();
    }
    let result = sums[0];
    // The next sum comes to the same place.
    workgroupBarrier();
    return result;
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let source = (counts.y + group.x) * WIDTH4;
    let target_row = (counts.z + group.x) * WIDTH4;
    let count = f32(4u * WIDTH4);
    var sum = 0.0;
    for (var i = thread; i < WIDTH4; i += 256u) {
        let v = x[source + i];
        sum += (v.x + v.y) + (v.z + v.w);
    }
    let mean = total(sum, thread) / count;
    var squares = 0.0;
    for (var i = thread; i < WIDTH4; i += 256u) {
        let v = x[source + i] - mean;
        squares = fma(v.x, v.x, squares);
        squares = fma(v.y, v.y, squares);
        squares = fma(v.z, v.z, squares);
        squares = fma(v.w, v.w, squares);
    }
    let inverse = 1.0 / sqrt(total(squares, thread) / count + EPSILON);
    for (var i = thread; i < WIDTH4; i += 256u) {
        out[target_row + i] = fma((x[source + i] - mean) * inverse, weight[i], bias[i]);
    }
}
