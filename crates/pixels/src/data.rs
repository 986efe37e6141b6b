//! Data sets of labelled pictures.

mod balanced;
mod captions;
mod class_folder;
mod classes;
mod flat_folder;
mod labels;
mod left_out;
#[cfg(feature = "parquet")]
mod parquet_set;
mod part;
mod pattern;
mod rules;
mod shard_set;
mod walk;

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use files::Home;

pub use balanced::Balanced;
pub use captions::captioned;
pub use class_folder::ClassFolder;
pub use flat_folder::FlatFolder;
pub use left_out::LeftOut;
#[cfg(feature = "parquet")]
pub use parquet_set::ParquetSet;
pub use part::{Part, hold_out, is_held_out};
pub use shard_set::ShardSet;

use self::{flat_folder::LABEL_FILES, left_out::Ledger, rules::Kind, walk::Walk};
use crate::bundle::Split;
use crate::{Picture, PixelsError};

/// The shards of bundled pictures, below the root of bundled things: Noto's by category, and those of
/// three styles with captions.
const BUNDLED: &str = "data/noto-emoji-64.tar";
const BUNDLED_EMOJI: &str = "data/emoji-64.tar";

/// A picture with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture as it is stored, not yet cropped.
    pub picture: Picture,
    /// Index into [`DataSet::classes`].
    pub label: usize,
    /// What the picture is called in its data set.
    pub name: String,
}

/// Labelled pictures in a fixed order.
///
/// # Panics
/// Every method that takes an index panics if the index is not smaller than [`len`](Self::len).
pub trait DataSet: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples; [`open`] never returns such a data set.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes, in the order of their labels.
    fn classes(&self) -> &[String];

    /// The class of a sample; reads nothing.
    fn label(&self, index: usize) -> usize;

    /// What a sample is called; reads nothing.
    fn name(&self, index: usize) -> &str;

    /// What a sample shows, in all the texts that the data set has of it; reads nothing. None is
    /// empty.
    fn captions(&self, _index: usize) -> &[String] {
        &[]
    }

    /// The first of a sample's captions; reads nothing.
    fn caption(&self, index: usize) -> Option<&str> {
        self.captions(index).first().map(String::as_str)
    }

    /// What the source was read as, such as `class folder, 3 classes, pictures at any depth`.
    fn read_as(&self) -> String {
        counted(self.classes().len())
    }

    /// What the source holds that is no sample, by reason, lost samples first.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }

    /// Reads and decodes the picture of a sample.
    ///
    /// # Errors
    /// Those of [`Picture::read`], naming the sample.
    fn picture(&self, index: usize) -> Result<Picture, PixelsError>;

    /// Reads a sample.
    ///
    /// # Errors
    /// Those of [`picture`](Self::picture).
    fn sample(&self, index: usize) -> Result<Sample, PixelsError> {
        let picture = self.picture(index)?;
        Ok(Sample { picture, label: self.label(index), name: self.name(index).to_owned() })
    }
}

