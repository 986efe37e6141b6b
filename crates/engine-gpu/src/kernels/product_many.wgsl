// A product of many rows: a workgroup computes 64 rows of four panels, from tiles in workgroup memory.
// A thread has one output of each panel for four rows. Sums are taken in the order of product_few.wgsl.

const ROW_TILE: u32 = 64u;
const PANELS: u32 = 4u;

var<workgroup> x_tile: array<f32, 8u * ROW_TILE>;            // [input, row]
var<workgroup> weight_tile: array<f32, 8u * PANELS * LANES>; // [input, panel, lane]

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Panels are counted through both matrices where two alternate.
    let first_panel = group.x * PANELS;
    let first_row = group.y * ROW_TILE;
    let rows = counts.x;
    let lane = thread % LANES;
    let own_rows = thread / LANES * 4u;
    var total: array<vec4<f32>, PANELS>;
    for (var slice = 0u; slice < SLICES; slice++) {
        // Named zeros: an older naga, seen in a build of wgpu-native, kept the sums of the slice before.
        var sum = array<vec4<f32>, PANELS>();
        for (var s = 0u; s < STEPS; s++) {
            let step = slice * STEPS + s;
            if (thread < 2u * ROW_TILE) {
                let row = thread % ROW_TILE;
                let half = thread / ROW_TILE;
                let i = 2u * step + half;
                var value = vec4(0.0);
                if (i < INPUTS4 && first_row + row < rows) {
                    value = x[(counts.y + first_row + row) * INPUTS4 + i];
                }
                for (var k = 0u; k < 4u; k++) {
                    x_tile[(4u * half + k) * ROW_TILE + row] = value[k];
                }
            } else if (thread < 2u * ROW_TILE + PANELS * LANES) {
                let place = thread - 2u * ROW_TILE;
                let panel = first_panel + place / LANES;
                var w = Eight(vec4(0.0), vec4(0.0));
                if (panel < band.y * PARTS) {
                    w = weights_at(weight_index(panel / PARTS, panel % PARTS, step, place % LANES));
                }
                for (var k = 0u; k < 4u; k++) {
                    weight_tile[k * PANELS * LANES + place] = w.low[k];
                    weight_tile[(4u + k) * PANELS * LANES + place] = w.high[k];
                }
            }
            workgroupBarrier();
            for (var k = 0u; k < 8u; k++) {
                let at = k * ROW_TILE + own_rows;
                let values = vec4(x_tile[at], x_tile[at + 1u], x_tile[at + 2u], x_tile[at + 3u]);
                for (var p = 0u; p < PANELS; p++) {
                    let w = weight_tile[(k * PANELS + p) * LANES + lane];
                    sum[p] = fma(values, vec4(w), sum[p]);
                }
            }
            workgroupBarrier();
        }
        for (var p = 0u; p < PANELS; p++) {
            total[p] += sum[p];
        }
    }
    for (var p = 0u; p < PANELS; p += PARTS) {
        let panel = (first_panel + p) / PARTS;
        let output = (band.x + panel) * LANES + lane;
        for (var r = 0u; r < 4u; r++) {
            let row = first_row + own_rows + r;
            if (row < rows && panel < band.y && output < OUTPUTS) {
                finish(row, output, total[p][r], total[p + PARTS - 1u][r]);
            }
        }
    }
}
