//! Text to ids: byte-level BPE, as `tokenizer.json` of Qwen2 describes it.
//!
//! The crate `tokenizers` reads every kind of such files, but compiled with it, Burn is compiled a
//! second time (decision 8); Qwen's kind is one expression and one table of merges.

mod learning;
mod merges;
mod split;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use files::FileError;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use self::merges::Merges;
use crate::ControlTokens;

/// Largest `tokenizer.json`, in bytes. Qwen2's has 7 million.
const MOST_BYTES: u64 = 1 << 27;

/// The expression by which Qwen2 splits text into words.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Turns text into ids. All text has ids, since every byte has one, and tokens such as `<|im_end|>`
/// that are spelt out in it are text like any other.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    /// The id of each byte.
    bytes: [u32; 256],
    merges: Merges,
    /// Whether text is brought into composed form (NFC) first.
    composes: bool,
    /// Tokens that are no text.
    added: BTreeMap<String, u32>,
    largest: u32,
}

/// A `tokenizer.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is larger than any.
    #[error("`{}` has {bytes} bytes, and a tokenizer.json at most {MOST_BYTES}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is no tokenizer, or contradicts itself.
    #[error("`{}` is no tokenizer.json as Qwen2 has it: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Part>,
    pre_tokenizer: Option<Part>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// A normalizer, or a step on the way from text to words.
#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    normalizers: Vec<Part>,
    #[serde(default)]
    pretokenizers: Vec<Part>,
    pattern: Option<Pattern>,
    behavior: Option<String>,
    #[serde(default)]
    invert: bool,
    #[serde(default)]
    add_prefix_space: bool,
    use_regex: Option<bool>,
}

#[derive(Deserialize)]
struct Pattern {
    #[serde(rename = "Regex")]
    regex: Option<String>,
}

#[derive(Deserialize)]
struct Model {
    /// Old files leave it out.
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: bool,
}

/// Two tokens that become one, in the form of older and of newer files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Pair(left, right) => Some((left, right)),
        }
    }
}

impl TextTokenizer {
    /// Ids of the smallest vocabulary: the bytes, and the control tokens of a prompt.
    pub const SMALLEST: usize = 256 + ControlTokens::NAMES.len();

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it cannot be read, or is not of Qwen2's kind.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let failed = |source| FileError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes > MOST_BYTES {
            return Err(TextError::TooLarge { path: path.to_owned(), bytes });
        }
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(failed)?;
        Self::parse(path, &text)
    }

    /// Reads the content of a `tokenizer.json`, which errors call `path`.
    ///
    /// # Errors
    /// If it is not of Qwen2's kind.
    pub fn parse(path: &Path, text: &str) -> Result<Self, TextError> {
        let wrong = |what: String| TextError::Content { path: path.to_owned(), what };
        let file: File = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let composes = composes(file.normalizer.as_ref()).map_err(wrong)?;
        check_split(file.pre_tokenizer.as_ref()).map_err(wrong)?;
        let model = &file.model;
        let kind = model.kind.as_deref().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(wrong(format!("its model is `{kind}`, not `BPE`")));
        }
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if model.dropout.is_some_and(|dropout| dropout != 0.0)
            || filled(&model.continuing_subword_prefix)
            || filled(&model.end_of_word_suffix)
            || model.ignore_merges
        {
            let options =
                "dropout, continuing_subword_prefix, end_of_word_suffix and ignore_merges";
            return Err(wrong(format!("its model sets one of {options}")));
        }
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            let token = written(byte);
            *id = *model.vocab.get(&token.to_string()).ok_or_else(|| {
                wrong(format!("its vocabulary lacks `{token}`, which stands for the byte {byte}"))
            })?;
        }
        let merges = Merges::new(&model.vocab, model.merges.iter().map(Merge::parts))
            .map_err(|merge| wrong(format!("merge {merge} is not of tokens of its vocabulary")))?;
        let mut added = BTreeMap::new();
        for token in file.added_tokens {
            if let Some(id) = added.insert(token.content, token.id) {
                return Err(wrong(format!("two of its added tokens are one, of the id {id}")));
            }
        }
        let largest = model.vocab.values().chain(added.values()).copied().max().unwrap_or(0);
        Ok(Self { bytes, merges, composes, added, largest })
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str) -> Vec<usize> {
        let composed: String;
        let text = match self.composes {
            true => {
                composed = text.nfc().collect();
                &composed
            }
            false => text,
        };
        let mut ids = Vec::new();
        let mut word = Vec::new();
        for piece in split::words(text) {
            word.clear();
            word.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)]));
            self.merges.apply(&mut word);
            ids.extend(word.iter().map(|&id| id as usize));
        }
        ids
    }

    /// The id of a token that is no text, such as `<|im_start|>`.
    pub fn added_token(&self, content: &str) -> Option<usize> {
        self.added.get(content).map(|&id| id as usize)
    }

    /// The control tokens of a prompt, if the vocabulary has them all.
    pub fn control_tokens(&self) -> Option<ControlTokens> {
        let [padding, start, end, picture_start, picture_end] =
            ControlTokens::NAMES.map(|name| self.added_token(name));
        Some(ControlTokens {
            message_start: start?,
            message_end: end?,
            picture_start: picture_start?,
            picture_end: picture_end?,
            padding: padding?,
        })
    }

    /// The tokens that are no text, and their ids.
    pub fn added_tokens(&self) -> impl Iterator<Item = (&str, usize)> {
        self.added.iter().map(|(content, &id)| (content.as_str(), id as usize))
    }

    /// The largest id of all.
    pub fn largest_id(&self) -> usize {
        self.largest as usize
    }
}

