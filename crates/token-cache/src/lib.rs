//! Tokens of a whole data set on disk, for training with random access.
//!
//! A cache is a folder:
//!
//! | file | content |
//! | --- | --- |
//! | `tokens-00000-of-00001.bin` | one [`Shard`]: a header and the records of its pictures |
//! | `names-00000-of-00001.txt` | the pictures' names in UTF-8, one a line, each ended by `\n` |
//! | `captions-00000-of-00001.bin` | the pictures' captions, any number of each, if the data set has some |
//! | `tokenizer/` | the tokenizer that made the tokens; the caller writes it |
//!
//! A shard's pictures are those of [`Shard::range`], so the shards in order are the data set in
//! order. Every shard carries the whole header. Shards can be written at different times and
//! places; copied into one folder they are one cache, if all are there and of one data set.
//!
//! `docs/token-cache.md` defines the bytes and shows how NumPy reads them.
//!
//! While a shard is written its file has the ending `.partial`. Names and captions reach the disk
//! before their records do, so every record whose checksum holds has them. A killed writer can
//! therefore be resumed at any time, and the result has the bytes of an uninterrupted one.
//!
//! A picture that could not be read keeps its records, so that the others keep their places. They
//! are marked, and hold the reason instead of tokens.
//!
//! ```
//! use token_cache::{CacheHeader, CacheWriter, Shard, TokenCache, caption_checksum, order_checksum};
//! use tokens::TokenLayout;
//!
//! let picture = |index: usize| (0, format!("{index}.png"));
//! let captions = |index: usize| vec![format!("picture number {index}")];
//! let header = CacheHeader {
//!     layout: TokenLayout::new(0, 2, 2),
//!     codes: 4096,
//!     classes: vec!["tree".to_owned()],
//!     views: 1,
//!     augmentation: "centre crop".to_owned(),
//!     tokenizer: "0".repeat(64),
//!     pictures: 3,
//!     order: order_checksum((0..3).map(picture)),
//!     captions: Some(caption_checksum((0..3).map(captions))),
//! };
//! let folder = tempfile::tempdir()?;
//! let path = folder.path();
//! let mut writer =
//!     CacheWriter::create_or_resume_captioned(path, header, Shard::WHOLE, picture, captions)?;
//! for index in writer.len()..3 {
//!     let (label, name) = picture(index);
//!     writer.append_captioned(label, &name, &captions(index), &[7, 1, 4, 2])?;
//! }
//! writer.finish()?;
//!
//! let cache = TokenCache::open(path)?;
//! assert_eq!(cache.record(2, 0)?.tokens().collect::<Vec<_>>(), [7, 1, 4, 2]);
//! assert_eq!(cache.captions(2)?, ["picture number 2"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod captions;
pub mod exchange;
mod reader;
mod writer;

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use tokens::{CodebookIndex, TokenLayout};

pub use captions::caption_checksum;
pub use reader::{Record, TokenCache};
pub use writer::CacheWriter;

const FORMAT: &str = "alitok token cache";
/// The version of shards without captions.
const VERSION: u32 = 3;
/// The version of shards with captions, and the newest.
const VERSION_WITH_CAPTIONS: u32 = 4;
/// Of this version on, shards can be read: version 2 has no pictures that were left out.
const OLDEST: u32 = 2;
const SHARD_MAGIC: [u8; 8] = *b"alitok-t";
const CAPTIONS_MAGIC: [u8; 8] = *b"captions";
const FOOTER_MAGIC: [u8; 8] = *b"complete";
/// Size of the preamble, of the summary of captions and of the footer, in bytes.
const FRAME: usize = 32;
/// What is added to the view of a record whose picture was left out.
const LEFT_OUT: u16 = 1 << 15;
/// Most views of a picture.
const MAX_VIEWS: usize = LEFT_OUT as usize;
/// Bytes of a record before its tokens: picture, label, view.
const FIELDS: usize = size_of::<u32>() + size_of::<u32>() + size_of::<u16>();
/// Most bytes of a header that are read: a million classes with long names.
const MAX_HEADER: u32 = 1 << 28;

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
    /// A shard's beginning cannot be read as a header, or a new header makes no sense.
    #[error("{path} has no header of a token cache: {reason}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache was written in another version of the format.
    #[error(
        "{path} has version {got} of the token cache's format, this program reads {OLDEST} to {VERSION_WITH_CAPTIONS}; build the cache anew"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u32,
    },
    /// A shard belongs to a cache that differs in more than its tokenizer.
    #[error(
        "{path} belongs to another cache: its {field} differs; move it away, or choose another folder"
    )]
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
        /// The cache, or the shard.
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
    #[error("{dir} {}", divisions(.counts))]
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
    /// A shard is finished before it has all its pictures.
    #[error("{path} has {got} of its {expected} pictures; write the others first")]
    Short {
        /// The shard's file.
        path: PathBuf,
        /// How many it has.
        got: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A sample that does not fit the header, or cannot be stored.
    #[error("sample `{name}` cannot be stored: {reason}")]
    Sample {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The picture has no tokens, because it could not be read when the cache was built.
    #[error("{dir} has no tokens of picture {picture}, which was left out: {reason}")]
    LeftOut {
        /// The cache.
        dir: PathBuf,
        /// Its number in the data set.
        picture: usize,
        /// Why.
        reason: String,
    },
    /// There is no such record.
    #[error(
        "view {view} of picture {picture} does not exist: {dir} holds {views} views of {pictures} pictures"
    )]
    OutOfRange {
        /// The cache.
        dir: PathBuf,
        /// The picture asked for.
        picture: usize,
        /// The view asked for.
        view: usize,
        /// How many pictures there are.
        pictures: usize,
        /// How many views each has.
        views: usize,
    },
}

