//! Pictures that a person names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use pixels::{Picture, crop::Crop};
use tokenizer::ImageSize;

use crate::{args::CropArgs, progress};

/// Endings of files that are taken for pictures where a folder is named.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "gif"];

/// Reads a picture at a tokenizer's size.
pub(crate) fn read(path: &Path, image: ImageSize, crop: &CropArgs) -> Result<Picture> {
    let crop = if crop.no_crop { Crop::Never } else { Crop::Center };
    Ok(crop.fit(Picture::read(path)?, image.width, image.height, &path.display().to_string())?)
}

/// A picture to read, and the name that its results have: a path below a folder, without an ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) path: PathBuf,
    pub(crate) name: PathBuf,
}

impl Named {
    /// Where its result stands in a folder of pictures.
    pub(crate) fn png(&self, folder: &Path) -> PathBuf {
        png(folder, &self.name)
    }
}

/// The file of a picture of this name, which may have dots in it.
pub(crate) fn png(folder: &Path, name: &Path) -> PathBuf {
    let mut path = folder.join(name).into_os_string();
    path.push(".png");
    path.into()
}

/// The pictures that a person names: files as they are, and of folders all pictures at any depth, in
/// the order of their names. Each has another name. What a folder holds besides is counted on standard
/// error.
pub(crate) fn find(images: &[PathBuf]) -> Result<Vec<Named>> {
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for image in images {
        if !image.is_dir() {
            let name = image.file_name().context("a picture without a name")?;
            found.push((image.clone(), PathBuf::from(name)));
            continue;
        }
        let (before, mut others) = (found.len(), 0);
        let mut folders = vec![PathBuf::new()];
        let mut below = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(image.join(&folder));
            let entries = entries.with_context(|| format!("cannot read {}", image.display()))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("cannot read {}", image.display()))?;
                let name = folder.join(entry.file_name());
                // Through links to files, but not to folders, which may lead back.
                let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                if is_hidden {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(name);
                } else if ENDINGS.contains(&&files::output::ending(&name)[..]) {
                    below.push((image.join(&name), name));
                } else {
                    others += 1;
                }
            }
        }
        below.sort();
        found.extend(below);
        if found.len() == before {
            bail!(
                "{} holds no pictures ({others} other files); .png, .jpg, .jpeg, .webp and .gif are \
                 read",
                image.display()
            );
        }
        if others > 0 {
            let (plural, are) =
                if others == 1 { ("", "is no picture") } else { ("s", "are no pictures") };
            progress::note(&format!("{}: {others} file{plural} {are}", image.display()));
        }
    }
    Ok(with_names(found))
}

/// Gives each picture a name of its own: without its ending where that is enough to tell it from the
/// others, else with it, else with a number.
fn with_names(found: Vec<(PathBuf, PathBuf)>) -> Vec<Named> {
    // Some file systems see no case.
    let key = |name: &Path| name.to_string_lossy().to_lowercase();
    let mut stems: BTreeMap<String, usize> = BTreeMap::new();
    for (_, name) in &found {
        *stems.entry(key(&name.with_extension(""))).or_default() += 1;
    }
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let named = found.into_iter().map(|(path, full)| {
        let stem = full.with_extension("");
        let base = if stems[&key(&stem)] == 1 { stem } else { full };
        let mut name = base.clone();
        let mut number = 1;
        while taken.contains_key(&key(&name)) {
            number += 1;
            let mut text = base.clone().into_os_string();
            text.push(format!("-{number}"));
            name = text.into();
        }
        taken.insert(key(&name), 1);
        Named { path, name }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_give_each_picture_a_name_of_its_own() {
        let names = |paths: &[&str]| -> Vec<String> {
            let found = paths.iter().map(|path| {
                (PathBuf::from(path), PathBuf::from(Path::new(path).file_name().unwrap()))
            });
            let named = with_names(found.collect());
            named.into_iter().map(|named| named.name.display().to_string()).collect()
        };
        assert_eq!(names(&["cat.jpg", "x/dog.v2.png"]), ["cat", "dog.v2"]);
        assert_eq!(names(&["cat.jpg", "Cat.png"]), ["cat.jpg", "Cat.png"]);
        assert_eq!(
            names(&["a/1.png", "b/1.png", "1.png-2.png"]),
            ["1.png", "1.png-2", "1.png-2-2"]
        );
        assert_eq!(png(Path::new("out"), Path::new("a/dog.v2")), Path::new("out/a/dog.v2.png"));
    }
}
