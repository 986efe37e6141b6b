//! Learning a vocabulary from texts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde_json::json;
use unicode_normalization::UnicodeNormalization;

use super::{QWEN2, TextTokenizer, split, written};
use crate::ControlTokens;

/// Pairs that occur less often are not merged: they would only be learned by heart.
const LEAST: u64 = 2;

type Pair = (u32, u32);

/// The words of all texts, and where each pair of neighbours occurs in them.
#[derive(Default)]
struct Words {
    /// Each word's ids, and how often it occurs.
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    places: HashMap<Pair, BTreeSet<usize>>,
}

impl Words {
    fn new<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        let mut counts = BTreeMap::<Vec<u32>, u64>::new();
        for text in texts {
            let text: String = text.as_ref().nfc().collect();
            for word in split::words(&text) {
                *counts.entry(word.bytes().map(u32::from).collect()).or_default() += 1;
            }
        }
        let words = counts.into_iter().collect();
        let mut all = Self { words, ..Self::default() };
        (0..all.words.len()).for_each(|word| all.count(word, true));
        all
    }

    /// Counts the pairs of a word, or takes them back.
    fn count(&mut self, number: usize, adds: bool) {
        let (ids, times) = &self.words[number];
        for pair in ids.windows(2) {
            let pair = (pair[0], pair[1]);
            let count = self.counts.entry(pair).or_default();
            if adds {
                *count += times;
                self.places.entry(pair).or_default().insert(number);
            } else {
                *count -= times;
            }
        }
    }

    /// The most frequent pair, of equal ones that of the smallest ids.
    fn best(&self) -> Option<Pair> {
        let frequent = self.counts.iter().filter(|&(_, &count)| count >= LEAST);
        frequent.max_by_key(|&(&pair, &count)| (count, Reverse(pair))).map(|(&pair, _)| pair)
    }

    fn merge(&mut self, pair: Pair, id: u32) {
        for number in self.places.remove(&pair).unwrap_or_default() {
            self.count(number, false);
            let ids = &mut self.words[number].0;
            let mut at = 0;
            while at + 1 < ids.len() {
                if (ids[at], ids[at + 1]) == pair {
                    ids[at] = id;
                    ids.remove(at + 1);
                }
                at += 1;
            }
            self.count(number, true);
        }
        self.counts.remove(&pair);
    }
}

impl TextTokenizer {
    /// Learns a byte-level vocabulary from texts by byte-pair encoding: of all neighbours the most frequent
    /// pair becomes one token, again and again, until there are `size` ids, the control tokens of a
    /// prompt included, or no pair occurs twice. Returns the content of a `tokenizer.json` of Qwen2's
    /// kind; equal texts make equal bytes.
    ///
    /// There are never fewer ids than the [`SMALLEST`](Self::SMALLEST) vocabulary has.
    pub fn learn<S: AsRef<str>>(texts: impl IntoIterator<Item = S>, size: usize) -> String {
        let mut words = Words::new(texts);
        let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| written(byte).to_string()).collect();
        let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let mut merges = Vec::new();
        while tokens.len() + ControlTokens::NAMES.len() < size {
            let Some(pair) = words.best() else { break };
            let [left, right] = [pair.0, pair.1].map(|id| tokens[id as usize].clone());
            let token = format!("{left}{right}");
            // Two merges may give one token.
            let id = *ids.entry(token.clone()).or_insert(tokens.len() as u32);
            if id as usize == tokens.len() {
                tokens.push(token);
            }
            merges.push(json!([left, right]));
            words.merge(pair, id);
        }
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            tokens.iter().zip(0u32..).map(|(token, id)| (token.clone(), id.into())).collect();
        let added = ControlTokens::NAMES.iter().zip(tokens.len()..).map(|(content, id)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        });
        let file = json!({
            "version": "1.0",
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": { "type": "NFC" },
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split", "pattern": { "Regex": QWEN2 },
                        "behavior": "Isolated", "invert": false,
                    },
                    {
                        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                        "use_regex": false,
                    },
                ],
            },
            "decoder": {
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                "use_regex": false,
            },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        });
        file.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tokenizer(text: &str) -> TextTokenizer {
        TextTokenizer::parse(Path::new("learned"), text).unwrap()
    }

    #[test]
    fn should_merge_the_most_frequent_neighbours_first() {
        let texts = ["low low low low low", "lower lower", "newest newest newest", "étage étage"];
        let learned = TextTokenizer::learn(texts, TextTokenizer::SMALLEST + 3);
        let file: serde_json::Value = serde_json::from_str(&learned).unwrap();
        // `lo` and `ow` occur seven times; "l" is the smaller id.
        let merges = &file["model"]["merges"];
        assert_eq!(merges[0], json!(["l", "o"]));
        assert_eq!(merges[1], json!(["lo", "w"]));
        assert_eq!(merges.as_array().unwrap().len(), 3);
        let tokenizer = tokenizer(&learned);
        assert_eq!(tokenizer.largest_id() + 1, TextTokenizer::SMALLEST + 3);
        assert_eq!(tokenizer.encode("low").len(), 1);
        assert_eq!(tokenizer.encode("owl").len(), 3);
        // Any text has ids, and control tokens are no text.
        assert_eq!(tokenizer.encode("漢").len(), 3);
        assert!(tokenizer.encode("<|im_end|>").len() > 1);
        let control = tokenizer.control_tokens().unwrap();
        assert_eq!(control.padding, TextTokenizer::SMALLEST + 3 - 5);
    }

    #[test]
    fn should_learn_the_same_of_equal_texts_and_stop_where_nothing_repeats() {
        let texts = ["a red apple", "a red car", "a blue car", "the car"];
        let learned = TextTokenizer::learn(texts, 4096);
        let mut turned = texts;
        turned.reverse();
        assert_eq!(learned, TextTokenizer::learn(turned, 4096));
        let known = tokenizer(&learned);
        assert!(known.largest_id() < 300, "{}", known.largest_id());
        assert_eq!(known.encode("a red car").len(), 3);
        let bytes = tokenizer(&TextTokenizer::learn([""; 0], 0));
        assert_eq!(bytes.largest_id() + 1, TextTokenizer::SMALLEST);
        assert_eq!(bytes.encode("car").len(), 3);
    }
}
