//! Data sets of labelled pictures.

mod balanced;
mod class_folder;
mod flat_folder;
#[cfg(feature = "parquet")]
mod parquet_set;
mod part;
mod shard_set;

use std::path::{Path, PathBuf};

use files::Home;

pub use balanced::Balanced;
pub use class_folder::ClassFolder;
pub use flat_folder::FlatFolder;
#[cfg(feature = "parquet")]
pub use parquet_set::ParquetSet;
pub use part::{Part, hold_out, is_held_out};
pub use shard_set::ShardSet;

use crate::bundle::Split;
use crate::{Picture, PixelsError};

/// The shard of the bundled pictures, below the root of bundled things.
const BUNDLED: &str = "data/noto-emoji-64.tar";
/// Most classes that may be given by number.
const MAX_CLASSES: usize = 1 << 20;
/// Most paths that the braces of a pattern may stand for.
const MAX_PATTERNS: usize = 1 << 20;

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

    /// What a sample shows, if the data set says so; reads nothing.
    fn caption(&self, _index: usize) -> Option<&str> {
        None
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
/// - a folder with one sub-folder of pictures for each class ([`ClassFolder`]);
/// - a folder of pictures ([`FlatFolder`]), where `FOLDER@FILE` names the file of its labels;
/// - tar shards in the WebDataset layout ([`ShardSet`]), or Parquet files with pictures in them
///   (`ParquetSet`, if the feature `parquet` is built in): a path, or a pattern with `*`, `?`,
///   `[…]`, `{a,b}` or `{000..123}`. Everything that braces stand for has to be there.
///
/// # Errors
/// [`PixelsError::Read`] or [`PixelsError::DataSet`], naming what is missing or wrong.
pub fn open(source: &str, home: &Home) -> Result<Box<dyn DataSet>, PixelsError> {
    let path = Path::new(source);
    match source {
        "bundled" | "bundled:train" => Ok(Box::new(bundled(Split::Train, home)?)),
        "bundled:heldout" => Ok(Box::new(bundled(Split::HeldOut, home)?)),
        _ if source.starts_with("bundled:") => {
            Err(PixelsError::data_set(source, "its sides are `bundled` and `bundled:heldout`"))
        }
        _ if path.is_dir() => open_folder(path),
        _ if path.exists() => open_files(source, vec![path.to_path_buf()]),
        _ => match source.rsplit_once('@') {
            Some((folder, labels)) if Path::new(folder).is_dir() => {
                Ok(Box::new(FlatFolder::open(Path::new(folder), Some(Path::new(labels)))?))
            }
            _ => open_files(source, matching(source)?),
        },
    }
}

/// One side of the bundled data set.
fn bundled(split: Split, home: &Home) -> Result<ShardSet, PixelsError> {
    let path = home.path(BUNDLED).map_err(|error| PixelsError::data_set("bundled", error))?;
    ShardSet::open_split(&[path], split)
}

fn open_folder(path: &Path) -> Result<Box<dyn DataSet>, PixelsError> {
    let found = names(path)?;
    if found.iter().any(|name| path.join(name).is_dir()) {
        return Ok(Box::new(ClassFolder::open(path)?));
    }
    Ok(Box::new(FlatFolder::open(path, None)?))
}

/// Opens shards of one kind.
fn open_files(source: &str, paths: Vec<PathBuf>) -> Result<Box<dyn DataSet>, PixelsError> {
    let is_parquet = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "parquet");
    match paths.iter().filter(|path| is_parquet(path)).count() {
        0 => Ok(Box::new(ShardSet::open(&paths)?)),
        count if count < paths.len() => {
            Err(PixelsError::data_set(source, "some of its files are Parquet and some are not"))
        }
        #[cfg(feature = "parquet")]
        _ => Ok(Box::new(ParquetSet::open(&paths)?)),
        #[cfg(not(feature = "parquet"))]
        _ => Err(PixelsError::data_set(
            source,
            "this program was built without Parquet; build it with `--features parquet`",
        )),
    }
}