/// What is wrong with shards of these divisions in one folder.
fn divisions(counts: &[usize]) -> String {
    if counts.is_empty() {
        return "holds no shard of a token cache".to_owned();
    }
    let counts: Vec<_> = counts.iter().map(usize::to_string).collect();
    let counts = counts.join(" and of ");
    format!("mixes shards of divisions into {counts}, which overlap; keep those of one division")
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
    /// Number of pictures in the data set, over all shards; fewer than 2³².
    pub pictures: usize,
    /// [`order_checksum`] of the data set, which ties shards to one order of one data set.
    pub order: u32,
    /// [`caption_checksum`] of the data set, which ties shards to one set of captions; `None` for a
    /// cache without captions.
    pub captions: Option<u32>,
}

/// CRC-32C over the label (`u32`, little-endian), the name and a `\n` of each picture in order.
pub fn order_checksum<N: AsRef<str>>(pictures: impl IntoIterator<Item = (usize, N)>) -> u32 {
    pictures.into_iter().fold(0, |checksum, (label, name)| {
        let checksum = crc32c::crc32c_append(checksum, &(label as u32).to_le_bytes());
        let checksum = crc32c::crc32c_append(checksum, name.as_ref().as_bytes());
        crc32c::crc32c_append(checksum, b"\n")
    })
}

/// The header as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderFile {
    format: String,
    layout: TokenLayout,
    codes: usize,
    views: usize,
    augmentation: String,
    tokenizer: String,
    pictures: usize,
    order: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    captions: Option<u32>,
    classes: Vec<String>,
}

impl CacheHeader {
    /// Bytes of one record: one view of one picture.
    ///
    /// ```
    /// # use tokens::TokenLayout;
    /// # use token_cache::CacheHeader;
    /// # let header = CacheHeader {
    /// #     layout: TokenLayout::new(16, 16, 16), codes: 4096, classes: vec![], views: 10,
    /// #     augmentation: String::new(), tokenizer: String::new(), pictures: 0, order: 0,
    /// #     captions: None,
    /// # };
    /// // ImageNet in ten crops of 16 prefix and 256 grid tokens.
    /// assert!(1_281_167 * 10 * header.record_size() < 7_500_000_000);
    /// ```
    pub fn record_size(&self) -> usize {
        FIELDS + self.layout.len() * size_of::<CodebookIndex>() + size_of::<u32>()
    }

    fn validate(&self) -> Result<(), String> {
        let digest = self.tokenizer.as_bytes();
        if self.views == 0 || self.layout.len() == 0 {
            Err("a picture needs at least one view of at least one token".to_owned())
        } else if self.views > MAX_VIEWS || self.layout.len() > 1 << 24 {
            Err("more than 32768 views or 2²⁴ tokens a view".to_owned())
        } else if self.codes == 0 || self.codes > 1 << 16 {
            Err(format!("{} codes; 1 to 65536 fit into 16 bits", self.codes))
        } else if self.classes.is_empty() {
            Err("there is no class".to_owned())
        } else if u32::try_from(self.classes.len().max(self.pictures)).is_err() {
            Err("2³² or more pictures or classes".to_owned())
        } else if digest.len() != 64 || !digest.iter().all(|d| b"0123456789abcdef".contains(d)) {
            Err(format!("`{}` is no SHA-256 in 64 lower-case digits", self.tokenizer))
        } else {
            Ok(())
        }
    }

