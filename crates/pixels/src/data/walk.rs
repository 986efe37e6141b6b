//! Listing the pictures of folders.

use std::{
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

use super::{
    captions,
    left_out::Ledger,
    rules::{self, Kind},
};
use crate::PixelsError;

/// Deepest folder that is read.
const MAX_DEPTH: usize = 64;
/// Most folders that are read below one; links can make many of a few.
const MAX_FOLDERS: usize = 1 << 20;

pub(crate) const HIDDEN: &str = "hidden, or left behind by a system";
const NO_UTF8: &str = "its name is no UTF-8 text; rename it";
const DEAD_LINK: &str = "a link that leads nowhere";

/// What lies directly in a folder, sorted by name; without what is hidden.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) folders: Vec<String>,
    pub(crate) files: Vec<String>,
}

/// What lies in `root/below`; `below` is empty or ends with a slash.
pub(crate) fn contents(
    root: &Path,
    below: &str,
    ledger: &mut Ledger,
) -> Result<Contents, PixelsError> {
    let folder = root.join(below);
    let mut found = Contents::default();
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(PixelsError::read(&folder))? {
        let entry = entry.map_err(PixelsError::read(&folder))?;
        match entry.file_name().into_string() {
            Ok(name) => names.push((name, entry)),
            Err(name) => ledger.lose(&format!("{below}{}", name.to_string_lossy()), NO_UTF8),
        }
    }
    // The order of a folder is its file system's; what is noted must not depend on it.
    names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (name, entry) in names {
        if rules::is_litter(&name) {
            ledger.pass_over(&format!("{below}{name}"), HIDDEN);
            continue;
        }
        match is_folder(&entry) {
            Ok(true) => found.folders.push(name),
            Ok(false) => found.files.push(name),
            Err(_) => ledger.lose(&format!("{below}{name}"), DEAD_LINK),
        }
    }
    Ok(found)
}

/// Whether it is a folder or a link to one.
fn is_folder(entry: &DirEntry) -> std::io::Result<bool> {
    let kind = entry.file_type()?;
    if kind.is_symlink() {
        return Ok(fs::metadata(entry.path())?.is_dir());
    }
    Ok(kind.is_dir())
}

/// Notes those of these files that are no pictures, and returns the others. Text files beside pictures of
/// the same name are noted as such.
pub(crate) fn pictures_among(files: Vec<String>, below: &str, ledger: &mut Ledger) -> Vec<String> {
    let mut pictures = files;
    let texts = captions::take_texts(&mut pictures);
    ledger.add_texts(texts.into_iter().map(|name| format!("{below}{name}")));
    pictures.retain(|name| {
        let is_picture = matches!(rules::kind(name), Kind::Picture(_));
        if !is_picture {
            note(&format!("{below}{name}"), name, ledger);
        }
        is_picture
    });
    pictures
}

/// Notes a file that is no picture.
fn note(path: &str, name: &str, ledger: &mut Ledger) {
    match (rules::kind(name), rules::ending(name)) {
        (Kind::OtherPicture, Some(ending)) => {
            ledger.lose(path, format!("a .{ending} picture, which is not read; convert it to PNG"));
        }
        (_, Some(ending)) if ["csv", "tsv", "json", "jsonl"].contains(&ending.as_str()) => {
            ledger.pass_over(path, "a table; `FOLDER@FILE` takes the classes from it");
        }
        _ => ledger.pass_over(path, "no picture by its ending"),
    }
}

/// The pictures at any depth below a folder, as paths from the root with `/` between their parts:
/// sorted by folder, then by name, as torchvision's `ImageFolder` lists them. Links are followed.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    root: &'a Path,
    /// The folders on the way, without links.
    open: Vec<PathBuf>,
    read: usize,
    found: Vec<(String, String)>,
}

impl<'a> Walk<'a> {
    /// Lists the pictures below `root/below`, where `below` is empty or ends with a slash. What is
    /// no picture is noted in `ledger`.
    pub(crate) fn pictures(
        root: &'a Path,
        below: &str,
        ledger: &mut Ledger,
    ) -> Result<Vec<String>, PixelsError> {
        let mut walk = Self { root, open: Vec::new(), read: 0, found: Vec::new() };
        // A folder that holds the root must not be entered again either.
        walk.open.extend(root.canonicalize());
        let folder = root.join(below);
        if !below.is_empty() {
            walk.open.push(folder.canonicalize().map_err(PixelsError::read(&folder))?);
        }
        walk.folder(below, ledger)?;
        // By the folder's path without the slash at its end, which would sort behind `-`.
        walk.found.sort_unstable_by(|a, b| {
            (a.0.trim_end_matches('/'), &a.1).cmp(&(b.0.trim_end_matches('/'), &b.1))
        });
        Ok(walk.found.into_iter().map(|(below, name)| format!("{below}{name}")).collect())
    }

    fn folder(&mut self, below: &str, ledger: &mut Ledger) -> Result<(), PixelsError> {
        let Contents { folders, files } = contents(self.root, below, ledger)?;
        let pictures = pictures_among(files, below, ledger);
        self.found.extend(pictures.into_iter().map(|name| (below.to_owned(), name)));
        for name in folders {
            let path = format!("{below}{name}");
            let Ok(full) = self.root.join(&path).canonicalize() else {
                ledger.lose(&path, DEAD_LINK);
                continue;
            };
            if self.open.contains(&full) {
                ledger.pass_over(&path, "a link back to a folder that it lies in");
                continue;
            }
            self.read += 1;
            if self.open.len() > MAX_DEPTH || self.read > MAX_FOLDERS {
                let problem = "its folders, or links to folders, lie too deep in one another";
                return Err(PixelsError::data_set(self.root.join(&path).display(), problem));
            }
            self.open.push(full);
            self.folder(&format!("{path}/"), ledger)?;
            self.open.pop();
        }
        Ok(())
    }
}
