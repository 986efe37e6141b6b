// 1 / √(mean square + EPSILON) of a row of x, the same number in every thread of a workgroup of 256.

var<workgroup> squares: array<f32, 256>;

fn inverse_norm(row: u32, thread: u32) -> f32 {
    var sum = 0.0;
    for (var i = thread; i < INPUTS4; i += 256u) {
        let v = x[row * INPUTS4 + i];
        sum = fma(v.x, v.x, sum);
        sum = fma(v.y, v.y, sum);
        sum = fma(v.z, v.z, sum);
        sum = fma(v.w, v.w, sum);
    }
    squares[thread] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            squares[thread] += squares[thread + half];
        }
        workgroupBarrier();
    }
    let total = squares[0];
    // The next row's sums come to the same place.
    workgroupBarrier();
    return 1.0 / sqrt(total / f32(4u * INPUTS4) + EPSILON);
}
