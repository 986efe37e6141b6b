// A product of few rows: a workgroup computes a panel of 16 outputs for ROWS rows and reads its weights
// once. Each of its 16 × 16 threads adds up one slice of the inputs for one output. With NORM, x goes
// through a root-mean-square norm on the way.

var<workgroup> sums: array<f32, 256u * ROWS * PARTS>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let panel = group.x;
    let first_row = group.y * ROWS;
    let rows = counts.x;
    let lane = thread % LANES;
    let slice = thread / LANES;
    var inverse: array<f32, ROWS>;
    if (NORM) {
        for (var r = 0u; r < ROWS; r++) {
            inverse[r] = inverse_norm(counts.y + min(first_row + r, rows - 1u), thread);
        }
    }
    var sum: array<f32, ROWS * PARTS>;
    for (var s = 0u; s < STEPS; s++) {
        let step = slice * STEPS + s;
        // Inputs beyond the last have weights of zero; what is read for them is zero too.
        let inside = vec2(2u * step < INPUTS4, 2u * step + 1u < INPUTS4);
        let at = min(vec2(2u * step, 2u * step + 1u), vec2(INPUTS4 - 1u));
        let first = weights_at(weight_index(panel, 0u, step, lane));
        var second = first;
        if (PARTS == 2u) {
            second = weights_at(weight_index(panel, 1u, step, lane));
        }
        for (var r = 0u; r < ROWS; r++) {
            let row = (counts.y + min(first_row + r, rows - 1u)) * INPUTS4;
            var low = x[row + at.x];
            var high = x[row + at.y];
            if (NORM) {
                low = low * inverse[r] * norm[at.x];
                high = high * inverse[r] * norm[at.y];
            }
            low = select(vec4(0.0), low, inside.x);
            high = select(vec4(0.0), high, inside.y);
            sum[r * PARTS] = add_eight(sum[r * PARTS], low, high, first);
            if (PARTS == 2u) {
                sum[r * PARTS + 1u] = add_eight(sum[r * PARTS + 1u], low, high, second);
            }
        }
    }
    for (var i = 0u; i < ROWS * PARTS; i++) {
        sums[i * 256u + thread] = sum[i];
    }
    workgroupBarrier();
    if (thread < LANES * ROWS) {
        let r = thread / LANES;
        let own = thread % LANES;
        var total = vec2(0.0);
        for (var s = 0u; s < SLICES; s++) {
            total.x += sums[r * PARTS * 256u + s * LANES + own];
            if (PARTS == 2u) {
                total.y += sums[(r * PARTS + 1u) * 256u + s * LANES + own];
            }
        }
        let output = (band.x + panel) * LANES + own;
        if (first_row + r < rows && output < OUTPUTS) {
            finish(first_row + r, output, total.x, total.y);
        }
    }
}
