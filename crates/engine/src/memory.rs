//! Memory for what is large and read from end to end: weights and caches.

#[cfg(any(test, not(any(unix, windows))))]
mod heap;
#[cfg(any(unix, windows))]
mod mapped;

#[cfg(not(any(unix, windows)))]
pub(crate) use heap::{Arena, Piece};
#[cfg(any(unix, windows))]
pub(crate) use mapped::{Arena, Piece};

/// Where a piece may begin: on a cache line, and the next one, which is fetched with it.
const ALIGNMENT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! pieces_of {
        ($arena:ty, $lengths:expr) => {{
            let lengths = $lengths;
            let mut pieces: Vec<_> = {
                // Pieces outlive the arena.
                let mut arena = <$arena>::default();
                lengths.map(|length| arena.zeros(length).unwrap()).into()
            };
            for (number, piece) in pieces.iter_mut().enumerate() {
                assert_eq!(piece.len(), lengths[number]);
                assert!(piece.as_ptr().align_offset(ALIGNMENT) == 0);
                assert!(piece.iter().all(|&byte| byte == 0), "piece {number}");
                piece.fill(number as u8 + 1);
            }
            for (number, piece) in pieces.iter().enumerate() {
                assert!(piece.iter().all(|&byte| byte == number as u8 + 1), "piece {number}");
            }
        }};
    }

    #[test]
    #[cfg(any(unix, windows))]
    fn should_hand_out_zeros_that_lie_apart() {
        use mapped::{CHUNK, LARGE_PAGE};

        pieces_of!(
            mapped::Arena,
            [0, 1, 127, 128, 129, CHUNK - 1000, CHUNK, CHUNK + 1, 5, LARGE_PAGE]
        );
    }

    #[test]
    fn should_hand_out_zeros_where_there_are_no_mappings() {
        pieces_of!(heap::Arena, [0, 1, 127, 128, 129, 5, 1 << 21]);
        assert!(heap::Arena.zeros(usize::MAX / 2).is_err());
    }
}
