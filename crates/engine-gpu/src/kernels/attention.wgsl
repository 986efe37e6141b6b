// Attention of one query head of one row over the positions of its sequence so far, its own included.

@group(0) @binding(0) var<storage, read> rows: array<vec4<u32>>; // slot, position, id, row of rotations
@group(0) @binding(1) var<storage, read> mixed: array<vec4<f32>>; // queries, keys, values of each row
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [rows, HEADS, HEAD]

const HEAD4: u32 = HEAD / 4u;
// Threads that share the positions of one output among them.
const SHARES: u32 = 64u / HEAD4;

var<workgroup> query: array<vec4<f32>, HEAD4>;
var<workgroup> scores: array<f32, BLOCKS * 64u>;
var<workgroup> reduced: array<f32, 64>;
var<workgroup> parts: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = rows[group.x];
    let head = group.y;
    let length = row.y + 1u;
    let memory = (row.x * KEY_HEADS + head / (HEADS / KEY_HEADS)) * BLOCKS;
    for (var i = thread; i < HEAD4; i += 64u) {
        query[i] = mixed[(group.x * (HEADS + 2u * KEY_HEADS) + head) * HEAD4 + i];
    }
    workgroupBarrier();
    var largest = -3.4e38;
    for (var p = thread; p < length; p += 64u) {
        let block = (memory + p / 64u) * HEAD4;
        var sum = 0.0;
        for (var i = 0u; i < HEAD4; i++) {
            let key = keys[(block + i) * 64u + thread];
            sum = fma(query[i].x, key.x, sum);
            sum = fma(query[i].y, key.y, sum);
            sum = fma(query[i].z, key.z, sum);
            sum = fma(query[i].w, key.w, sum);
        }
        let score = sum * SCALE;
        scores[p] = score;
        largest = max(largest, score);
    }
    reduced[thread] = largest;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (thread < half) {
            reduced[thread] = max(reduced[thread], reduced[thread + half]);
        }
        workgroupBarrier();
    }
    largest = reduced[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var p = thread; p < length; p += 64u) {
        let weight = exp(scores[p] - largest);
        scores[p] = weight;
        sum += weight;
    }
    reduced[thread] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if (thread < half) {
            reduced[thread] += reduced[thread + half];
        }
        workgroupBarrier();
    }
    let inverse = 1.0 / reduced[0];
    let share = thread / HEAD4;
    var result = vec4(0.0);
    if (share < SHARES) {
        for (var p = share; p < length; p += SHARES) {
            let value = values[(memory * 64u + p) * HEAD4 + thread % HEAD4];
            result = fma(vec4(scores[p]), value, result);
        }
    }
    parts[thread] = result;
    workgroupBarrier();
    if (thread < HEAD4) {
        var total = vec4(0.0);
        for (var s = 0u; s < SHARES; s++) {
            total += parts[s * HEAD4 + thread];
        }
        out[(group.x * HEADS + head) * HEAD4 + thread] = total * inverse;
    }
}
