//! Tokens of a whole data set on disk, for training with random access.
//!
//! A cache is a folder:
//!
//! | file | content |
//! | --- | --- |
//! | `cache.json` | [`CacheHeader`] with the format's name and version |
//! | `tokens-00000-of-00001.bin` | the records of one [`Shard`] |
//! | `names-00000-of-00001.txt` | their samples' names in UTF-8, one a line, each ended by `\n` |
//! | `tokenizer/` | the tokenizer that made the tokens; the caller writes it |
//!
//! A shard's records are the samples of [`Shard::range`], so the shards in order are the data set
//! in order. Shards can be written at different times and places and then be copied together.
//!
//! All numbers are little-endian. `tokens-….bin` is a preamble of 32 bytes, the records, all of
//! one size, and a footer of 32 bytes:
//!
//! | preamble | | record | | footer | |
//! | --- | --- | --- | --- | --- | --- |
//! | magic `alitok-t` | 8 | label, `u32` | 4 | magic `complete` | 8 |
//! | format version, `u32` | 4 | tokens, `u16` each, view by view | 2·views·length | number of records, `u64` | 8 |
//! | shard and number of shards, `u32` each | 8 | checksum | 4 | size of the names file, `u64` | 8 |
//! | size of a record, `u32` | 4 | | | checksum of the names file | 4 |
//! | checksum of `cache.json` | 4 | | | checksum of the footer | 4 |
//! | checksum of the preamble | 4 | | | | |
//!
//! Checksums are CRC-32C; a record's covers its number in the shard (`u64`) and then its bytes,
//! so that neither changed nor misplaced records are taken for good ones.
//!
//! While a shard is written its file has the ending `.partial`. Names reach the disk before their
//! records do, so every record whose checksum holds has its name. A killed writer can therefore
//! be resumed at any time, and the result has the bytes of an uninterrupted one.

mod reader;
mod writer;

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::TokenLayout;

pub use reader::{Record, TokenCache};
pub use writer::CacheWriter;

const FORMAT: &str = "alitok token cache";
const VERSION: u32 = 1;
const HEADER_FILE: &str = "cache.json";
const SHARD_MAGIC: [u8; 8] = *b"alitok-t";
const FOOTER_MAGIC: [u8; 8] = *b"complete";
/// Size of the preamble and of the footer, in bytes.
const FRAME: usize = 32;

/// What is wrong with a token cache, or with what should go into it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system could not read or write a file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// `cache.json` cannot be read as a header, or a new header makes no sense.
    #[error("{path} is no header of a token cache: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache was written in another version of the format.
    #[error(
        "{path} has version {got} of the token cache's format, this program reads {VERSION}; build the cache anew"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u32,
    },
    /// The folder holds a cache that differs in more than its tokenizer.
    #[error("{path} belongs to another cache: its {field} differs; choose another folder")]
    HeaderMismatch {
        /// The file.
        path: PathBuf,
        /// The field that differs.
        field: &'static str,
    },
    /// The tokens come from another tokenizer.
    #[error(
        "{path}: these tokens come from the tokenizer {found}, not from {expected}; build the cache anew with this one"
    )]
    Tokenizer {
        /// The cache's header.
        path: PathBuf,
        /// Digest of the tokenizer that is used now.
        expected: String,
        /// Digest of the tokenizer that made the cache.
        found: String,
    },
    /// Text that names no shard.
    #[error("`{0}` names no shard; write i/n with 0 ≤ i < n, like 0/4 for the first of four")]
    Shard(String),
    /// Another process writes this shard.
    #[error("{path} is being written by another process")]
    Locked {
        /// The shard's names file, which carries the lock.
        path: PathBuf,
    },
    /// The shard is finished; there is nothing to resume.
    #[error("{path} is complete")]
    Complete {
        /// The shard's file.
        path: PathBuf,
    },
    /// A shard is missing or was not finished.
    #[error("{path} is missing: shard {shard} was {}; run the build again with --shard {shard}", if *.started { "started but not finished" } else { "not built" })]
    Incomplete {
        /// The shard's file.
        path: PathBuf,
        /// The shard.
        shard: Shard,
        /// Whether a part of it is there.
        started: bool,
    },
    /// The folder has no shards, or some of divisions into different numbers.
    #[error("{dir} holds shards of {counts:?} different divisions; exactly one is needed", counts = .counts.len())]
    Division {
        /// The cache.
        dir: PathBuf,
        /// The numbers of shards that were found.
        counts: Vec<usize>,
    },
    /// A file was cut, changed, or belongs to another cache.
    #[error("{path} is damaged: {reason}; delete it and build this shard again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A sample that does not fit the header, or cannot be stored.
    #[error("sample `{name}` cannot be stored: {reason}")]
    Sample {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// There is no such record.
    #[error("record {index} does not exist: {dir} holds {len}")]
    OutOfRange {
        /// The cache.
        dir: PathBuf,
        /// The number asked for.
        index: usize,
        /// How many there are.
        len: usize,
    },
}