/// Opens the data set that `source` names:
///
/// - `bundled` (its training side) or `bundled:heldout`, which is below `home`: Noto Emoji at 64
///   pixels, by category. Both sides have the same classes, and no emoji is on both sides in any
///   skin tone or gender;
/// - `bundled:emoji` or `bundled:emoji:heldout`: emoji of three styles with captions, by
///   sub-category, split likewise;
/// - a folder with one sub-folder of pictures for each class ([`ClassFolder`]);
/// - a folder of pictures ([`FlatFolder`]), where `FOLDER@FILE` names the file of its labels;
/// - a folder as img2dataset writes it, of complete tar shards or of folders of pictures;
/// - tar shards in the WebDataset layout ([`ShardSet`]), or Parquet files with pictures in them
///   (`ParquetSet`, if the feature `parquet` is built in): a path, or a pattern with `*`, `?`,
///   `[…]`, `{a,b}` or `{000..123}`. Everything that braces stand for has to be there;
/// - a pattern that matches pictures of one folder, which are of one class, or class folders beside
///   each other; `FOLDER/*/` stands for all of a folder.
///
/// What is no sample is counted and named under [`DataSet::left_out`].
///
/// # Errors
/// [`PixelsError::Read`] or [`PixelsError::DataSet`], naming what is missing or wrong, or the two
/// readings of a layout that fits two.
pub fn open(source: &str, home: &Home) -> Result<Box<dyn DataSet>, PixelsError> {
    let path = Path::new(source);
    match source {
        "bundled" | "bundled:train" => return bundled(BUNDLED, Split::Train, home),
        "bundled:heldout" => return bundled(BUNDLED, Split::HeldOut, home),
        "bundled:emoji" | "bundled:emoji:train" => {
            return bundled(BUNDLED_EMOJI, Split::Train, home);
        }
        "bundled:emoji:heldout" => return bundled(BUNDLED_EMOJI, Split::HeldOut, home),
        _ if source.starts_with("bundled:") => {
            let problem = "bundled are `bundled` and `bundled:heldout`, and with captions \
                           `bundled:emoji` and `bundled:emoji:heldout`";
            return Err(PixelsError::data_set(source, problem));
        }
        _ => {}
    }
    if path.is_dir() {
        return open_folder(source, path);
    }
    if path.exists() {
        return open_files(source, vec![path.to_path_buf()], Ledger::default());
    }
    // A label file may have an `@` in its name, and so may the folder.
    for (at, _) in source.match_indices('@') {
        let (folder, file) = (Path::new(&source[..at]), Path::new(&source[at + 1..]));
        if folder.is_dir() {
            // From where the program runs, or else from the folder.
            let inside = folder.join(file);
            let file = if !file.exists() && inside.is_file() { &inside } else { file };
            return Ok(Box::new(FlatFolder::open(folder, Some(file))?));
        }
    }
    if let Some(folder) = source.strip_suffix("*/")
        && Path::new(folder).is_dir()
    {
        return Ok(Box::new(ClassFolder::open(Path::new(folder))?));
    }
    let mut ledger = Ledger::default();
    let paths = pattern::matching(source, &mut ledger)?;
    open_matches(source, paths, ledger)
}

/// A number of classes in words.
fn counted(classes: usize) -> String {
    format!("{classes} {}", if classes == 1 { "class" } else { "classes" })
}

/// One side of a bundled data set.
fn bundled(shard: &str, split: Split, home: &Home) -> Result<Box<dyn DataSet>, PixelsError> {
    let path = home.path(shard).map_err(|error| PixelsError::data_set("bundled", error))?;
    Ok(Box::new(ShardSet::open_split(&[path], split)?))
}

/// Opens a folder as what its contents say that it is.
fn open_folder(source: &str, path: &Path) -> Result<Box<dyn DataSet>, PixelsError> {
    let mut ledger = Ledger::default();
    let contents = walk::contents(path, "", &mut ledger)?;
    let is_picture = |name: &&String| matches!(rules::kind(name), Kind::Picture(_));
    let picture = contents.files.iter().find(is_picture);
    let folder = source.trim_end_matches('/');
    if let Some(set) = open_downloaded(path, &contents)? {
        return Ok(set);
    }

    if let Some(picture) = picture {
        if contents.files.iter().any(|file| LABEL_FILES.contains(&file.as_str())) {
            return Ok(Box::new(FlatFolder::of_contents(path, contents, ledger)?));
        }
        for name in &contents.folders {
            let below = Walk::pictures(path, &format!("{name}/"), &mut Ledger::default())?;
            if let Some(other) = below.first() {
                let ending = rules::ending(picture).unwrap_or_default();
                return Err(PixelsError::data_set(
                    source,
                    format!(
                        "it fits two readings: pictures of one class, such as {picture}, or folders \
                         of classes, such as {name} with {other}; `'{folder}/*.{ending}'` takes \
                         the pictures alone, `'{folder}/*/'` the folders"
                    ),
                ));
            }
        }
        return Ok(Box::new(FlatFolder::of_contents(path, contents, ledger)?));
    }
    if contents.folders.is_empty() {
        for ending in ["tar", "parquet"] {
            let has_ending = |name: &&String| rules::ending(name).as_deref() == Some(ending);
            let count = contents.files.iter().filter(has_ending).count();
            if count > 0 {
                let problem = format!(
                    "it holds {count} .{ending} files, maybe of several sides of a data set; give a \
                     pattern such as `'{folder}/*.{ending}'`"
                );
                return Err(PixelsError::data_set(source, problem));
            }
        }
        return Ok(Box::new(FlatFolder::of_contents(path, contents, ledger)?));
    }
    refuse_other_labels(folder, path, &contents)?;
    let mut files = contents.files;
    let tables: Vec<String> = files.extract_if(.., |file| captions::is_table(file)).collect();
    for file in walk::pictures_among(files, "", &mut ledger) {
        ledger.lose(&file, "it lies beside the class folders");
    }
    let mut set = ClassFolder::of_folders(path, contents.folders, ledger)?;
    match &tables[..] {
        [] => {}
        [table] => set.take_captions(&path.join(table))?,
        [first, second, ..] => {
            let problem = format!("its captions may stand in {first} or in {second}; keep one");
            return Err(PixelsError::data_set(source, problem));
        }
    }
    Ok(Box::new(set))
}

