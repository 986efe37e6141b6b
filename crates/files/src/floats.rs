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

/// Decodes elements one after the other; `None` for an encoding that is no float.
pub fn decode(bytes: &[u8], encoding: Encoding, order: ByteOrder) -> Option<Vec<f32>> {
    fn each<const N: usize>(
        bytes: &[u8],
        order: ByteOrder,
        value: impl Fn([u8; N]) -> f32,
    ) -> Vec<f32> {
        let (elements, _) = bytes.as_chunks::<N>();
        let ordered = |&element: &[u8; N]| {
            let mut element = element;
            if order == ByteOrder::Big {
                element.reverse();
            }
            value(element)
        };
        elements.iter().map(ordered).collect()
    }
    Some(match encoding {
        Encoding::F64 => each(bytes, order, |b| f64::from_le_bytes(b) as f32),
        Encoding::F32 => each(bytes, order, f32::from_le_bytes),
        Encoding::F16 => each(bytes, order, |b| f16::from_le_bytes(b).to_f32()),
        Encoding::Bf16 => each(bytes, order, |b| bf16::from_le_bytes(b).to_f32()),
        Encoding::Other => return None,
    })
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
