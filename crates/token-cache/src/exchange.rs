//! Tokens in the files of others, into a cache and out of it.
//!
//! | form | who writes and reads it | content |
//! | --- | --- | --- |
//! | a folder of `.npz` | AliTok's `pretokenization.py` and `CachedFolder` | `CLASS/PICTURE.npz` with an array `codes [views, length]` of 64-bit integers; labels are the places of the class folders in sorted order |
//! | a `.jsonl` file | 1d-tokenizer's `pretokenization.py` and its reader | a line a view: `{"class_id": 3, "tokens": [7, …]}`, without names |
//!
//! Neither says which tokenizer made the tokens, how many codes it has, or how the views were
//! made; the caller who imports them must know. Neither has a place for captions: exports leave them
//! out, and what is imported has none.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use files::npz::{self, ArchiveReader};
use tokens::{CodebookIndex, imagenet};

use crate::{CacheError, TokenCache, array_of_tokens};

/// Most bytes of a line of JSON.
const MAX_LINE: u64 = 1 << 24;
/// Most tokens of a picture, over its views, in a file of another program.
const MAX_TOKENS: usize = 1 << 20;

/// Why tokens could not be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The operating system could not read or write a file, or it is damaged.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The cache cannot be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> ExchangeError + '_ {
    |source| ExchangeError::File { path: path.to_owned(), source }
}

fn content_error(path: &Path, reason: impl Into<String>) -> ExchangeError {
    ExchangeError::Content { path: path.to_owned(), reason: reason.into() }
}

/// Cached tokens in the form of another program.
pub trait TokenSource {
    /// Names of the classes, in the order of their labels.
    fn classes(&self) -> &[String];

    /// Views of each picture.
    fn views(&self) -> usize;

    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are no pictures.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Label and name of picture `index`, which exists.
    fn picture(&self, index: usize) -> (usize, &str);

    /// The tokens of the views of picture `index`, which exists, one after the other. Their
    /// number is a multiple of that of the views.
    ///
    /// # Errors
    /// If a file cannot be read or holds something else.
    fn tokens(&mut self, index: usize) -> Result<Vec<CodebookIndex>, ExchangeError>;
}

/// A folder of one `.npz` a picture, in one sub-folder a class.
#[derive(Debug)]
pub struct NpzFolder {
    root: PathBuf,
    classes: Vec<String>,
    views: usize,
    pictures: Vec<(usize, String)>,
}

impl NpzFolder {
    /// Lists a folder as torchvision's `DatasetFolder` does: sorted class folders, in each all
    /// files that end in `.npz`, those of sub-folders after those beside them. Folders that are
    /// all called by ImageNet's identifiers (`n01440764`) give titles as names of the classes.
    ///
    /// # Errors
    /// If the folder cannot be listed, has no class or a class without files, or its first file
    /// cannot be read.
    pub fn open(root: &Path) -> Result<Self, ExchangeError> {
        let (folders, _) = listed(root)?;
        if folders.is_empty() {
            return Err(content_error(root, "it has no class folder"));
        }
        let mut pictures = Vec::new();
        for (label, class) in folders.iter().enumerate() {
            let before = pictures.len();
            let mut files = Vec::new();
            walk(root, class, &mut files)?;
            pictures.extend(files.into_iter().map(|name| (label, name)));
            if pictures.len() == before {
                return Err(content_error(&root.join(class), "there is no .npz file in it"));
            }
        }
        let titles: Option<Vec<_>> =
            folders.iter().map(|folder| imagenet::title(folder).map(str::to_owned)).collect();
        let mut source =
            Self { root: root.to_owned(), classes: titles.unwrap_or(folders), views: 0, pictures };
        source.views = source.read(0)?.0;
        Ok(source)
    }

    /// Number of views of a picture, and their tokens.
    fn read(&self, index: usize) -> Result<(usize, Vec<CodebookIndex>), ExchangeError> {
        let path = self.root.join(&self.pictures[index].1);
        let read =
            ArchiveReader::open(&path).and_then(|mut file| file.integers("codes", MAX_TOKENS));
        let (shape, values) = read.map_err(file_error(&path))?;
        let &[views, length] = &shape[..] else {
            let reason = format!("`codes` has the shape {shape:?} instead of [views, tokens]");
            return Err(content_error(&path, reason));
        };
        if views == 0 || length == 0 {
            return Err(content_error(&path, "`codes` is empty"));
        }
        let tokens = array_of_tokens(values).map_err(|reason| content_error(&path, reason))?;
        // As many values are there, so their number fits.
        Ok((views as usize, tokens))
    }
}

impl TokenSource for NpzFolder {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn views(&self) -> usize {
        self.views
    }

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn picture(&self, index: usize) -> (usize, &str) {
        let (label, name) = &self.pictures[index];
        let ending = name.len() - ".npz".len();
        (*label, &name[..ending])
    }