    fn to_json(&self) -> Vec<u8> {
        let Self {
            layout,
            codes,
            classes,
            views,
            augmentation,
            tokenizer,
            pictures,
            order,
            captions,
        } = self.clone();
        let format = FORMAT.to_owned();
        let file = HeaderFile {
            format,
            layout,
            codes,
            views,
            augmentation,
            tokenizer,
            pictures,
            order,
            captions,
            classes,
        };
        let json = serde_json::to_string_pretty(&file).expect("the header has only plain fields");
        (json + "\n").into_bytes()
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        let HeaderFile {
            format,
            layout,
            codes,
            classes,
            views,
            augmentation,
            tokenizer,
            pictures,
            order,
            captions,
        } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!("its format is `{format}`"));
        }
        let read = Self {
            layout,
            codes,
            classes,
            views,
            augmentation,
            tokenizer,
            pictures,
            order,
            captions,
        };
        read.validate().map(|()| read)
    }

    /// Checks that the tokens come from this tokenizer.
    fn check_tokenizer(&self, path: &Path, expected: &str) -> Result<(), CacheError> {
        if self.tokenizer == expected {
            return Ok(());
        }
        let path = path.to_owned();
        let (expected, found) = (expected.to_owned(), self.tokenizer.clone());
        Err(CacheError::Tokenizer { path, expected, found })
    }

    /// Checks that the shard at `path`, which has this header, belongs to the cache of another.
    fn check_same(&self, path: &Path, other: &Self) -> Result<(), CacheError> {
        self.check_tokenizer(path, &other.tokenizer)?;
        let differences = [
            ("layout", self.layout != other.layout),
            ("codebook's size", self.codes != other.codes),
            ("list of classes", self.classes != other.classes),
            ("number of views", self.views != other.views),
            ("augmentation", self.augmentation != other.augmentation),
            ("number of pictures", self.pictures != other.pictures),
            ("data set's order", self.order != other.order),
            ("captions", self.captions != other.captions),
        ];
        match differences.into_iter().find(|(_, differs)| *differs) {
            Some((field, _)) => Err(CacheError::HeaderMismatch { path: path.to_owned(), field }),
            None => Ok(()),
        }
    }

    /// The version of the format that this cache needs.
    fn version(&self) -> u32 {
        if self.captions.is_some() { VERSION_WITH_CAPTIONS } else { VERSION }
    }

    /// What a shard's file begins with: preamble and header.
    fn beginning(&self, shard: Shard) -> Vec<u8> {
        let json = self.to_json();
        let number = |value: usize| u32::try_from(value).expect("checked when it was made");
        let fields = [
            self.version(),
            number(shard.index),
            number(shard.count),
            number(json.len()),
            crc32c::crc32c(&json),
        ];
        let mut bytes = frame(SHARD_MAGIC, &fields.map(u32::to_le_bytes).concat()).to_vec();
        bytes.extend(json);
        bytes
    }

    /// What record (`picture`, `view`) holds, if these bytes are that.
    fn parse<'a>(&self, bytes: &'a [u8], picture: usize, view: usize) -> Option<Stored<'a>> {
        let (content, checksum) = bytes.split_last_chunk()?;
        let number = |at: usize| u32::from_le_bytes(array(&content[at..])) as usize;
        let stored_view = u16::from_le_bytes(array(&content[8..]));
        let label = number(4);
        let right = crc32c::crc32c(content) == u32::from_le_bytes(*checksum)
            && number(0) == picture
            && usize::from(stored_view & !LEFT_OUT) == view
            && label < self.classes.len();
        if !right {
            return None;
        }
        let tokens = &content[FIELDS..];
        if stored_view & LEFT_OUT != 0 {
            let text = tokens.split(|&byte| byte == 0).next().unwrap_or_default();
            return Some(Stored::LeftOut { label, reason: std::str::from_utf8(text).ok()? });
        }
        let record = Record { label, tokens };
        // What another program wrote may have a good checksum and bad content.
        let known = (record.tokens().fold(0, CodebookIndex::max) as usize) < self.codes;
        known.then_some(Stored::Tokens(record))
    }
}

/// What a record holds.
enum Stored<'a> {
    /// A view of the picture.
    Tokens(Record<'a>),
    /// Why there is none.
    LeftOut { label: usize, reason: &'a str },
}

impl Stored<'_> {
    fn label(&self) -> usize {
        match self {
            Self::Tokens(record) => record.label,
            Self::LeftOut { label, .. } => *label,
        }
    }
}

/// A picture without tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its number in the data set.
    pub picture: usize,
    /// Why it could not be read; cut to what a record has room for.
    pub reason: String,
}

/// The preamble of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Preamble {
    version: u32,
    shard: Shard,
    header_size: usize,
    header_checksum: u32,
}

impl Preamble {
    /// Reads the first bytes of a file; `None` if they are no preamble.
    fn read(path: &Path, bytes: &[u8; FRAME]) -> Result<Option<Self>, CacheError> {
        let number = |at: usize| u32::from_le_bytes(array(&bytes[at..]));
        if bytes[..8] != SHARD_MAGIC || crc32c::crc32c(&bytes[..28]) != number(28) {
            return Ok(None);
        }
        if !(OLDEST..=VERSION_WITH_CAPTIONS).contains(&number(8)) {
            return Err(CacheError::Version { path: path.to_owned(), got: number(8) });
        }
        let shard = Shard::new(number(12) as usize, number(16) as usize);
        Ok(shard.ok().filter(|_| number(20) <= MAX_HEADER).map(|shard| Self {
            version: number(8),
            shard,
            header_size: number(20) as usize,
            header_checksum: number(24),
        }))
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

/// Integers of any kind as tokens.
fn array_of_tokens(values: Vec<i64>) -> Result<Vec<CodebookIndex>, String> {
    let tokens = values.into_iter().map(|value| {
        CodebookIndex::try_from(value).map_err(|_| format!("{value} is no token; 0 to 65535 are"))
    });
    tokens.collect()
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

    fn captions_file(self, dir: &Path) -> PathBuf {
        dir.join(format!("captions-{}.bin", self.suffix()))
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
