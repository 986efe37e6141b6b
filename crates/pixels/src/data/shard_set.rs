//! Tar shards in the WebDataset layout.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use rayon::prelude::*;
use serde_json::Value;

use super::{
    DataSet, captions,
    classes::{Class, NO_CLASS, Numbering},
    left_out::{Ledger, LeftOut},
    rules::{self, Kind},
    walk::HIDDEN,
};
use crate::bundle::Split;
use crate::{Picture, PixelsError};

/// Size of a tar record.
const BLOCK: u64 = 512;
/// Longest `.cls`, `.json` or `.txt` member that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Bytes behind the end mark in which a second tar file is looked for.
const MAX_PADDING: u64 = 1 << 20;
/// The class of pictures that have captions alone.
const ONE_CLASS: &str = "pictures";

/// Pictures in tar files: members whose names are equal up to the first dot behind the last slash
/// make one sample, wherever they stand in their shard. `.jpg`, `.jpeg`, `.png`, `.webp` or another
/// picture that is read holds the picture, the first of these where there are several. The class is
/// the number or name in `.cls`, or else that under `class` or `label` in `.json`; a caption
/// may stand in `.txt`, or else under `caption` or `text` in `.json`, where a list holds several. Where no
/// sample has a class and some have captions, as in what img2dataset writes, all are of one class.
///
/// Opening reads headers and texts; pictures are read one by one, by their place in the file.
#[derive(Debug, Clone)]
pub struct ShardSet {
    shards: Vec<PathBuf>,
    classes: Vec<String>,
    samples: Vec<Entry>,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone)]
struct Entry {
    shard: usize,
    /// Where the picture starts in the shard, in bytes.
    offset: u64,
    size: usize,
    name: String,
    label: usize,
    captions: Vec<String>,
}

/// Where a picture lies in a shard.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// How far its ending stands from the preferred one.
    rank: usize,
    offset: u64,
    size: u64,
}

/// What a shard's members say about one sample.
#[derive(Debug, Default)]
struct Draft {
    key: String,
    /// Endings of the members that were met.
    endings: Vec<String>,
    picture: Option<Place>,
    /// Members that would have been its picture.
    other_pictures: Vec<String>,
    cls: Option<Result<Class, Cow<'static, str>>>,
    json: Option<Result<Class, Cow<'static, str>>>,
    txt: Vec<String>,
    captions: Vec<String>,
    split: Option<Split>,
}

/// A sample that lacks nothing, save maybe a class.
#[derive(Debug)]
struct Complete {
    key: String,
    place: Place,
    /// Nothing where no member says one; or why it is none.
    class: Result<Option<Class>, Cow<'static, str>>,
    captions: Vec<String>,
    split: Option<Split>,
}

impl Complete {
    fn class(&self) -> Option<&Class> {
        self.class.as_ref().ok()?.as_ref()
    }
}

impl ShardSet {
    /// Lists the samples of `shards`, in this order.
    ///
    /// # Errors
    /// [`PixelsError::Read`] or [`PixelsError::DataSet`] for a shard that is missing, truncated or
    /// no tar file, a member with an absolute name or `..` in it, shards without a complete sample,
    /// and classes that are numbers in one sample and names in another.
    pub fn open(shards: &[PathBuf]) -> Result<Self, PixelsError> {
        Self::list(shards, None, Ledger::default())
    }

    /// The same, with what is already noted.
    pub(crate) fn open_noting(shards: &[PathBuf], ledger: Ledger) -> Result<Self, PixelsError> {
        Self::list(shards, None, ledger)
    }

    /// Lists those samples of `shards` that are marked as of this side of the split. The classes
    /// are those of all samples, so that both sides have the same labels.
    pub(crate) fn open_split(shards: &[PathBuf], split: Split) -> Result<Self, PixelsError> {
        Self::list(shards, Some(split), Ledger::default())
    }

