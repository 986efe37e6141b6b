//! A folder with one sub-folder of pictures for each class, as ImageNet is unpacked.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    DataSet, captions,
    classes::{Class, Numbering, normalized},
    labels,
    left_out::{Ledger, LeftOut},
    walk::{self, Contents, Walk},
};
use crate::{Picture, PixelsError};

/// Names of folders that hold a side of a data set each, in lower case.
const SIDES: [&str; 13] = [
    "dev",
    "eval",
    "heldout",
    "held-out",
    "held_out",
    "test",
    "testing",
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "trainval",
];

/// Pictures in folders: the sub-folders, sorted by name, are the classes, and the pictures at any
/// depth below them, sorted by folder and name, are the samples, as for torchvision's `ImageFolder`.
/// Links are followed. A caption may stand in a `.txt` file beside its picture. Folders that are all called by WordNet identifiers of ImageNet's classes
/// (`n01440764`) give their titles (`tench`) as the names of the classes.
#[derive(Debug, Clone)]
pub struct ClassFolder {
    root: PathBuf,
    classes: Vec<String>,
    labels: Vec<usize>,
    names: Vec<String>,
    captions: Vec<Vec<String>>,
    left_out: Vec<LeftOut>,
}

impl ClassFolder {
    /// Lists the pictures below `root`; reads none of them. Pictures directly in `root` are left
    /// out.
    ///
    /// # Errors
    /// [`PixelsError::Read`] for a folder that cannot be listed, [`PixelsError::DataSet`] for one
    /// without classes, with a class without pictures, or whose sub-folders are the sides of a data
    /// set.
    pub fn open(root: &Path) -> Result<Self, PixelsError> {
        let mut ledger = Ledger::default();
        let Contents { folders, files } = walk::contents(root, "", &mut ledger)?;
        for file in walk::pictures_among(files, "", &mut ledger) {
            ledger.lose(&file, "it lies beside the class folders");
        }
        Self::of_folders(root, folders, ledger)
    }

    /// The same for these sub-folders.
    pub(crate) fn of_folders(
        root: &Path,
        folders: Vec<String>,
        mut ledger: Ledger,
    ) -> Result<Self, PixelsError> {
        let problem = |text: String| PixelsError::data_set(root.display(), text);
        if folders.is_empty() {
            let fix = "it has no sub-folder; put the pictures into one folder for each class, \
                       or give a pattern such as `FOLDER/*.tar` for tar shards";
            return Err(problem(fix.to_owned()));
        }
        let is_side = |name: &String| SIDES.contains(&name.to_lowercase().as_str());
        let sides: Vec<&String> = folders.iter().filter(|name| is_side(name)).collect();
        if sides.len() > 1 || sides.len() == folders.len() {
            let sides: Vec<String> =
                sides.iter().map(|name| format!("`{}`", root.join(name).display())).collect();
            return Err(problem(format!(
                "it fits two readings: its sub-folders are classes, or the sides of a data set, as \
                 which they are called; give {} for a side, or rename the folders if they are \
                 classes",
                sides.join(" or ")
            )));
        }
        // Sorted by the composed name, which does not depend on the file system.
        let mut by_class = BTreeMap::new();
        for folder in folders {
            if let Some(other) = by_class.insert(normalized(&folder), folder.clone()) {
                return Err(problem(format!(
                    "its folders {other:?} and {folder:?} have one name in Unicode's composed form \
                     (NFC); rename one, or move their pictures together"
                )));
            }
        }
        let classes: Vec<Class> = by_class.keys().cloned().map(Class::Name).collect();
        let classes = Numbering::new(classes.iter()).map_err(problem)?.classes;
        let (mut labels, mut names) = (Vec::new(), Vec::new());
        for (label, folder) in by_class.values().enumerate() {
            let mut of_class = Ledger::default();
            let pictures = Walk::pictures(root, &format!("{folder}/"), &mut of_class)?;
            if pictures.is_empty() {
                let lost = match of_class.losses() {
                    lost if lost.is_empty() => String::new(),
                    lost => format!(" ({lost})"),
                };
                return Err(problem(format!(
                    "the class folder `{folder}` has no .jpg, .png, .webp or .gif picture{lost}; \
                     add some or remove it"
                )));
            }
            ledger.append(of_class);
            labels.resize(labels.len() + pictures.len(), label);
            names.extend(pictures);
        }
        let captions = captions::beside(root, &names, &mut ledger);
        let (root, left_out) = (root.to_path_buf(), ledger.finish());
        Ok(Self { root, classes, labels, names, captions, left_out })
    }

    /// Takes the captions of a table that lies beside the class folders.
    pub(crate) fn take_captions(&mut self, table: &Path) -> Result<(), PixelsError> {
        // A picture that it does not list has no caption, and is a sample all the same.
        let found = labels::read(table, &self.root, &self.names, &mut Ledger::default())?;
        for (captions, found) in self.captions.iter_mut().zip(found.captions) {
            if !found.is_empty() {
                *captions = found;
            }
        }
        Ok(())
    }
}

impl DataSet for ClassFolder {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    fn captions(&self, index: usize) -> &[String] {
        &self.captions[index]
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        Picture::read(self.root.join(&self.names[index]))
    }

    fn read_as(&self) -> String {
        format!("class folder, {}, pictures at any depth", super::counted(self.classes.len()))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}