    fn tokens(&mut self, index: usize) -> Result<Vec<CodebookIndex>, ExchangeError> {
        let (views, tokens) = self.read(index)?;
        if views == self.views {
            return Ok(tokens);
        }
        let path = self.root.join(&self.pictures[index].1);
        let reason = format!("it has {views} views where the first picture has {}", self.views);
        Err(content_error(&path, reason))
    }
}

/// Names of folders and of other entries of a folder, both sorted.
fn listed(folder: &Path) -> Result<(Vec<String>, Vec<String>), ExchangeError> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let entry = entry.map_err(file_error(folder))?;
        let name = entry.file_name().into_string().map_err(|name| {
            content_error(&folder.join(name), "its name is not UTF-8; rename it")
        })?;
        let names = if entry.path().is_dir() { &mut folders } else { &mut files };
        names.push(name);
    }
    folders.sort_unstable();
    files.sort_unstable();
    Ok((folders, files))
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) -> Result<(), ExchangeError> {
    let (folders, files) = listed(&root.join(folder))?;
    let is_npz = |name: &String| {
        let ending = name.as_bytes().last_chunk::<4>();
        ending.is_some_and(|ending| ending.eq_ignore_ascii_case(b".npz"))
    };
    found.extend(files.into_iter().filter(is_npz).map(|name| format!("{folder}/{name}")));
    folders.iter().try_for_each(|name| walk(root, &format!("{folder}/{name}"), found))
}

/// One view in a file of JSON lines.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    class_id: u32,
    tokens: Vec<CodebookIndex>,
}

/// A file with one JSON object a line for each view.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: BufReader<File>,
    classes: Vec<String>,
    views: usize,
    /// Label and name of each picture, and where its first line begins.
    pictures: Vec<(usize, String, u64)>,
}

impl JsonLines {
    /// Reads the file once, for the labels. Every `views` lines are one picture. `classes` are
    /// names of classes if they are known; otherwise there are as many classes as the labels tell
    /// of, called as ImageNet's if they are 1000.
    ///
    /// # Errors
    /// If a line cannot be read, there are lines of two classes for one picture, or lines of the
    /// last picture are missing.
    pub fn open(path: &Path, views: usize, classes: &[String]) -> Result<Self, ExchangeError> {
        let file = BufReader::new(File::open(path).map_err(file_error(path))?);
        let (path, pictures) = (path.to_owned(), Vec::new());
        let mut source = Self { path, file, classes: classes.to_vec(), views, pictures };
        let (mut at, mut number, mut largest) = (0, 0, 0);
        while let Some((size, line)) = source.line(number)? {
            let label = line.class_id as usize;
            largest = largest.max(label);
            if number % views.max(1) == 0 {
                source.pictures.push((label, format!("{:08}", source.pictures.len()), at));
            } else if source.pictures.last().is_some_and(|(first, ..)| *first != label) {
                let reason = format!(
                    "line {} has class {label}, the picture's first view another; are there \
                     {views} lines for each picture?",
                    number + 1
                );
                return Err(content_error(&source.path, reason));
            }
            (at, number) = (at + size, number + 1);
        }
        if number == 0 || views == 0 || number % views != 0 {
            let reason = format!("{number} lines cannot be cut into pictures of {views} views");
            return Err(content_error(&source.path, reason));
        }
        if source.classes.is_empty() {
            source.classes = match largest + 1 {
                1000 => imagenet::titles(),
                count if count <= 1 << 20 => {
                    (0..count).map(|label| format!("class {label}")).collect()
                }
                _ => return Err(content_error(&source.path, format!("class {largest}"))),
            };
        } else if largest >= source.classes.len() {
            let reason = format!("class {largest} is unknown; there are {}", source.classes.len());
            return Err(content_error(&source.path, reason));
        }
        Ok(source)
    }

    /// The next line and its size in bytes; `number` is its place in the file, from 0.
    fn line(&mut self, number: usize) -> Result<Option<(u64, Line)>, ExchangeError> {
        let mut text = Vec::new();
        let mut limited = (&mut self.file).take(MAX_LINE);
        let size = limited.read_until(b'\n', &mut text).map_err(file_error(&self.path))? as u64;
        if size == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&text) {
            Ok(line) => Ok(Some((size, line))),
            Err(error) => {
                let reason = format!("line {} is no cached view: {error}", number + 1);
                Err(content_error(&self.path, reason))
            }
        }
    }
}

impl TokenSource for JsonLines {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn views(&self) -> usize {
        self.views
    }

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn picture(&self, index: usize) -> (usize, &str) {
        let (label, name, _) = &self.pictures[index];
        (*label, name)
    }

