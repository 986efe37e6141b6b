//! Tar shards in the WebDataset layout.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::{DataSet, MAX_CLASSES, is_picture};
use crate::bundle::Split;
use crate::{Picture, PixelsError};

/// Size of a tar record.
const BLOCK: u64 = 512;
/// Longest `.cls`, `.json` or `.txt` member that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Pictures in tar files: neighbouring members whose names differ only after the first dot make
/// one sample. `.png`, `.jpg`, `.jpeg`, `.webp` or `.gif` holds the picture; the class is the
/// number in `.cls` or the number or name under `class` or `label` in `.json`; a caption may stand
/// in `.txt` or under `caption` in `.json`. Other members are passed over.
///
/// Opening reads headers and texts; pictures are read one by one, by their place in the file.
#[derive(Debug, Clone)]
pub struct ShardSet {
    shards: Vec<PathBuf>,
    classes: Vec<String>,
    samples: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    shard: usize,
    /// Where the picture starts in the shard, in bytes.
    offset: u64,
    size: usize,
    name: String,
    label: usize,
    caption: Option<String>,
}

/// A class as a shard gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Class {
    Number(usize),
    Name(String),
}

/// What a shard's members say about one sample.
#[derive(Debug, Default)]
struct Draft {
    key: String,
    picture: Option<(u64, u64)>,
    class: Option<Class>,
    caption: Option<String>,
    split: Option<Split>,
}

/// The parts of a `.json` member that are understood.
#[derive(Deserialize)]
struct Description {
    class: Option<Class>,
    label: Option<Class>,
    caption: Option<String>,
    /// Only in the bundled shard; other data sets may mean anything by it.
    split: Option<serde_json::Value>,
}

impl ShardSet {
    /// Lists the samples of `shards`, in this order.
    ///
    /// # Errors
    /// [`PixelsError::Read`] or [`PixelsError::DataSet`] for a shard that is missing, truncated or
    /// no tar file, a member with an absolute name or `..` in it, a sample without picture or
    /// class, and classes that are numbers in one sample and names in another.
    pub fn open(shards: &[PathBuf]) -> Result<Self, PixelsError> {
        Self::list(shards, None)
    }

    /// Lists those samples of `shards` that are marked as of this side of the split. The classes
    /// are those of all samples, so that both sides have the same labels.
    pub(crate) fn open_split(shards: &[PathBuf], split: Split) -> Result<Self, PixelsError> {
        Self::list(shards, Some(split))
    }

    fn list(shards: &[PathBuf], split: Option<Split>) -> Result<Self, PixelsError> {
        let scanned: Vec<Vec<(Draft, u64, u64, Class)>> =
            shards.par_iter().map(|shard| scan(shard)).collect::<Result<_, _>>()?;
        let set = || match shards {
            [shard] => shard.display().to_string(),
            _ => format!("{} shards", shards.len()),
        };
        let classes = classes(scanned.iter().flatten().map(|(.., class)| class))
            .map_err(|problem| PixelsError::data_set(set(), problem))?;

        let mut samples = Vec::new();
        for (shard, drafts) in scanned.into_iter().enumerate() {
            for (draft, offset, size, class) in drafts {
                if split.is_some() && draft.split != split {
                    continue;
                }
                let label = match class {
                    Class::Number(number) => number,
                    Class::Name(name) => classes
                        .binary_search(&name)
                        .expect("the classes were gathered from these samples"),
                };
                let size = size as usize;
                let (name, caption) = (draft.key, draft.caption);
                samples.push(Entry { shard, offset, size, name, label, caption });
            }
        }
        if samples.is_empty() {
            return Err(PixelsError::data_set(set(), "it has no samples"));
        }
        Ok(Self { shards: shards.to_vec(), classes, samples })
    }
}

/// The class names: sorted if they are names, "0", "1", … up to the largest if they are numbers.
fn classes<'a>(found: impl Iterator<Item = &'a Class>) -> Result<Vec<String>, String> {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for class in found {
        match class {
            Class::Name(name) => {
                names.insert(name.clone());
            }
            Class::Number(number) if *number < MAX_CLASSES => count = count.max(number + 1),
            Class::Number(number) => {
                return Err(format!("class {number} is out of range: at most {MAX_CLASSES}"));
            }
        }
    }
    match (names.is_empty(), count) {
        (true, count) => Ok((0..count).map(|number| number.to_string()).collect()),
        (false, 0) => Ok(names.into_iter().collect()),
        _ => Err("some classes are numbers and some are names; use one kind".to_owned()),
    }
}