/// Opens what img2dataset wrote into a folder: tar shards, or folders of pictures, each beside a file of
/// its statistics, which is written when the shard is complete. Nothing for another folder.
fn open_downloaded(
    path: &Path,
    contents: &walk::Contents,
) -> Result<Option<Box<dyn DataSet>>, PixelsError> {
    let is_complete = |stem: &str| contents.files.contains(&format!("{stem}_stats.json"));
    let tars = contents.files.iter().filter_map(|file| file.strip_suffix(".tar"));
    let stems: Vec<&str> = match contents.folders.is_empty() {
        true => tars.collect(),
        false => contents.folders.iter().map(String::as_str).collect(),
    };
    let (complete, cut): (Vec<&str>, Vec<&str>) =
        stems.into_iter().partition(|stem| is_complete(stem));
    if complete.is_empty() {
        return Ok(None);
    }
    let mut ledger = Ledger::default();
    for stem in cut {
        let reason = "a shard that img2dataset did not complete; go on with its download";
        ledger.lose(stem, reason);
    }
    if contents.folders.is_empty() {
        let shards: Vec<PathBuf> =
            complete.iter().map(|stem| path.join(format!("{stem}.tar"))).collect();
        return Ok(Some(Box::new(ShardSet::open_noting(&shards, ledger)?)));
    }
    let mut pictures = Vec::new();
    for stem in complete {
        pictures.extend(Walk::pictures(path, &format!("{stem}/"), &mut ledger)?);
    }
    Ok(Some(Box::new(FlatFolder::one_class(path, pictures, ledger)?)))
}

/// Refuses folders beside a label file that says other classes of their pictures.
fn refuse_other_labels(
    folder: &str,
    root: &Path,
    contents: &walk::Contents,
) -> Result<(), PixelsError> {
    const TABLES: [&str; 5] = ["csv", "tsv", "txt", "json", "jsonl"];
    // One folder is more often that of all pictures than a class.
    let is_single = contents.folders.len() == 1;
    for file in &contents.files {
        let is_table = rules::ending(file).is_some_and(|end| TABLES.contains(&end.as_str()));
        let is_of_labels = LABEL_FILES.contains(&file.as_str()) || is_single && is_table;
        if !is_of_labels || captions::is_table(file) {
            continue;
        }
        let pictures = Walk::pictures(root, "", &mut Ledger::default())?;
        let path = root.join(file);
        let Ok(found) = labels::read(&path, root, &pictures, &mut Ledger::default()) else {
            continue;
        };
        let is_other = |(picture, label): (&String, &Option<usize>)| {
            let class = picture.split('/').next().map(classes::normalized);
            label.is_some_and(|label| Some(&found.classes[label]) != class.as_ref())
        };
        if found.names_pictures && pictures.iter().zip(&found.labels).any(is_other) {
            let problem = format!(
                "it fits two readings: class folders, such as {}, or the classes that {file} gives; \
                 `'{folder}/*/'` takes the folders, `{folder}@{folder}/{file}` the file",
                contents.folders[0]
            );
            return Err(PixelsError::data_set(folder, problem));
        }
    }
    Ok(())
}