/// Adds the path to an error of the operating system.
fn file_error(path: &Path) -> impl FnOnce(io::Error) -> CacheError + '_ {
    |source| CacheError::File { path: path.to_owned(), source }
}

/// What all tokens of a cache have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheHeader {
    /// The order of a picture's tokens.
    pub layout: TokenLayout,
    /// Size of the codebook; at most 65 536.
    pub codes: usize,
    /// Names of the classes; a label is a position in this list.
    pub classes: Vec<String>,
    /// How many views of each picture are stored: 1, 2 with mirrored ones, 10 with ten crops.
    pub views: usize,
    /// How the views were made, in words.
    pub augmentation: String,
    /// SHA-256 of the tokenizer's encoding part, in lower-case hexadecimal digits.
    pub tokenizer: String,
}

/// `cache.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderFile {
    format: String,
    version: u32,
    layout: TokenLayout,
    codes: usize,
    views: usize,
    augmentation: String,
    tokenizer: String,
    classes: Vec<String>,
}

/// The part of `cache.json` that every version has.
#[derive(Deserialize)]
struct FormatAndVersion {
    format: String,
    version: u32,
}

impl CacheHeader {
    /// Tokens of one record.
    fn tokens(&self) -> usize {
        self.views * self.layout.len()
    }

    /// Bytes of one record.
    fn record_size(&self) -> usize {
        size_of::<u32>() + self.tokens() * size_of::<u16>() + size_of::<u32>()
    }

    fn validate(&self) -> Result<(), String> {
        let digest = self.tokenizer.as_bytes();
        if self.views == 0 || self.layout.len() == 0 {
            Err("a record needs at least one view of at least one token".to_owned())
        } else if self.codes == 0 || self.codes > 1 << 16 {
            Err(format!("{} codes; 1 to 65536 fit into 16 bits", self.codes))
        } else if self.classes.is_empty() {
            Err("there is no class".to_owned())
        } else if digest.len() != 64 || !digest.iter().all(|d| b"0123456789abcdef".contains(d)) {
            Err(format!("`{}` is no SHA-256 in 64 lower-case digits", self.tokenizer))
        } else if u32::try_from(self.record_size()).is_err() {
            Err("a record would be larger than 4 GiB".to_owned())
        } else {
            Ok(())
        }
    }

    fn to_json(&self) -> String {
        let Self { layout, codes, classes, views, augmentation, tokenizer } = self.clone();
        let format = FORMAT.to_owned();
        let file = HeaderFile {
            format,
            version: VERSION,
            layout,
            codes,
            views,
            augmentation,
            tokenizer,
            classes,
        };
        let json = serde_json::to_string_pretty(&file).expect("the header has only plain fields");
        json + "\n"
    }

    fn read(dir: &Path) -> Result<Self, CacheError> {
        let path = dir.join(HEADER_FILE);
        let json = fs::read_to_string(&path).map_err(file_error(&path))?;
        let header = |reason: String| CacheError::Header { path: path.clone(), reason };
        let FormatAndVersion { format, version } =
            serde_json::from_str(&json).map_err(|error| header(error.to_string()))?;
        if format != FORMAT {
            return Err(header(format!("its format is `{format}`")));
        }
        if version != VERSION {
            return Err(CacheError::Version { path, got: version });
        }
        let HeaderFile { layout, codes, classes, views, augmentation, tokenizer, .. } =
            serde_json::from_str(&json).map_err(|error| header(error.to_string()))?;
        let read = Self { layout, codes, classes, views, augmentation, tokenizer };
        read.validate().map_err(header)?;
        Ok(read)
    }

