//! Bytes to f32 values and back.

use half::{bf16, f16};

/// How numbers are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Anything that is no floating-point number of these.
    Other,
}

/// Order of the bytes of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// The least significant byte first.
    Little,
    /// The most significant byte first.
    Big,
}

impl Encoding {
    /// Bytes of one element; 0 where it is not known.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other => 0,
        }
    }
}

/// Decodes elements one after the other; `None` for an encoding that is no float.
pub fn decode(bytes: &[u8], encoding: Encoding, order: ByteOrder) -> Option<Vec<f32>> {
    let count = bytes.len().checked_div(encoding.bytes())?;
    let mut values = vec![0.0; count];
    decode_into(bytes, encoding, order, &mut values);
    Some(values)
}

/// Decodes as many elements as `values` has room for and `bytes` holds. Leaves `values` as they are
/// if the encoding is no float.
pub fn decode_into(bytes: &[u8], encoding: Encoding, order: ByteOrder, values: &mut [f32]) {
    #[inline(always)]
    fn each<const N: usize>(
        bytes: &[u8],
        order: ByteOrder,
        values: &mut [f32],
        decode: impl Fn([u8; N]) -> f32,
    ) {
        let (elements, _) = bytes.as_chunks::<N>();
        for (value, element) in values.iter_mut().zip(elements) {
            let mut element = *element;
            if order == ByteOrder::Big {
                element.reverse();
            }
            *value = decode(element);
        }
    }
    match encoding {
        Encoding::F64 => each(bytes, order, values, |b| f64::from_le_bytes(b) as f32),
        Encoding::F32 => each(bytes, order, values, f32::from_le_bytes),
        Encoding::F16 => each(bytes, order, values, |b| f16::from_le_bytes(b).to_f32()),
        // A bf16 is the upper half of an f32. Unlike `half`, this keeps the payload of a NaN.
        Encoding::Bf16 => {
            each(bytes, order, values, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
        }
        Encoding::Other => {}
    }
}

/// Encodes values as little-endian bf16, rounded to the nearest, ties to even.
pub fn encode_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
}

/// Encodes values as little-endian f32.
pub fn encode_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_round_to_the_nearest_and_ties_to_even() {
        // bf16 keeps 8 bits of precision: around 1 the step is 2^-7.
        let step = 2f32.powi(-7);
        let values = [1.0 + 0.49 * step, 1.0 + 0.5 * step, 1.0 + 1.5 * step, -1.0 - 0.51 * step];
        let rounded = decode(&encode_bf16(&values), Encoding::Bf16, ByteOrder::Little).unwrap();
        assert_eq!(rounded, [1.0, 1.0, 1.0 + 2.0 * step, -1.0 - step]);
    }

    #[test]
    fn should_decode_both_byte_orders() {
        for value in [1.5f32, -0.375, 2f32.powi(-140)] {
            let big = decode(&value.to_be_bytes(), Encoding::F32, ByteOrder::Big).unwrap();
            let little = decode(&value.to_le_bytes(), Encoding::F32, ByteOrder::Little).unwrap();
            assert_eq!((big[0], little[0]), (value, value));
        }
    }
}
