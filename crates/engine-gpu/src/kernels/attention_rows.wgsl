// Attention of all rows of a picture at once; with CAUSAL a row sees itself and those before it. A
// workgroup takes 64 rows of one head, a thread one row. Keys and values come in tiles through workgroup
// memory; what was summed up is scaled down whenever a tile holds a larger score (as in FlashAttention).

@group(0) @binding(0) var<uniform> counts: vec4<u32>; // rows
@group(0) @binding(1) var<storage, read> mixed: array<vec4<f32>>; // [rows, 3, HEADS, HEAD]: queries, keys, values
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // [rows, HEADS, HEAD]

const HEAD4: u32 = HEAD / 4u;
const TILE: u32 = 16u;

var<workgroup> keys: array<vec4<f32>, TILE * HEAD4>;
var<workgroup> values: array<vec4<f32>, TILE * HEAD4>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let rows = counts.x;
    let row = group.x * 64u + thread;
    let head = group.y;
    var end = rows;
    if (CAUSAL) {
        end = min(rows, group.x * 64u + 64u);
    }
    var query: array<vec4<f32>, HEAD4>;
    var sum: array<vec4<f32>, HEAD4>;
    let own = (min(row, rows - 1u) * 3u * HEADS + head) * HEAD4;
    for (var i = 0u; i < HEAD4; i++) {
        query[i] = mixed[own + i] * SCALE;
        sum[i] = vec4(0.0);
    }
    var largest = -3.4e38;
    var total = 0.0;
    for (var start = 0u; start < end; start += TILE) {
        for (var i = thread; i < TILE * HEAD4; i += 64u) {
            let position = min(start + i / HEAD4, rows - 1u);
            let at = (position * 3u * HEADS + head) * HEAD4 + i % HEAD4;
            keys[i] = mixed[at + HEADS * HEAD4];
            values[i] = mixed[at + 2u * HEADS * HEAD4];
        }
        workgroupBarrier();
        var scores: array<f32, TILE>;
        var most = largest;
        for (var p = 0u; p < TILE; p++) {
            var score = 0.0;
            for (var i = 0u; i < HEAD4; i++) {
                let key = keys[p * HEAD4 + i];
                score = fma(query[i].x, key.x, score);
                score = fma(query[i].y, key.y, score);
                score = fma(query[i].z, key.z, score);
                score = fma(query[i].w, key.w, score);
            }
            let hidden = start + p >= end || (CAUSAL && start + p > row);
            scores[p] = select(score, -3.4e38, hidden);
            most = max(most, scores[p]);
        }
        let shrink = exp(largest - most);
        total *= shrink;
        for (var i = 0u; i < HEAD4; i++) {
            sum[i] *= shrink;
        }
        for (var p = 0u; p < TILE; p++) {
            // Far below the largest score: exactly 0.
            let weight = select(exp(scores[p] - most), 0.0, scores[p] < -3.3e38);
            total += weight;
            for (var i = 0u; i < HEAD4; i++) {
                sum[i] = fma(vec4(weight), values[p * HEAD4 + i], sum[i]);
            }
        }
        largest = most;
        workgroupBarrier();
    }
    if (row < rows) {
        let inverse = 1.0 / total;
        for (var i = 0u; i < HEAD4; i++) {
            out[(row * HEADS + head) * HEAD4 + i] = sum[i] * inverse;
        }
    }
}