    fn list(
        shards: &[PathBuf],
        split: Option<Split>,
        mut ledger: Ledger,
    ) -> Result<Self, PixelsError> {
        let scanned: Vec<(Vec<Complete>, Ledger)> =
            shards.par_iter().map(|shard| scan(shard)).collect::<Result<_, _>>()?;
        let set = || match shards {
            [shard] => shard.display().to_string(),
            _ => format!("{} shards", shards.len()),
        };
        let found = || scanned.iter().flat_map(|(samples, _)| samples);
        let mut numbering = Numbering::new(found().filter_map(Complete::class))
            .map_err(|problem| PixelsError::data_set(set(), problem))?;

        let has_classes = found().any(|sample| sample.class().is_some());
        let has_captions = found().any(|sample| !sample.captions.is_empty());
        // Captions alone make a data set, too, of one class.
        let is_of_captions = !has_classes && has_captions;
        if is_of_captions {
            numbering.classes = vec![ONE_CLASS.to_owned()];
        }

        let mut samples = Vec::new();
        for (shard, (complete, of_shard)) in scanned.into_iter().enumerate() {
            ledger.append(of_shard);
            for Complete { key: name, place, class, captions, split: side } in complete {
                // Here and not where it is read, so that all are listed in order.
                let class = match class {
                    Ok(class) => class,
                    Err(reason) => {
                        ledger.lose(&name, reason);
                        continue;
                    }
                };
                if split.is_some() && side != split {
                    continue;
                }
                let label = match class {
                    Some(class) => numbering.label(&class),
                    None if !is_of_captions => {
                        ledger.lose(&name, NO_CLASS);
                        continue;
                    }
                    None if captions.is_empty() => {
                        ledger.lose(&name, captions::NO_CAPTION);
                        continue;
                    }
                    None => 0,
                };
                let (offset, size) = (place.offset, place.size as usize);
                samples.push(Entry { shard, offset, size, name, label, captions });
            }
        }
        if samples.is_empty() {
            let problem = match ledger.losses() {
                lost if lost.is_empty() => "it has no samples".to_owned(),
                lost => format!("it has no samples that are complete: {lost}"),
            };
            return Err(PixelsError::data_set(set(), problem));
        }
        let left_out = ledger.finish();
        Ok(Self { shards: shards.to_vec(), classes: numbering.classes, samples, left_out })
    }
}

