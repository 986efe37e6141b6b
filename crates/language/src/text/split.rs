//! Text to words, by Qwen2's expression written out:
//!
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// The words of a text, which together are all of it.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| {
            let (word, others) = rest.split_at(first_word(rest));
            rest = others;
            word
        })
    })
}

fn is_letter(character: char) -> bool {
    character.general_category_group() == GeneralCategoryGroup::Letter
}

fn is_number(character: char) -> bool {
    character.general_category_group() == GeneralCategoryGroup::Number
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\r' | '\n')
}

/// Bytes from the start whose characters all are so.
fn run(text: &str, is: impl Fn(char) -> bool) -> usize {
    text.find(|character| !is(character)).unwrap_or(text.len())
}

/// Bytes of the first word of a text that is not empty.
fn first_word(text: &str) -> usize {
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return 0 };
    let after = first.len_utf8();
    // The alternatives in their order: the first that fits counts.
    if first == '\''
        && let Some(length) = contraction(&text[1..])
    {
        return 1 + length;
    }
    if is_letter(first) {
        return run(text, is_letter);
    }
    if !is_line_end(first) && !is_number(first) {
        let letters = run(&text[after..], is_letter);
        if letters > 0 {
            return after + letters;
        }
    }
    if is_number(first) {
        return after;
    }
    let is_sign = |character: char| {
        !character.is_whitespace() && !is_letter(character) && !is_number(character)
    };
    let start = if first == ' ' { 1 } else { 0 };
    let signs = run(&text[start..], is_sign);
    if signs > 0 {
        let end = start + signs;
        return end + run(&text[end..], is_line_end);
    }
    let space = &text[..run(text, char::is_whitespace)];
    if let Some(last) = space.rfind(is_line_end) {
        return last + 1;
    }
    // The last space belongs to what follows, unless it is the only one.
    match space.char_indices().next_back() {
        Some((last, _)) if last > 0 && space.len() < text.len() => last,
        _ => space.len(),
    }
}

/// Bytes after an apostrophe that belong to an English contraction.
fn contraction(text: &str) -> Option<usize> {
    // ſ is another s where case does not count.
    let is = |character: char, letter: char| {
        character.eq_ignore_ascii_case(&letter) || (letter == 's' && character == 'ſ')
    };
    ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find_map(|ending| {
        let mut characters = text.chars();
        let fits = ending
            .chars()
            .all(|letter| characters.next().is_some_and(|character| is(character, letter)));
        fits.then(|| text.len() - characters.as_str().len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_split_by_each_alternative() {
        let cases: [(&str, &[&str]); 8] = [
            ("a red apple", &["a", " red", " apple"]),
            ("It's WE'LL", &["It", "'s", " WE", "'LL"]),
            ("3.14 x2", &["3", ".", "1", "4", " x", "2"]),
            ("ok!!\n\nnext", &["ok", "!!\n\n", "next"]),
            ("a  \n \n  b", &["a", "  \n \n", " ", " b"]),
            ("a   ", &["a", "   "]),
            ("\tx (y) 'quoted'", &["\tx", " (", "y", ")", " '", "quoted", "'"]),
            ("日本の旗", &["日本の旗"]),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
