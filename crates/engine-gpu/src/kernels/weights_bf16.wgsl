// Eight weights of one output, stored as bf16: two in a word, the first one in its lower half.
fn weights_at(index: u32) -> Eight {
    let words = weights[index];
    let even = bitcast<vec4<f32>>(words << vec4(16u));
    let odd = bitcast<vec4<f32>>(words & vec4(0xffff0000u));
    return Eight(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}
