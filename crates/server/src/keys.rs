//! Keys that let clients in.

use std::{path::PathBuf, sync::Arc};

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::queue::ClientId;

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line says something else.
    #[error(
        "{} line {line}: {problem}; a line is `KEY [NAME] [pictures=N]`, where KEY may be \
         `sha256:` and the key's hash in hexadecimal",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// It has none.
    #[error("{}: there is no key in it, so that nobody could be let in", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Who may ask, by the SHA-256 of their keys. The keys themselves are not kept.
#[derive(Debug, Clone)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    hash: [u8; 32],
    client: Client,
}

/// Somebody who asks for pictures.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// Most pictures that wait or are being drawn for it at a time.
    pub(crate) limit: Option<usize>,
}

impl Keys {
    /// Reads a file with a key a line: `KEY [NAME] [pictures=N]`. The key may be given as `sha256:` and
    /// its hash, so that the file holds no secret. `NAME` stands in logs, `pictures` limits how many
    /// pictures may wait or be drawn for the key at a time. Empty lines and those that begin with `#`
    /// are left out.
    ///
    /// # Errors
    /// If the file cannot be read, a line says something else, or there is no key.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, KeysError> {
        let path = path.into();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| KeysError::Read { path: path.clone(), source })?;
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line, keys.len()).and_then(|key| {
                if keys.iter().any(|known| known.hash == key.hash) {
                    return Err("this key stands there twice".to_owned());
                }
                Ok(key)
            });
            let wrong = |problem| KeysError::Line { path: path.clone(), line: index + 1, problem };
            keys.push(key.map_err(wrong)?);
        }
        if keys.is_empty() {
            return Err(KeysError::Empty { path });
        }
        Ok(Self { keys })
    }

    /// Whose key it is. It takes as long whether and wherever it stands in the file.
    pub(crate) fn client(&self, key: &str) -> Option<&Client> {
        let hash = hash(key);
        let mut found = u64::MAX;
        for (index, known) in self.keys.iter().enumerate() {
            let same = known.hash.ct_eq(&hash);
            found = u64::conditional_select(&found, &(index as u64), same);
        }
        self.keys.get(usize::try_from(found).ok()?).map(|key| &key.client)
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Key {
    /// `KEY [NAME] [pictures=N]`.
    fn parse(line: &str, number: usize) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let hash = match key.strip_prefix("sha256:") {
            None => hash(key),
            Some(hexadecimal) => from_hexadecimal(hexadecimal)
                .ok_or("64 hexadecimal digits should follow `sha256:`")?,
        };
        let (mut name, mut limit) = (None, None);
        for word in words {
            match word.strip_prefix("pictures=") {
                Some(count) => {
                    let count = count.parse().ok().filter(|&count| count > 0);
                    limit = Some(count.ok_or(format!("`{word}` should be a number from 1"))?);
                }
                None if name.is_none() => name = Some(word),
                None => return Err(format!("`{word}` is too much")),
            }
        }
        let name = name.map_or_else(|| format!("key {}", number + 1), str::to_owned);
        Ok(Self { hash, client: Client { id: Arc::from(name), limit } })
    }
}

fn from_hexadecimal(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    fn read(text: &str) -> Result<Keys, KeysError> {
        let path = std::env::temp_dir().join(format!("alitok-keys-{:x}", fastrand(text)));
        std::fs::write(&path, text).unwrap();
        let keys = Keys::read(&path);
        std::fs::remove_file(&path).unwrap();
        keys
    }

    fn fastrand(text: &str) -> u64 {
        u64::from_le_bytes(hash(text)[..8].try_into().unwrap())
    }

    #[test]
    fn should_let_in_who_has_a_key_given_plainly_or_by_its_hash() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!("# ours\n\nsecret anna pictures=4\n  sha256:{abc}\n");
        let keys = read(&text).unwrap();
        let client = |key| keys.client(key).map(|client| (client.id.to_string(), client.limit));
        assert_eq!(client("secret"), Some(("anna".to_owned(), Some(4))));
        assert_eq!(client("abc"), Some(("key 2".to_owned(), None)));
        for wrong in ["", "secre", "secret ", "Secret", abc, "# ours"] {
            assert_eq!(client(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn should_name_the_line_that_is_wrong() {
        for (text, said) in [
            ("a\nsha256:12\n", "line 2: 64 hexadecimal digits"),
            ("a b c", "line 1: `c` is too much"),
            ("a pictures=0", "line 1: `pictures=0` should be a number from 1"),
            ("a x\na y", "line 2: this key stands there twice"),
            ("# nothing\n", "there is no key in it"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
