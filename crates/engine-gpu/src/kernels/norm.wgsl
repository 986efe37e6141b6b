// Root-mean-square norm of rows: all of them, or with GATHER those that a list names.

@group(0) @binding(0) var<uniform> counts: vec4<u32>;            // rows of out
@group(0) @binding(1) var<storage, read> list: array<u32>;
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>; // [INPUTS]
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;    // [rows, INPUTS]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.x;
    var source = row;
    if (GATHER) {
        source = list[row];
    }
    let inverse = inverse_norm(source, thread);
    for (var i = thread; i < INPUTS4; i += 256u) {
        out[row * INPUTS4 + i] = x[source * INPUTS4 + i] * inverse * norm[i];
    }
}