    fn tokens(&mut self, index: usize) -> Result<Vec<CodebookIndex>, ExchangeError> {
        let (label, _, at) = self.pictures[index];
        let here = self.file.stream_position().map_err(file_error(&self.path))?;
        // In order, as imports go, nothing that was read ahead is thrown away.
        if here != at {
            self.file.seek(SeekFrom::Start(at)).map_err(file_error(&self.path))?;
        }
        let (mut tokens, mut length) = (Vec::new(), None);
        for view in 0..self.views {
            let number = index * self.views + view;
            let line = self.line(number)?.map(|(_, line)| line);
            let line = line
                .filter(|line| line.class_id as usize == label)
                .filter(|line| *length.get_or_insert(line.tokens.len()) == line.tokens.len());
            let Some(line) = line else {
                let reason = format!("line {} has another class or length", number + 1);
                return Err(content_error(&self.path, reason));
            };
            tokens.extend(line.tokens);
        }
        Ok(tokens)
    }
}

/// Writes a folder of one `.npz` a picture, as AliTok's training reads them; none for those that were
/// left out. It takes the place of whatever is at `folder`. `progress` is called with the number of pictures that are done.
///
/// Names that have no folder in them get that of their label, with leading zeros, so that sorted
/// folders are the labels; so long as every class has a picture.
///
/// # Errors
/// If the cache cannot be read, or a name points out of the folder.
pub fn export_npz_folder(
    cache: &TokenCache,
    folder: &Path,
    mut progress: impl FnMut(usize),
) -> Result<(), ExchangeError> {
    let header = cache.header();
    let shape = [header.views, header.layout.len()].map(|extent| extent as u64);
    let names = cache.names()?;
    let fill = |root: &Path| -> Result<(), FillError> {
        for (picture, name) in names.iter().enumerate() {
            let Some((label, tokens)) = picture_of(cache, picture)? else { continue };
            let inside = |name: &str| {
                Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
            };
            if name.is_empty() || !inside(name) {
                return Err(content_error(folder, format!("`{name}` is no name of a file")).into());
            }
            let path = match name.contains('/') {
                true => root.join(format!("{name}.npz")),
                false => root.join(format!("{label:04}/{name}.npz")),
            };
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            let file = BufWriter::new(File::create_new(&path).map_err(file_error(&path))?);
            npz::write_to(file, |arrays| {
                arrays.add("codes", &shape, tokens.into_iter().map(i64::from))
            })
            .map_err(file_error(&path))?;
            progress(picture + 1);
        }
        Ok(())
    };
    files::replace_folder(folder, fill).map_err(|FillError(error)| match error {
        ExchangeError::File { path, source } if path.as_os_str().is_empty() => {
            file_error(folder)(source)
        }
        error => error,
    })
}

/// What goes wrong while a folder is filled; errors of the folder itself come without its name.
struct FillError(ExchangeError);

impl From<io::Error> for FillError {
    fn from(source: io::Error) -> Self {
        Self(ExchangeError::File { path: PathBuf::new(), source })
    }
}

impl From<ExchangeError> for FillError {
    fn from(error: ExchangeError) -> Self {
        Self(error)
    }
}

/// Writes one line a view, as 1d-tokenizer's training reads them; none for pictures that were left
/// out. `progress` is called with the number of pictures that are done.
///
/// # Errors
/// If the cache cannot be read or the file not be written.
pub fn export_json_lines(
    cache: &TokenCache,
    path: &Path,
    mut progress: impl FnMut(usize),
) -> Result<(), ExchangeError> {
    let length = cache.header().layout.len();
    files::write_file(path, |file| {
        for picture in 0..cache.len() {
            let found = picture_of(cache, picture).map_err(io::Error::other)?;
            let Some((label, tokens)) = found else { continue };
            for tokens in tokens.chunks_exact(length) {
                let line = Line { class_id: label as u32, tokens: tokens.to_vec() };
                serde_json::to_writer(&mut *file, &line)?;
                file.write_all(b"\n")?;
            }
            progress(picture + 1);
        }
        Ok(())
    })
    .map_err(file_error(path))
}

/// Label and the tokens of all views of a picture; nothing if it was left out.
fn picture_of(
    cache: &TokenCache,
    picture: usize,
) -> Result<Option<(usize, Vec<CodebookIndex>)>, ExchangeError> {
    let (mut label, mut tokens) = (0, Vec::new());
    for view in 0..cache.header().views {
        let record = match cache.record(picture, view) {
            Err(CacheError::LeftOut { .. }) => return Ok(None),
            record => record?,
        };
        label = record.label;
        tokens.extend(record.tokens());
    }
    Ok(Some((label, tokens)))
}
