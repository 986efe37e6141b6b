// Eight weights of one output, stored as 8-bit integers: four in a word, the first one in its lowest
// byte. What they are multiplied with stands in `scales`.
fn weights_at(index: u32) -> Eight {
    let both = weights[index / 2u];
    let words = bitcast<vec2<i32>>(select(both.xy, both.zw, index % 2u == 1u));
    // Each byte is moved to the top, and back with its sign.
    let left = vec4(24u, 16u, 8u, 0u);
    return Eight(
        vec4<f32>((vec4(words.x) << left) >> vec4(24u)),
        vec4<f32>((vec4(words.y) << left) >> vec4(24u)),
    );
}
