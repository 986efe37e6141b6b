//! bfloat16: the upper half of an f32.
//!
//! The `half` crate branches on NaN; these functions select instead, so that loops vectorize.

/// The bits of the nearest bfloat16 in the lower half of the result; ties go to the even one, and
/// NaN stays NaN.
#[inline(always)]
pub fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding a NaN could carry its payload over into infinity.
    let quiet = bits >> 16 | 0x40;
    if x.is_nan() { quiet } else { rounded }
}

/// The nearest bfloat16, as [`bf16_bits`].
#[inline(always)]
pub fn to_bf16(x: f32) -> u16 {
    bf16_bits(x) as u16
}

/// The value of a bfloat16, which is exact.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of the nearest bfloat16.
#[inline(always)]
pub fn round_to_bf16(x: f32) -> f32 {
    f32::from_bits(bf16_bits(x) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_round_as_the_half_crate_does() {
        // Every upper half, with lower halves around the ties.
        for upper in 0..=u16::MAX {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(u32::from(upper) << 16 | lower);
                let expected = half::bf16::from_f32(x);
                assert_eq!(to_bf16(x), expected.to_bits(), "{x:?} {:08x}", x.to_bits());
                let rounded = round_to_bf16(x);
                assert_eq!(rounded.to_bits(), expected.to_f32().to_bits());
                assert_eq!(rounded.is_nan(), x.is_nan());
            }
            let (value, expected) = (from_bf16(upper), half::bf16::from_bits(upper).to_f32());
            assert!(value == expected || value.is_nan() && expected.is_nan(), "{upper:04x}");
        }
    }
}