    /// Checks that the tokens come from this tokenizer.
    fn check_tokenizer(&self, dir: &Path, expected: &str) -> Result<(), CacheError> {
        if self.tokenizer == expected {
            return Ok(());
        }
        let path = dir.join(HEADER_FILE);
        let (expected, found) = (expected.to_owned(), self.tokenizer.clone());
        Err(CacheError::Tokenizer { path, expected, found })
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(self.to_json().as_bytes())
    }

    fn preamble(&self, shard: Shard) -> [u8; FRAME] {
        let number = |value: usize| u32::try_from(value).expect("checked when it was made");
        let fields = [
            VERSION,
            number(shard.index),
            number(shard.count),
            number(self.record_size()),
            self.checksum(),
        ];
        frame(SHARD_MAGIC, &fields.map(u32::to_le_bytes).concat())
    }
}

/// The end of a finished shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footer {
    records: u64,
    names_size: u64,
    names_checksum: u32,
}

impl Footer {
    fn to_bytes(self) -> [u8; FRAME] {
        let Self { records, names_size, names_checksum } = self;
        let mut fields = [records, names_size].map(u64::to_le_bytes).concat();
        fields.extend(names_checksum.to_le_bytes());
        frame(FOOTER_MAGIC, &fields)
    }

    fn from_bytes(bytes: &[u8; FRAME]) -> Option<Self> {
        let long = |at: usize| u64::from_le_bytes(array(&bytes[at..]));
        let names_checksum = u32::from_le_bytes(array(&bytes[24..]));
        let footer = Self { records: long(8), names_size: long(16), names_checksum };
        (footer.to_bytes() == *bytes).then_some(footer)
    }
}

/// The first bytes of a slice that has enough of them.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("the caller knows the size")
}

/// A magic, 20 bytes of fields, and their checksum.
fn frame(magic: [u8; 8], fields: &[u8]) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    bytes[..8].copy_from_slice(&magic);
    bytes[8..28].copy_from_slice(fields);
    let checksum = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The checksum of record `index` of a shard; `content` are its bytes without the checksum.
fn record_checksum(index: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), content)
}

/// One of several parts of a data set, written `index/count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The whole data set as one shard.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Shard `index`, counted from 0, of `count`.
    ///
    /// # Errors
    /// If there is no such shard, or more of them than the file names' five digits can tell.
    pub fn new(index: usize, count: usize) -> Result<Self, CacheError> {
        if index < count && count <= 99_999 {
            Ok(Self { index, count })
        } else {
            Err(CacheError::Shard(format!("{index}/{count}")))
        }
    }

    /// Position among the shards, from 0.
    pub const fn index(self) -> usize {
        self.index
    }

    /// Number of shards.
    pub const fn count(self) -> usize {
        self.count
    }

    /// Which of `samples` samples belong to this shard. The ranges of all shards follow each
    /// other and differ in length by one at most.
    pub fn range(self, samples: usize) -> Range<usize> {
        let start = |index: usize| (samples as u128 * index as u128 / self.count as u128) as usize;
        start(self.index)..start(self.index + 1)
    }

    /// `00000-of-00001`.
    fn suffix(self) -> String {
        format!("{:05}-of-{:05}", self.index, self.count)
    }

    fn tokens_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("tokens-{}.bin", self.suffix()))
    }

    fn partial_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("tokens-{}.bin.partial", self.suffix()))
    }

    fn names_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("names-{}.txt", self.suffix()))
    }

    /// The shard that a file of tokens, finished or not, belongs to.
    fn of_file(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".partial").unwrap_or(name);
        let (index, count) =
            name.strip_prefix("tokens-")?.strip_suffix(".bin")?.split_once("-of-")?;
        let shard = Self::new(index.parse().ok()?, count.parse().ok()?).ok()?;
        (name == format!("tokens-{}.bin", shard.suffix())).then_some(shard)
    }

    /// Into how many shards the files in a folder divide the data set, in ascending order.
    fn divisions(dir: &Path) -> Result<Vec<usize>, CacheError> {
        let mut counts = Vec::new();
        for entry in fs::read_dir(dir).map_err(file_error(dir))? {
            let name = entry.map_err(file_error(dir))?.file_name();
            counts.extend(name.to_str().and_then(Self::of_file).map(|shard| shard.count));
        }
        counts.sort_unstable();
        counts.dedup();
        Ok(counts)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        text.split_once('/')
            .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)))
            .and_then(|(index, count)| Self::new(index, count).ok())
            .ok_or_else(|| CacheError::Shard(text.to_owned()))
    }
}
