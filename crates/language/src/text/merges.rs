//! Byte-pair encoding (Sennrich et al. 2016): of all neighbours the pair that was learned first becomes
//! one token, until there is none left that was learned.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

/// Pairs of ids, with their rank (the lowest is merged first) and the id that they become.
#[derive(Debug, Clone)]
pub(super) struct Merges(HashMap<(u32, u32), (u32, u32)>);

/// Where there is no neighbour.
const NONE: u32 = u32::MAX;

impl Merges {
    /// The merges of a vocabulary, in the order in which they were learned.
    ///
    /// # Errors
    /// The number of a merge that is not of known tokens.
    pub(super) fn new<'a>(
        vocabulary: &HashMap<String, u32>,
        merges: impl Iterator<Item = Option<(&'a str, &'a str)>>,
    ) -> Result<Self, usize> {
        let merge = |(rank, merge): (usize, Option<(&str, &str)>)| {
            let (left, right) = merge?;
            let id = |token: &str| vocabulary.get(token).copied();
            let pair = (id(left)?, id(right)?);
            Some((pair, (u32::try_from(rank).ok()?, id(&format!("{left}{right}"))?)))
        };
        let merges = merges.enumerate().map(|(rank, one)| merge((rank, one)).ok_or(rank));
        Ok(Self(merges.collect::<Result<_, _>>()?))
    }

    /// Merges the ids of one word, in time n log n of its length.
    pub(super) fn apply(&self, word: &mut Vec<u32>) {
        let length = word.len();
        if length < 2 || u32::try_from(length).is_err() {
            return;
        }
        // Tokens are linked to their neighbours; one that was merged into that before it is `NONE`.
        let mut next: Vec<u32> = (1..=length as u32).collect();
        next[length - 1] = NONE;
        let mut before: Vec<u32> = (0..length as u32).map(|place| place.wrapping_sub(1)).collect();
        let candidate = |word: &[u32], left: u32, right: u32| {
            let pair = (word[left as usize], word[right as usize]);
            self.0.get(&pair).map(|&(rank, id)| Reverse((rank, left, pair, id)))
        };
        let mut queue: BinaryHeap<_> =
            (1..length as u32).filter_map(|right| candidate(word, right - 1, right)).collect();
        while let Some(Reverse((_, left, pair, id))) = queue.pop() {
            let right = next[left as usize];
            // Either token may have become another one meanwhile.
            if right == NONE || (word[left as usize], word[right as usize]) != pair {
                continue;
            }
            let after = next[right as usize];
            word[left as usize] = id;
            word[right as usize] = NONE;
            next[left as usize] = after;
            next[right as usize] = NONE;
            if after != NONE {
                before[after as usize] = left;
                queue.extend(candidate(word, left, after));
            }
            let other = before[left as usize];
            if other != NONE {
                queue.extend(candidate(word, other, left));
            }
        }
        word.retain(|&id| id != NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merges(tokens: &[&str], pairs: &[(&str, &str)]) -> Merges {
        let ids = tokens.iter().zip(0..).map(|(&token, id)| (token.to_owned(), id));
        Merges::new(&ids.collect(), pairs.iter().map(|&pair| Some(pair))).unwrap()
    }

    #[test]
    fn should_merge_what_was_learned_first_and_the_leftmost_of_equals() {
        let merges = merges(&["a", "b", "ab", "aa", "aab"], &[("a", "b"), ("a", "a"), ("a", "ab")]);
        let apply = |ids: &[u32]| {
            let mut word = ids.to_vec();
            merges.apply(&mut word);
            word
        };
        assert_eq!(apply(&[0, 0, 1]), [4]);
        assert_eq!(apply(&[0, 0, 0]), [3, 0]);
        assert_eq!(apply(&[1, 1]), [1, 1]);
        assert_eq!(apply(&[]), [0u32; 0]);
    }

    #[test]
    fn should_merge_a_long_word_quickly() {
        let merges = merges(&["a", "aa", "aaaa"], &[("a", "a"), ("aa", "aa")]);
        let mut word = vec![0; 400_000];
        merges.apply(&mut word);
        assert_eq!(word, vec![2; 100_000]);
    }

    #[test]
    fn should_name_a_merge_of_unknown_tokens() {
        let tokens = HashMap::from([("a".to_owned(), 0), ("aa".to_owned(), 1)]);
        let pairs = [Some(("a", "a")), Some(("a", "aa"))];
        assert_eq!(Merges::new(&tokens, pairs.into_iter()).unwrap_err(), 1);
    }
}
