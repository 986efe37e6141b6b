// The code nearest to each row; of equally near ones, the first. Before it stand SIZE and CODES.

@group(0) @binding(0) var<storage, read> features: array<f32>; // [rows, SIZE]
@group(0) @binding(1) var<storage, read> codebook: array<f32>; // [SIZE, CODES]
@group(0) @binding(2) var<storage, read> squares: array<f32>;  // [CODES]: squared lengths
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

var<workgroup> feature: array<f32, SIZE>;
var<workgroup> distances: array<f32, 256>;
var<workgroup> codes: array<u32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var i = thread; i < SIZE; i += 256u) {
        feature[i] = features[group.x * SIZE + i];
    }
    workgroupBarrier();
    var square = 0.0;
    for (var i = 0u; i < SIZE; i++) {
        square = fma(feature[i], feature[i], square);
    }
    var nearest = 3.4e38;
    var best = 0u;
    for (var code = thread; code < CODES; code += 256u) {
        var dot = 0.0;
        for (var i = 0u; i < SIZE; i++) {
            dot = fma(feature[i], codebook[i * CODES + code], dot);
        }
        let distance = square + squares[code] - 2.0 * dot;
        if (distance < nearest) {
            nearest = distance;
            best = code;
        }
    }
    distances[thread] = nearest;
    codes[thread] = best;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            let other = distances[thread + half];
            let code = codes[thread + half];
            let own = distances[thread];
            if (other < own || (other == own && code < codes[thread])) {
                distances[thread] = other;
                codes[thread] = code;
            }
        }
        workgroupBarrier();
    }
    if (thread == 0u) {
        out[group.x] = codes[0];
    }
}