/// Whether the normalizer composes text; it may do nothing else.
fn composes(normalizer: Option<&Part>) -> Result<bool, String> {
    let Some(part) = normalizer else { return Ok(false) };
    match (part.kind.as_str(), &part.normalizers[..]) {
        ("NFC", _) => Ok(true),
        ("Sequence", []) => Ok(false),
        ("Sequence", [one]) => composes(Some(one)),
        (kind, _) => Err(format!("its normalizer is `{kind}`, not `NFC`")),
    }
}

/// Checks that text is split into words by Qwen2's expression, and these into bytes.
fn check_split(part: Option<&Part>) -> Result<(), String> {
    let part = part.ok_or("it has no pre_tokenizer")?;
    let [split, bytes] = &part.pretokenizers[..] else {
        return Err("its pre_tokenizer is no sequence of a Split and a ByteLevel".to_owned());
    };
    let pattern = split.pattern.as_ref().and_then(|pattern| pattern.regex.as_deref());
    let isolated = split.behavior.as_deref() == Some("Isolated") && !split.invert;
    if split.kind != "Split" || !isolated || pattern != Some(QWEN2) {
        return Err("its pre_tokenizer does not split text by Qwen2's expression".to_owned());
    }
    if bytes.kind != "ByteLevel" || bytes.add_prefix_space || bytes.use_regex != Some(false) {
        return Err("its pre_tokenizer does not end with a plain ByteLevel".to_owned());
    }
    Ok(())
}

/// The character that a vocabulary writes for a byte (GPT-2's `bytes_to_unicode`): itself where it can be
/// seen, else one of those from 256 on.
fn written(byte: u8) -> char {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if seen(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !seen(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_write_bytes_as_gpt_2_does() {
        assert_eq!([b'a', b' ', b'\n', 0, 0x7f, 0xad].map(written), ['a', 'Ġ', 'Ċ', 'Ā', 'ġ', 'Ń']);
        let all: std::collections::BTreeSet<char> = (0..=u8::MAX).map(written).collect();
        assert_eq!(all.len(), 256);
    }
}