/// The files that a pattern stands for: its braces in their order, each one's matches sorted.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, PixelsError> {
    let problem = |problem: String| PixelsError::data_set(pattern, problem);
    let mut paths = Vec::new();
    for part in expand(pattern).map_err(problem)? {
        let before = paths.len();
        if Path::new(&part).exists() {
            paths.push(PathBuf::from(&part));
        } else {
            let found = glob::glob(&part).map_err(|error| problem(error.to_string()))?;
            for path in found {
                paths.push(path.map_err(|error| problem(error.to_string()))?);
            }
        }
        if paths.len() == before {
            return Err(problem(if part == pattern {
                "there is no such file or folder; give `bundled`, a folder with one sub-folder for \
                 each class, or the path or pattern of tar shards"
                    .to_owned()
            } else {
                format!("there is no {part}, which it stands for")
            }));
        }
    }
    Ok(paths)
}

/// The patterns that a pattern with braces stands for, as a shell expands them: `{a,b}` each part,
/// `{08..12}` each number, with the zeros of the first.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').map(|close| open + close);
        let close = close.ok_or_else(|| format!("the brace at `{}` has no end", &rest[open..]))?;
        let content = &rest[open + 1..close];
        if content.contains('{') {
            return Err("braces inside of braces are not understood".to_owned());
        }
        let parts: Vec<String> = match content.split_once("..") {
            Some((first, last)) => {
                let number = |text: &str| {
                    text.parse::<usize>()
                        .map_err(|_| format!("`{text}` in {{{content}}} is no number"))
                };
                let (from, to) = (number(first)?, number(last)?);
                if from > to {
                    return Err(format!("{{{content}}} ends before it begins"));
                }
                if to - from >= MAX_PATTERNS {
                    return Err(format!("{{{content}}} stands for too many files"));
                }
                let width = if first.starts_with('0') { first.len() } else { 0 };
                (from..=to).map(|number| format!("{number:0width$}")).collect()
            }
            None => content.split(',').map(str::to_owned).collect(),
        };
        if expanded.len().saturating_mul(parts.len()) > MAX_PATTERNS {
            return Err("its braces stand for too many files".to_owned());
        }
        let before = &rest[..open];
        expanded = expanded
            .iter()
            .flat_map(|start| parts.iter().map(move |part| format!("{start}{before}{part}")))
            .collect();
        rest = &rest[close + 1..];
    }
    expanded.iter_mut().for_each(|start| start.push_str(rest));
    Ok(expanded)
}

/// The names in a folder, sorted, without hidden ones.
fn names(folder: &Path) -> Result<Vec<String>, PixelsError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(PixelsError::read(folder))? {
        let name = entry.map_err(PixelsError::read(folder))?.file_name();
        let name = name.into_string().map_err(|name| {
            let problem = format!("the name {name:?} is no UTF-8 text; rename it");
            PixelsError::data_set(folder.display(), problem)
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The names in a folder that end like a picture's, sorted.
fn picture_names(folder: &Path) -> Result<Vec<String>, PixelsError> {
    let mut names = names(folder)?;
    names.retain(|name| {
        Path::new(name).extension().and_then(|e| e.to_str()).is_some_and(is_picture)
    });
    Ok(names)
}

/// Whether a file extension is that of a picture.
fn is_picture(extension: &str) -> bool {
    ["png", "jpg", "jpeg", "webp", "gif"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_expand_braces_as_a_shell_does() {
        let cases: [(&str, &[&str]); 5] = [
            ("a.tar", &["a.tar"]),
            ("s-{008..011}.tar", &["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]),
            ("{9..11}", &["9", "10", "11"]),
            ("{train,val}/{0..1}.tar", &["train/0.tar", "train/1.tar", "val/0.tar", "val/1.tar"]),
            ("x{a}*", &["xa*"]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(expand(pattern).unwrap(), expected, "{pattern}");
        }
        for wrong in
            ["{1..", "{3..1}", "{a..b}", "{0..99999999999}", "{a,{b,c}}", "{0..9999}{0..9999}"]
        {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }
}
