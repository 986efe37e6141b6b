// The vector of each row's id.

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // slot, position, id, row of rotations
@group(0) @binding(1) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let id = rows[group.x].z;
    for (var i = thread; i < WIDTH4; i += 256u) {
        out[group.x * WIDTH4 + i] = table[id * WIDTH4 + i];
    }
}