/// The samples of one shard that are complete, in the order of their first members, and what is
/// left out.
fn scan(shard: &Path) -> Result<(Vec<Complete>, Ledger), PixelsError> {
    let problem = |text: String| PixelsError::data_set(shard.display(), text);
    let truncated = || {
        problem("it is truncated: its end mark or part of a member is missing; get it again".into())
    };
    let file = File::open(shard).map_err(PixelsError::read(shard))?;
    let length = file.metadata().map_err(PixelsError::read(shard))?.len();
    let broken = |error: std::io::Error| {
        // The library's words are about a header of random bytes.
        let start = super::start(shard).unwrap_or_default();
        problem(match rules::known_by_content(&start, &shard.display().to_string()) {
            Some(known) => known,
            None if error.kind() == std::io::ErrorKind::UnexpectedEof || length < BLOCK => {
                "it is truncated or no tar file; get it again".to_owned()
            }
            None => format!(
                "it is damaged or no tar file ({}); get it again",
                printable(&error.to_string())
            ),
        })
    };

    let mut samples = Samples::default();
    let mut ledger = Ledger::default();
    let mut end = 0;
    let mut archive = tar::Archive::new(&file);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        // A sparse member says how large it is when its holes are filled.
        let stored = match kind.is_gnu_sparse() {
            true => entry.header().entry_size().map_err(broken)?,
            false => size,
        };
        let padded = stored.checked_next_multiple_of(BLOCK);
        end = padded.and_then(|size| offset.checked_add(size)).unwrap_or(u64::MAX);
        if end > length {
            return Err(truncated());
        }
        // Headers of the whole file (`git archive` writes one) and of folders.
        if kind.is_pax_global_extensions() || kind.is_dir() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if name.ends_with('/') {
            continue;
        }
        let within = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&name).components().all(within) {
            return Err(problem(format!(
                "the member name {name:?} points outside of the shard; make it again with relative names"
            )));
        }
        if rules::is_below_litter(&name) {
            ledger.pass_over(&name, HIDDEN);
            continue;
        }
        let file_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[file_start..].find('.').map(|dot| file_start + dot) else {
            ledger.pass_over(&name, "its name has no ending");
            continue;
        };
        if !kind.is_file() && !kind.is_contiguous() {
            let reason = match kind {
                tar::EntryType::Link | tar::EntryType::Symlink => {
                    "a link, which WebDataset does not follow; write files (`tar --hard-dereference \
                     --dereference`)"
                }
                _ => "neither a file nor a folder",
            };
            ledger.pass_over(&name, reason);
            continue;
        }
        let (key, ending) = (&name[..dot], name[dot + 1..].to_ascii_lowercase());
        match (rules::kind_of_ending(&ending), ending.as_str()) {
            (Kind::Picture(rank), _) => {
                let draft = samples.draft(key, &ending);
                let place = Place { rank, offset, size };
                match draft.picture {
                    Some(known) if known.rank <= rank => draft.other_pictures.push(name),
                    Some(known) => {
                        let known = draft.endings.iter().find(|ending| {
                            rules::kind_of_ending(ending) == Kind::Picture(known.rank)
                        });
                        let known = known.map(|ending| format!("{key}.{ending}"));
                        draft.other_pictures.extend(known);
                        draft.picture = Some(place);
                    }
                    None => draft.picture = Some(place),
                }
            }
            (Kind::OtherPicture, _) => {
                samples.draft(key, &ending);
                // Noted with its sample, whose picture it may have been.
            }
            (_, "cls" | "json" | "txt") => {
                let draft = samples.draft(key, &ending);
                let text = match size {
                    _ if size > MAX_TEXT => Err("is too long to be read"),
                    _ => {
                        let mut bytes = Vec::new();
                        entry.read_to_end(&mut bytes).map_err(broken)?;
                        let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(&bytes);
                        let text = std::str::from_utf8(bytes).map(str::to_owned);
                        text.map_err(|_| "is no UTF-8 text")
                    }
                };
                if let Err(reason) = draft.add(&ending, text) {
                    ledger.pass_over(&name, format!("its .{ending} {reason}"));
                }
            }
            _ => ledger.pass_over(&name, "its ending is not one of a picture, class or caption"),
        }
    }
    // The end mark is two empty blocks, of which some writers leave one out.
    if length.checked_sub(end).is_none_or(|rest| rest < BLOCK) {
        return Err(truncated());
    }
    if let Some(place) = second_archive(&file, end, length).map_err(PixelsError::read(shard))? {
        let reason = "another tar file behind the end of the first; unpack joined ones with \
                      `tar --ignore-zeros`";
        ledger.lose(&format!("{} from byte {place} on", shard.display()), reason);
    }
    let complete = samples.drafts.into_iter().filter_map(|draft| draft.complete(&mut ledger));
    let complete = complete.collect();
    Ok((complete, ledger))
}

/// A text of others without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().take(120).map(|sign| if sign.is_control() { '\u{FFFD}' } else { sign }).collect()
}

/// Where a second tar file begins behind the end mark of the first.
fn second_archive(mut file: &File, end: u64, length: u64) -> std::io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(end))?;
    let mut rest = Vec::new();
    file.take(MAX_PADDING.min(length - end)).read_to_end(&mut rest)?;
    let mut blocks = rest.chunks_exact(BLOCK as usize);
    let is_header =
        |block: &[u8]| block[257..262] == *b"ustar" && block.first().is_some_and(|&b| b != 0);
    Ok(blocks.position(is_header).map(|block| end + block as u64 * BLOCK))
}

/// The samples of a shard while it is read.
#[derive(Debug, Default)]
struct Samples {
    drafts: Vec<Draft>,
    /// The samples of each key: where a member's name comes again, it belongs to the next.
    by_key: HashMap<String, Vec<usize>>,
}

