// Patches to planes: the linear layer over the three channels of each pixel, the sigmoid, and the pixel's
// place. Before it stand PATCH (pixels on a side) and COLUMNS (patches in a row).

@group(0) @binding(0) var<uniform> counts: vec4<u32>; // patches
@group(0) @binding(1) var<storage, read> color: array<f32>;   // weights [3, 3], bias [3]
@group(0) @binding(2) var<storage, read> patches: array<f32>; // [patches, PATCH, PATCH, 3]
@group(0) @binding(3) var<storage, read_write> planes: array<f32>; // [3, height, width]

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let patch_index = id.x / (PATCH * PATCH);
    let pixel = id.x % (PATCH * PATCH);
    if (patch_index >= counts.x) {
        return;
    }
    let width = COLUMNS * PATCH;
    let height = counts.x / COLUMNS * PATCH;
    let y = patch_index / COLUMNS * PATCH + pixel / PATCH;
    let x = patch_index % COLUMNS * PATCH + pixel % PATCH;
    let red = patches[3u * id.x];
    let green = patches[3u * id.x + 1u];
    let blue = patches[3u * id.x + 2u];
    for (var channel = 0u; channel < 3u; channel++) {
        let at = 3u * channel;
        let value = color[at] * red + color[at + 1u] * green + color[at + 2u] * blue + color[9u + channel];
        planes[(channel * height + y) * width + x] = 1.0 / (1.0 + exp(-value));
    }
}