/// The complete samples of one shard: what is said of each, where its picture starts, how long it
/// is, and its class.
fn scan(shard: &Path) -> Result<Vec<(Draft, u64, u64, Class)>, PixelsError> {
    let problem = |text: String| PixelsError::data_set(shard.display(), text);
    let broken = |error: std::io::Error| {
        problem(format!("it is truncated or no tar file ({error}); get it again"))
    };
    let truncated = || {
        problem("it is truncated: its end mark or part of a member is missing; get it again".into())
    };
    let file = File::open(shard).map_err(PixelsError::read(shard))?;
    let length = file.metadata().map_err(PixelsError::read(shard))?.len();

    let mut samples: Vec<Draft> = Vec::new();
    let mut end = 0;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let padded = size.checked_next_multiple_of(BLOCK);
        end = padded.and_then(|size| offset.checked_add(size)).unwrap_or(u64::MAX);
        if end > length {
            return Err(truncated());
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let within = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&name).components().all(within) {
            return Err(problem(format!(
                "the member name {name:?} points outside of the shard; make it again with relative names"
            )));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let file_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[file_start..].find('.').map(|dot| file_start + dot) else { continue };
        let (key, extension) = (&name[..dot], name[dot + 1..].to_ascii_lowercase());
        if samples.last().is_none_or(|draft| draft.key != key) {
            samples.push(Draft { key: key.to_owned(), ..Draft::default() });
        }
        let Some(draft) = samples.last_mut() else { continue };

        if is_picture(&extension) {
            draft.picture = Some((offset, size));
        } else if ["cls", "json", "txt"].contains(&extension.as_str()) {
            let bad = |what: &str| problem(format!("the member {name} {what}"));
            if size > MAX_TEXT {
                return Err(bad("is too long for a class, caption or description"));
            }
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|_| bad("is no UTF-8 text"))?;
            draft.add(&extension, &text).map_err(bad)?;
        }
    }
    // The end mark is two empty blocks, of which some writers leave one out.
    if length - end < BLOCK {
        return Err(truncated());
    }

    let complete = |draft: Draft| {
        let missing = |what: &str| problem(format!("the sample {} has {what}", draft.key));
        let (offset, size) =
            draft.picture.ok_or_else(|| missing("no picture; add a .png, .jpg or .webp member"))?;
        let class = draft
            .class
            .clone()
            .ok_or_else(|| missing("no class; add a .cls or .json member beside its picture"))?;
        Ok((draft, offset, size, class))
    };
    samples.into_iter().map(complete).collect()
}

impl Draft {
    /// Takes in a text member.
    fn add(&mut self, extension: &str, text: &str) -> Result<(), &'static str> {
        match extension {
            "cls" => {
                let number = text.trim().parse().map_err(|_| "is not a class number")?;
                self.class = Some(Class::Number(number));
            }
            "txt" => self.caption = Some(text.trim().to_owned()),
            _ => {
                let description: Description = serde_json::from_str(text).map_err(
                    |_| "is not a JSON object with `class` or `label` (a name or number)",
                )?;
                self.class = description.class.or(description.label).or(self.class.take());
                self.caption = description.caption.or(self.caption.take());
                self.split = description.split.and_then(|split| serde_json::from_value(split).ok());
            }
        }
        Ok(())
    }
}

impl DataSet for ShardSet {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].label
    }

    fn name(&self, index: usize) -> &str {
        &self.samples[index].name
    }

    fn caption(&self, index: usize) -> Option<&str> {
        self.samples[index].caption.as_deref()
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let entry = &self.samples[index];
        let shard = &self.shards[entry.shard];
        let mut bytes = vec![0; entry.size];
        // Opened for each picture: threads share nothing, and it costs microseconds.
        File::open(shard)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(entry.offset))?;
                file.read_exact(&mut bytes)
            })
            .map_err(PixelsError::read(shard))?;
        Picture::decode(&bytes, &format!("{} in {}", entry.name, shard.display()))
    }
}