impl Samples {
    /// The sample that a member of this key and ending belongs to.
    fn draft(&mut self, key: &str, ending: &str) -> &mut Draft {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.to_owned(), Vec::new());
        }
        let of_key = self.by_key.get_mut(key).expect("it was just put in");
        let place = of_key
            .iter()
            .copied()
            .find(|&draft| !self.drafts[draft].endings.iter().any(|known| known == ending));
        let place = place.unwrap_or_else(|| {
            of_key.push(self.drafts.len());
            self.drafts.push(Draft { key: key.to_owned(), ..Draft::default() });
            self.drafts.len() - 1
        });
        let draft = &mut self.drafts[place];
        draft.endings.push(ending.to_owned());
        draft
    }
}

impl Draft {
    /// Takes in a text member, or why it could not be read.
    fn add(&mut self, ending: &str, text: Result<String, &'static str>) -> Result<(), String> {
        match (ending, text) {
            ("cls", text) => {
                self.cls = Some(match text {
                    Ok(text) => Class::word(&text).map_err(Cow::Borrowed),
                    Err(reason) => Err(format!("its .cls {reason}").into()),
                });
            }
            ("json", text) => {
                let value: Result<Value, String> = text.map_err(str::to_owned).and_then(|text| {
                    serde_json::from_str(&text).map_err(|_| "is not JSON".to_owned())
                });
                match value {
                    Ok(Value::Object(map)) => {
                        let said = |field: &&str| map.get(*field).filter(|said| !said.is_null());
                        let class = ["class", "label", "cls"].iter().find_map(said);
                        self.json = class.map(|value| Class::json(value).map_err(Cow::Borrowed));
                        let captions = captions::NAMES.iter().find_map(said);
                        self.captions = captions.map(captions::of_json).unwrap_or_default();
                        // Only in the bundled shard; other data sets may mean anything by it.
                        let split = map.get("split").cloned();
                        self.split = split.and_then(|split| serde_json::from_value(split).ok());
                    }
                    Ok(_) => self.json = Some(Err("its .json is not a JSON object".into())),
                    Err(reason) => self.json = Some(Err(format!("its .json {reason}").into())),
                }
            }
            ("txt", Ok(text)) => self.txt = captions::of_texts([text]),
            (_, Err(reason)) => return Err(reason.to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// The sample, if it lacks nothing; else it is noted why.
    fn complete(self, ledger: &mut Ledger) -> Option<Complete> {
        let Self { key, endings, picture, other_pictures, cls, json, txt, captions, split } = self;
        let unread = endings.iter().find(|end| rules::kind_of_ending(end) == Kind::OtherPicture);
        let Some(place) = picture else {
            match unread {
                Some(ending) => {
                    let reason =
                        format!("a .{ending} picture, which is not read; convert it to PNG");
                    ledger.lose(&key, reason);
                }
                // A text alone is a remark and no sample.
                None if cls.is_none() && !matches!(json, Some(Ok(_))) => {
                    ledger.pass_over(&key, "texts without a picture or a class");
                }
                None => ledger.lose(&key, "no picture"),
            }
            return None;
        };
        // The `.cls` member goes before the description, whatever that says.
        let class = cls.or(json).transpose();
        let noted = if class.is_ok() { &other_pictures[..] } else { &[] };
        for name in noted {
            ledger.pass_over(name, "another picture of its sample, whose preferred one is taken");
        }
        if let Some(ending) = unread.filter(|_| class.is_ok()) {
            let reason = "another picture of its sample, of a kind that is not read";
            ledger.pass_over(&format!("{key}.{ending}"), reason);
        }
        let captions = if txt.is_empty() { captions } else { txt };
        Some(Complete { key, place, class, captions, split })
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

    fn captions(&self, index: usize) -> &[String] {
        &self.samples[index].captions
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

    fn read_as(&self) -> String {
        let shards = match self.shards.len() {
            1 => "1 WebDataset shard".to_owned(),
            count => format!("{count} WebDataset shards"),
        };
        format!("{shards}, {}", super::counted(self.classes.len()))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}
