//! How classes are written in sources of pictures, and the numbers that they get.

use std::collections::BTreeSet;

use tokens::imagenet;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Most classes that may be given by number.
const MAX_CLASSES: usize = 1 << 20;

/// A class as a source gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Class {
    Number(usize),
    Name(String),
}

/// Why there is no class where one should be.
pub(crate) const NO_CLASS: &str = "no class";
/// Numbers below 0 stand for "not known", for example in the test side of public data sets.
pub(crate) const NEGATIVE: &str = "its class is a number below 0, which stands for none";
const FRACTION: &str = "its class is a fraction; give whole numbers or names";

/// A name in Unicode's composed form (NFC): the form in which names are compared, because file
/// systems and editors write the same letters in different ways.
pub(crate) fn normalized(name: &str) -> String {
    if is_nfc(name) { name.to_owned() } else { name.nfc().collect() }
}

impl Class {
    /// A class that a source calls by a name; blanks around it do not count.
    pub(crate) fn name(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "" => Err(NO_CLASS),
            name => Ok(Self::Name(normalized(name))),
        }
    }

    /// A class that a source gives as a number.
    pub(crate) fn number(number: i64) -> Result<Self, &'static str> {
        usize::try_from(number).map(Self::Number).map_err(|_| NEGATIVE)
    }

    /// A class in a text that does not say whether it is a number or a name.
    pub(crate) fn word(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        // Numbers only as people write them: `inf`, `1e5` or `nan` are names.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.chars().all(|sign| sign.is_ascii_digit() || sign == '.')
            && digits.matches('.').count() < 2;
        if !is_number {
            return Self::name(text);
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.bytes().any(|digit| digit != b'0') {
            return Err(FRACTION);
        }
        // Too large to be parsed is out of range in any case.
        Self::number(whole.parse().unwrap_or(i64::MAX))
    }

    /// A class in JSON.
    pub(crate) fn json(value: &serde_json::Value) -> Result<Self, &'static str> {
        match value {
            serde_json::Value::Null => Err(NO_CLASS),
            serde_json::Value::String(name) => Self::name(name),
            serde_json::Value::Bool(is_so) => Self::name(if *is_so { "true" } else { "false" }),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Self::number(number),
                None => match number.as_f64() {
                    Some(number) if number.fract() == 0.0 => Self::number(number as i64),
                    _ => Err(FRACTION),
                },
            },
            _ => Err("its class is a list or an object in JSON; give a number or a name"),
        }
    }
}

/// The names of the classes in the order of their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Numbering {
    /// As they are written in the source, sorted; nothing where they are numbers.
    written: Vec<String>,
    /// As they are shown.
    pub(crate) classes: Vec<String>,
}

impl Numbering {
    /// Numbers the classes of a source: names in their order as text; numbers stay what they are,
    /// and the classes are called `0`, `1` and so on. Names that are all WordNet identifiers of
    /// ImageNet's classes (`n01440764`) are shown by their titles (`tench`).
    ///
    /// # Errors
    /// If some are numbers and some are names, or a number is out of range.
    pub(crate) fn new<'a>(found: impl Iterator<Item = &'a Class>) -> Result<Self, String> {
        let mut names = BTreeSet::new();
        let mut count = 0;
        for class in found {
            match class {
                Class::Name(name) if !names.contains(name) => {
                    names.insert(name.clone());
                }
                Class::Name(_) => {}
                Class::Number(number) if *number < MAX_CLASSES => count = count.max(number + 1),
                Class::Number(number) => {
                    return Err(format!("class {number} is out of range: at most {MAX_CLASSES}"));
                }
            }
        }
        if count > 0 && !names.is_empty() {
            return Err("some classes are numbers and some are names; use one kind".to_owned());
        }
        let written: Vec<String> = names.into_iter().collect();
        let titles: Option<Vec<String>> = written.iter().map(|name| title(name)).collect();
        let classes = match titles {
            _ if count > 0 => (0..count).map(|number| number.to_string()).collect(),
            Some(titles) => titles,
            None => written.clone(),
        };
        Ok(Self { written, classes })
    }

    /// The number of a class that the numbering was made from.
    pub(crate) fn label(&self, class: &Class) -> usize {
        match class {
            Class::Number(number) => *number,
            Class::Name(name) => self
                .written
                .binary_search(name)
                .expect("the classes were gathered from these samples"),
        }
    }
}

/// The title of a WordNet identifier of one of ImageNet's classes.
fn title(identifier: &str) -> Option<String> {
    // Most names are none; the look-up goes through a thousand.
    let digits = identifier.strip_prefix('n')?;
    let is_identifier = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_identifier { imagenet::title(identifier).map(str::to_owned) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_tell_numbers_from_names() {
        for (text, expected) in [
            ("3", Ok(Class::Number(3))),
            (" 007\n", Ok(Class::Number(7))),
            ("2.0", Ok(Class::Number(2))),
            ("-1", Err(NEGATIVE)),
            ("0.5", Err(FRACTION)),
            ("", Err(NO_CLASS)),
            ("  ", Err(NO_CLASS)),
            ("red fox ", Ok(Class::Name("red fox".into()))),
            ("nan", Ok(Class::Name("nan".into()))),
            ("1.2.3", Ok(Class::Name("1.2.3".into()))),
            ("3d", Ok(Class::Name("3d".into()))),
            ("-", Ok(Class::Name("-".into()))),
        ] {
            assert_eq!(Class::word(text), expected, "{text:?}");
        }
        assert_eq!(Class::name("3"), Ok(Class::Name("3".into())));
        assert_eq!(Class::word("cafe\u{301}"), Class::word("caf\u{e9}"));
    }

    #[test]
    fn should_number_names_as_text_and_keep_numbers() {
        let classes = |words: &[&str]| {
            let found: Vec<Class> = words.iter().map(|word| Class::word(word).unwrap()).collect();
            Numbering::new(found.iter()).map(|numbering| numbering.classes)
        };
        assert_eq!(classes(&["dog", "Dog", "cat"]).unwrap(), ["Dog", "cat", "dog"]);
        assert_eq!(classes(&["2", "0"]).unwrap(), ["0", "1", "2"]);
        assert_eq!(classes(&["n02099601", "n01440764"]).unwrap(), ["tench", "golden retriever"]);
        assert_eq!(classes(&["n02099601", "n00000001"]).unwrap(), ["n00000001", "n02099601"]);
        assert!(classes(&["2", "dog"]).unwrap_err().contains("one kind"));
        assert!(classes(&["4000000000"]).unwrap_err().contains("class 4000000000 is out of range"));
    }
}
