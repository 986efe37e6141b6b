// The choice of the next token of each picture: guidance, temperature, the largest TOP_K logits, the likeliest
// that sum to TOP_P, then the largest after its noise is added. A workgroup takes one picture; see
// `generator::choose`, which does the same in f64. Of equal logits the lower code comes first, everywhere.
//
// Then the rows of the next step are written, so that it needs nothing of the CPU.

struct Picture {
    logits: vec2<u32>,    // rows of the conditional and the unconditional logits
    slots: vec2<u32>,     // of both sequences
    positions: vec2<u32>, // of the next token
    turns: vec2<u32>,     // its rows of rotations
    top_k: u32,           // 0 keeps all
    top_p: f32,           // 1 keeps all
    temperature: f32,     // 0 takes the largest
    guided: u32,          // whether the unconditional half has a part
}

@group(0) @binding(0) var<storage, read> pictures: array<Picture>;
@group(0) @binding(1) var<storage, read> scales: array<f32>; // [pictures, choices]: of guidance
@group(0) @binding(2) var<storage, read> noise: array<f32>;  // [pictures, choices, CODES]
@group(0) @binding(3) var<storage, read_write> logits: array<f32>; // [rows, CODES]
@group(0) @binding(4) var<storage, read_write> rows: array<vec4<u32>>; // slot, position, id, row of rotations
// Choices of a picture, pictures, how many are made of each, then [pictures, choices] of them.
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>;

const NO_CODE: u32 = 0xffffffffu;
// Less than any logit that is kept.
const CUT: f32 = -3.4e38;

var<workgroup> sums: array<f32, 256>;
var<workgroup> codes: array<u32, 256>;

// The sum of one number of each thread, in every thread.
fn total(value: f32, thread: u32) -> f32 {
    sums[thread] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            sums[thread] += sums[thread + half];
        }
        workgroupBarrier();
    }
    let result = sums[0];
    workgroupBarrier();
    return result;
}

fn largest(value: f32, thread: u32) -> f32 {
    sums[thread] = value;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            sums[thread] = max(sums[thread], sums[thread + half]);
        }
        workgroupBarrier();
    }
    let result = sums[0];
    workgroupBarrier();
    return result;
}

// A whole number in the order of the numbers.
fn rank(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// What a logit counts for: itself, or its likelihood beside the largest one.
fn weight(value: f32, peak: f32, by_likelihood: bool) -> f32 {
    if (value <= CUT) {
        return 0.0;
    }
    return select(1.0, exp(value - peak), by_likelihood);
}

// Cuts all but the largest logits, as many as it takes to reach `enough`.
fn keep(first: u32, enough: f32, peak: f32, by_likelihood: bool, thread: u32) {
    // The largest rank from which on there is enough.
    var least = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let tried = least | bit;
        var sum = 0.0;
        for (var code = thread; code < CODES; code += 256u) {
            let value = logits[first + code];
            if (rank(value) >= tried) {
                sum += weight(value, peak, by_likelihood);
            }
        }
        if (total(sum, thread) >= enough) {
            least = tried;
        }
    }
    // Among those of that rank the lower codes come first: how many of them are left out.
    var end = 0u;
    for (var bit = 0x80000000u >> countLeadingZeros(CODES); bit > 0u; bit >>= 1u) {
        let tried = end | bit;
        var sum = 0.0;
        for (var code = thread; code < CODES; code += 256u) {
            let value = logits[first + code];
            let own = rank(value);
            if (own > least || (own == least && code < tried)) {
                sum += weight(value, peak, by_likelihood);
            }
        }
        if (total(sum, thread) < enough) {
            end = tried;
        }
    }
    for (var code = thread; code < CODES; code += 256u) {
        let own = rank(logits[first + code]);
        if (own < least || (own == least && code > end)) {
            logits[first + code] = CUT;
        }
    }
    storageBarrier();
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let picture = pictures[group.x];
    let choices = chosen[0];
    let choice = chosen[2u + group.x];
    // Every thread has read it before one of them counts on.
    workgroupBarrier();
    let place = group.x * choices + choice;
    let first = picture.logits.x * CODES;
    let second = picture.logits.y * CODES;
    let temperature = select(picture.temperature, 1.0, picture.temperature == 0.0);
    var strange = 0.0;
    var peak = CUT;
    for (var code = thread; code < CODES; code += 256u) {
        var value = logits[first + code];
        if (picture.guided != 0u) {
            let base = logits[second + code];
            value = base + (value - base) * scales[place];
        }
        value /= temperature;
        if ((bitcast<u32>(value) & 0x7fffffffu) > 0x7f800000u) {
            strange = 1.0;
        }
        logits[first + code] = value;
        peak = max(peak, value);
    }
    storageBarrier();
    strange = total(strange, thread);
    if (picture.temperature != 0.0) {
        if (picture.top_k != 0u && picture.top_k < CODES) {
            keep(first, f32(picture.top_k), 0.0, false, thread);
        }
        if (picture.top_p < 1.0) {
            peak = largest(peak, thread);
            var sum = 0.0;
            for (var code = thread; code < CODES; code += 256u) {
                sum += weight(logits[first + code], peak, true);
            }
            keep(first, picture.top_p * total(sum, thread), peak, true, thread);
        }
    }
    var best = -3.40282e38;
    var best_code = 0u;
    for (var code = thread; code < CODES; code += 256u) {
        let value = logits[first + code] + noise[place * CODES + code];
        if (value > best) {
            best = value;
            best_code = code;
        }
    }
    sums[thread] = best;
    codes[thread] = best_code;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (thread < half) {
            let other = sums[thread + half];
            let code = codes[thread + half];
            if (other > sums[thread] || (other == sums[thread] && code < codes[thread])) {
                sums[thread] = other;
                codes[thread] = code;
            }
        }
        workgroupBarrier();
    }
    if (thread == 0u) {
        let code = codes[0];
        chosen[2u + chosen[1] + place] = select(code, NO_CODE, strange > 0.0);
        chosen[2u + group.x] = choice + 1u;
        // In every later step a sequence has one row, whose logits have the same number.
        rows[picture.logits.x] =
            vec4(picture.slots.x, picture.positions.x + choice, code, picture.turns.x + choice);
        if (picture.guided != 0u) {
            rows[picture.logits.y] =
                vec4(picture.slots.y, picture.positions.y + choice, code, picture.turns.y + choice);
        }
    }
}
