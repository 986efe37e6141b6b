// Eight weights of one output, stored as f32.
fn weights_at(index: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(weights[2u * index]), bitcast<vec4<f32>>(weights[2u * index + 1u]));
}
