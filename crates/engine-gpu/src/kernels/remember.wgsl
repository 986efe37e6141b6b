// Norm and rotation of a row's queries, in place, and of its keys, which go to the cache with its values.
// A workgroup takes one head: first come those of queries, then of keys, then of values.

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // slot, position, id, row of rotations
@group(0) @binding(1) var<storage, read> rotations: array<f32>;  // [rows of rotations, 2, HEAD]
@group(0) @binding(2) var<storage, read> query_norm: array<f32>; // [HEAD]
@group(0) @binding(3) var<storage, read> key_norm: array<f32>;   // [HEAD]
@group(0) @binding(4) var<storage, read_write> mixed: array<f32>; // queries, keys, values of each row
// For each slot, head and block of 64 positions [HEAD / 4, 64, 4]: threads that score neighbouring
// positions read neighbouring memory.
@group(0) @binding(5) var<storage, read_write> keys: array<f32>;
// For each slot and head [positions, HEAD].
@group(0) @binding(6) var<storage, read_write> values: array<f32>;

var<workgroup> squares: array<f32, 64>;
var<workgroup> ready: array<f32, HEAD>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = rows[group.x];
    let part = group.y;
    let start = group.x * (HEADS + 2u * KEY_HEADS) * HEAD + part * HEAD;
    if (part >= HEADS + KEY_HEADS) {
        let head = row.x * KEY_HEADS + part - HEADS - KEY_HEADS;
        for (var i = thread; i < HEAD; i += 64u) {
            values[(head * BLOCKS * 64u + row.y) * HEAD + i] = mixed[start + i];
        }
        return;
    }
    var sum = 0.0;
    for (var i = thread; i < HEAD; i += 64u) {
        sum = fma(mixed[start + i], mixed[start + i], sum);
    }
    squares[thread] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (thread < half) {
            squares[thread] += squares[thread + half];
        }
        workgroupBarrier();
    }
    let inverse = 1.0 / sqrt(squares[0] / f32(HEAD) + EPSILON);
    let is_query = part < HEADS;
    for (var i = thread; i < HEAD; i += 64u) {
        ready[i] = mixed[start + i] * inverse * select(key_norm[i], query_norm[i], is_query);
    }
    workgroupBarrier();
    let turn = row.w * 2u * HEAD;
    for (var i = thread; i < HEAD; i += 64u) {
        let value = ready[i] * rotations[turn + i] + ready[i ^ 1u] * rotations[turn + HEAD + i];
        if (is_query) {
            mixed[start + i] = value;
        } else {
            let block = (row.x * KEY_HEADS + part - HEADS) * BLOCKS + row.y / 64u;
            keys[((block * HEAD / 4u + i / 4u) * 64u + row.y % 64u) * 4u + i % 4u] = value;
        }
    }
}
