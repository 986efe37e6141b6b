//! A folder of pictures that are of one class, or whose classes stand in a file.

use std::path::{Path, PathBuf};

use super::{
    DataSet, captions,
    classes::normalized,
    labels,
    left_out::{Ledger, LeftOut},
    walk::{self, Contents, Walk},
};
use crate::{Picture, PixelsError};

/// Names of files of classes, or of captions, that are found in a folder by themselves.
pub(crate) const LABEL_FILES: [&str; 14] = [
    "labels.txt",
    "labels.csv",
    "labels.tsv",
    "metadata.csv",
    "metadata.jsonl",
    "dataset.json",
    "val.txt",
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "captions.tsv",
    "captions.csv",
    "captions.txt",
    "captions.json",
    "captions.jsonl",
];
/// The devkit's file, whose numbers follow an order of their own.
const DEVKIT_FILE: &str = "ILSVRC2012_validation_ground_truth.txt";

/// Pictures in one folder, sorted by name, or at any depth below it where there is a label file.
///
/// A picture's caption may stand in a `.txt` file of its name beside it. Files called `captions`
/// (`.tsv`, `.csv`, `.txt`, `.json` or `.jsonl`) are tables of captions, any number a picture.
///
/// A label file is a table with a line for each picture, with its path and its class, or has the
/// classes alone, a line each, in the order of the sorted pictures. `docs/data.md` has the rules.
#[derive(Debug, Clone)]
pub struct FlatFolder {
    root: PathBuf,
    classes: Vec<String>,
    samples: Vec<Entry>,
    read_as: String,
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone)]
struct Entry {
    label: usize,
    name: String,
    captions: Vec<String>,
}

impl FlatFolder {
    /// Lists the pictures in `root`; reads none of them. Without a label file they are those
    /// directly in it, all of one class, which is called as the folder. With one, they are those at
    /// any depth that it names.
    ///
    /// # Errors
    /// [`PixelsError::Read`] for what cannot be read, [`PixelsError::DataSet`] for a folder without
    /// pictures and for labels that do not fit the pictures, or fit them in several ways.
    pub fn open(root: &Path, labels: Option<&Path>) -> Result<Self, PixelsError> {
        match labels {
            Some(file) => Self::labelled(root, file),
            None => {
                let mut ledger = Ledger::default();
                let contents = walk::contents(root, "", &mut ledger)?;
                Self::of_contents(root, contents, ledger)
            }
        }
    }

    /// The pictures among what lies directly in `root`, with the label file that is there by itself.
    pub(crate) fn of_contents(
        root: &Path,
        contents: Contents,
        mut ledger: Ledger,
    ) -> Result<Self, PixelsError> {
        let Contents { folders, files } = contents;
        let found: Vec<&str> =
            LABEL_FILES.into_iter().filter(|file| files.iter().any(|name| name == file)).collect();
        match found[..] {
            [] if files.iter().any(|name| name == DEVKIT_FILE) => {
                return Err(devkit(&root.join(DEVKIT_FILE)));
            }
            [] => {}
            [file] => return Self::labelled(root, &root.join(file)),
            [first, second, ..] => {
                let folder = root.display();
                let problem = format!(
                    "its classes may stand in {first} or in {second}; say in which: \
                     `{folder}@{folder}/{first}` or `{folder}@{folder}/{second}`"
                );
                return Err(PixelsError::data_set(folder, problem));
            }
        }
        for folder in folders {
            ledger.pass_over(&format!("{folder}/"), "a folder without pictures");
        }
        let pictures = walk::pictures_among(files, "", &mut ledger);
        Self::one_class(root, pictures, ledger)
    }

    /// These pictures below `root`, all of one class, which is called as the folder.
    pub(crate) fn one_class(
        root: &Path,
        pictures: Vec<String>,
        mut ledger: Ledger,
    ) -> Result<Self, PixelsError> {
        if pictures.is_empty() {
            return Err(no_pictures(root, &ledger));
        }
        let class = own_name(root);
        let read_as = format!("pictures of the one class `{class}`");
        let captions = captions::beside(root, &pictures, &mut ledger);
        let entry = |(name, captions)| Entry { label: 0, name, captions };
        Ok(Self {
            root: root.to_path_buf(),
            classes: vec![class],
            samples: pictures.into_iter().zip(captions).map(entry).collect(),
            read_as,
            left_out: ledger.finish(),
        })
    }

    fn labelled(root: &Path, file: &Path) -> Result<Self, PixelsError> {
        if file.file_name().is_some_and(|name| name == DEVKIT_FILE) {
            return Err(devkit(file));
        }
        let mut ledger = Ledger::ignoring(shown_below(root, file));
        let mut pictures = Walk::pictures(root, "", &mut ledger)?;
        if pictures.is_empty() {
            return Err(no_pictures(root, &ledger));
        }
        let mut beside = captions::beside(root, &pictures, &mut ledger);
        let labels = labels::read(file, root, &pictures, &mut ledger)?;
        let labels::Labels { classes, labels, mut captions, reading, .. } = labels;
        let entries = labels.into_iter().zip(&mut pictures).zip(&mut captions);
        let samples: Vec<Entry> = entries
            .zip(&mut beside)
            .filter_map(|(((label, name), captions), beside)| {
                let name = std::mem::take(name);
                // The table goes before the text files.
                let captions = if captions.is_empty() { beside } else { captions };
                Some(Entry { label: label?, name, captions: std::mem::take(captions) })
            })
            .collect();
        if samples.is_empty() {
            let problem = format!("no picture is left: {}", ledger.losses());
            return Err(PixelsError::data_set(file.display(), problem));
        }
        let read_as = format!(
            "label file ({reading}), {}, pictures at any depth",
            super::counted(classes.len())
        );
        let root = root.to_path_buf();
        Ok(Self { root, classes, samples, read_as, left_out: ledger.finish() })
    }
}

/// The path of a file below `root`, as it would be noted.
fn shown_below(root: &Path, file: &Path) -> String {
    let (full, root) = (file.canonicalize().ok(), root.canonicalize().ok());
    let below = full.as_deref().zip(root.as_deref()).and_then(|(a, b)| a.strip_prefix(b).ok());
    below.unwrap_or(file).to_string_lossy().into_owned()
}

/// What a folder is called.
fn own_name(root: &Path) -> String {
    let full = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    full.file_name().map_or("pictures".into(), |name| normalized(&name.to_string_lossy()))
}

fn no_pictures(root: &Path, ledger: &Ledger) -> PixelsError {
    let lost = match ledger.losses() {
        lost if lost.is_empty() => String::new(),
        lost => format!(" ({lost})"),
    };
    let fix = format!(
        "it has no sub-folder and no picture{lost}; put the pictures into one folder for each \
         class, or give a pattern such as `FOLDER/*.tar` for tar shards"
    );
    PixelsError::data_set(root.display(), fix)
}

fn devkit(path: &Path) -> PixelsError {
    let problem = "its numbers follow the devkit's own order, which is not that of the labels; use \
                   LOC_val_solution.csv, or a file with one WordNet identifier a line";
    PixelsError::data_set(path.display(), problem)
}

impl DataSet for FlatFolder {
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
        Picture::read(self.root.join(&self.samples[index].name))
    }

    fn read_as(&self) -> String {
        self.read_as.clone()
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}