/// Opens what a pattern matches: class folders, pictures of one class, or shards.
fn open_matches(
    source: &str,
    paths: Vec<PathBuf>,
    ledger: Ledger,
) -> Result<Box<dyn DataSet>, PixelsError> {
    let folders = paths.iter().filter(|path| path.is_dir()).count();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_picture = |path: &&PathBuf| {
        name(path).is_some_and(|name| matches!(rules::kind(&name), Kind::Picture(_)))
    };
    let pictures = paths.iter().filter(is_picture).count();
    if folders == 0 && pictures == 0 {
        return open_files(source, paths, ledger);
    }
    if folders.max(pictures) < paths.len() {
        let problem = "some of what it matches are folders or pictures, and some are not; give a \
                       pattern that matches one kind";
        return Err(PixelsError::data_set(source, problem));
    }
    let parent = |path: &PathBuf| path.parent().map(Path::to_path_buf).unwrap_or_default();
    let root = parent(&paths[0]);
    if paths.iter().any(|path| parent(path) != root) {
        let problem = "what it matches lies in several folders; give a pattern for one of them";
        return Err(PixelsError::data_set(source, problem));
    }
    let names: Option<Vec<String>> =
        paths.iter().map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
    let problem = "the names that it matches are no UTF-8 text; rename them";
    let mut names = names.ok_or_else(|| PixelsError::data_set(source, problem))?;
    names.sort_unstable();
    names.dedup();
    let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
    match folders {
        0 => Ok(Box::new(FlatFolder::one_class(&root, names, ledger)?)),
        _ => Ok(Box::new(ClassFolder::of_folders(&root, names, ledger)?)),
    }
}

/// Opens shards of one kind.
fn open_files(
    source: &str,
    paths: Vec<PathBuf>,
    ledger: Ledger,
) -> Result<Box<dyn DataSet>, PixelsError> {
    let mut parquet = 0;
    for path in &paths {
        parquet += usize::from(is_parquet(path)?);
    }
    match parquet {
        0 => Ok(Box::new(ShardSet::open_noting(&paths, ledger)?)),
        count if count < paths.len() => {
            Err(PixelsError::data_set(source, "some of its files are Parquet and some are not"))
        }
        #[cfg(feature = "parquet")]
        _ => Ok(Box::new(ParquetSet::open_noting(&paths, ledger)?)),
        #[cfg(not(feature = "parquet"))]
        _ => Err(PixelsError::WithoutParquet { name: source.to_owned() }),
    }
}

/// Whether a file is Parquet by its name or its first bytes.
fn is_parquet(path: &Path) -> Result<bool, PixelsError> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if matches!(ending.as_deref(), Some("parquet" | "parq" | "pq")) {
        return Ok(true);
    }
    Ok(matches!(&start(path)?[..], [b'P', b'A', b'R', b'1' | b'E', ..]))
}

/// The first bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>, PixelsError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(PixelsError::read(path))?;
    file.take(512).read_to_end(&mut start).map_err(PixelsError::read(path))?;
    Ok(start)
}

/// The numbers of the classes `from` among the classes `to`, which are found by their names.
pub fn labels_by_name(from: &[String], to: &[String]) -> Vec<Option<usize>> {
    let numbers: HashMap<String, usize> =
        to.iter().enumerate().map(|(label, name)| (classes::normalized(name), label)).collect();
    from.iter().map(|name| numbers.get(&classes::normalized(name)).copied()).collect()
}

/// Refuses a data set of which samples were lost.
///
/// # Errors
/// [`PixelsError::DataSet`] that names the first of each reason.
pub fn refuse_losses(source: &str, data: &dyn DataSet) -> Result<(), PixelsError> {
    match left_out::losses(data.left_out()) {
        lost if lost.is_empty() => Ok(()),
        lost => {
            Err(PixelsError::data_set(source, format!("it has samples that are left out: {lost}")))
        }
    }
}
