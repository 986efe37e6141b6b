//! The orientation that Exif data state.

/// How a picture has to be turned to stand upright: the values of the Exif tag 274.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Whether columns become rows, before anything else is turned round.
    transposed: bool,
    /// Whether the result is mirrored from left to right.
    mirrored: bool,
    /// Whether the result is turned upside down.
    flipped: bool,
}

impl Orientation {
    /// From Exif data, which begin with their byte order; `None` where they do not say it.
    pub(crate) fn from_exif(exif: &[u8]) -> Option<Self> {
        const TAG: u64 = 274;
        const SHORT: u64 = 3;
        let little = match exif.get(..4)? {
            [b'I', b'I', 42, 0] => true,
            [b'M', b'M', 0, 42] => false,
            _ => return None,
        };
        let number = |at: usize, length: usize| {
            let bytes = exif.get(at..at.checked_add(length)?)?;
            let join = |number, &byte| number << 8 | u64::from(byte);
            Some(if little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
        };
        let directory = number(4, 4)? as usize;
        let entries = number(directory, 2)? as usize;
        for entry in 0..entries {
            let at = directory.checked_add(2 + 12 * entry)?;
            if number(at, 2)? == TAG && number(at + 2, 2)? == SHORT {
                return Self::from_tag(number(at + 8, 2)?);
            }
        }
        None
    }

    fn from_tag(value: u64) -> Option<Self> {
        let (transposed, mirrored, flipped) = match value {
            1 => (false, false, false),
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => return None,
        };
        Some(Self { transposed, mirrored, flipped })
    }

    /// Width, height and pixels (`[height, width, 3]`) of a picture that has been turned.
    pub(crate) fn apply(
        self,
        width: usize,
        height: usize,
        rgb: Vec<u8>,
    ) -> (usize, usize, Vec<u8>) {
        let Self { transposed, mirrored, flipped } = self;
        if !transposed && !mirrored && !flipped {
            return (width, height, rgb);
        }
        let (across, down) = if transposed { (height, width) } else { (width, height) };
        let mut turned = Vec::with_capacity(rgb.len());
        for y in 0..down {
            let y = if flipped { down - 1 - y } else { y };
            for x in 0..across {
                let x = if mirrored { across - 1 - x } else { x };
                let (from_x, from_y) = if transposed { (y, x) } else { (x, y) };
                turned.extend_from_slice(&rgb[3 * (from_y * width + from_x)..][..3]);
            }
        }
        (across, down, turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The letter F of 2 × 3 pixels, turned so that the tag `value` puts it upright: the rows of
    /// its brightness, from Pillow 13 (`Image.transpose` by the inverse of `ImageOps.exif_transpose`).
    fn stored(value: u64) -> (usize, usize, Vec<u8>) {
        let (width, values): (usize, [u8; 6]) = match value {
            1 => (2, [1, 2, 3, 4, 5, 6]),
            2 => (2, [2, 1, 4, 3, 6, 5]),
            3 => (2, [6, 5, 4, 3, 2, 1]),
            4 => (2, [5, 6, 3, 4, 1, 2]),
            5 => (3, [1, 3, 5, 2, 4, 6]),
            6 => (3, [2, 4, 6, 1, 3, 5]),
            7 => (3, [6, 4, 2, 5, 3, 1]),
            _ => (3, [5, 3, 1, 6, 4, 2]),
        };
        (width, 6 / width, values.iter().flat_map(|&value| [value; 3]).collect())
    }

    #[test]
    fn should_put_all_eight_orientations_upright() {
        let (_, _, upright) = stored(1);
        for value in 1..=8 {
            let (width, height, rgb) = stored(value);
            let orientation = Orientation::from_tag(value).unwrap();
            assert_eq!(orientation.apply(width, height, rgb), (2, 3, upright.clone()), "{value}");
        }
        assert_eq!([0, 9, 65535].map(Orientation::from_tag), [None; 3]);
    }

    /// Exif data of one directory with one other tag before the orientation.
    fn exif(little: bool, orientation: u16) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
        bytes.extend(short(42));
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, value) in [(256u16, 7u16), (274, orientation)] {
            bytes.extend(short(tag));
            bytes.extend(short(3));
            bytes.extend(long(1));
            bytes.extend(short(value));
            bytes.extend(short(0));
        }
        bytes
    }

    #[test]
    fn should_read_the_tag_in_both_byte_orders_and_from_no_damaged_data() {
        for little in [true, false] {
            let whole = exif(little, 6);
            assert_eq!(Orientation::from_exif(&whole), Orientation::from_tag(6));
            for length in 0..whole.len() - 2 {
                assert_eq!(Orientation::from_exif(&whole[..length]), None, "{length}");
            }
            let mut far = whole.clone();
            far[4..8].fill(0xFF);
            assert_eq!(Orientation::from_exif(&far), None);
        }
    }
}
