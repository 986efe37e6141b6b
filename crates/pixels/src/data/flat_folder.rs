//! A folder of pictures without sub-folders: of one class, or with a file of labels, as ImageNet's
//! validation pictures come.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use tokens::imagenet;

use super::{DataSet, names, picture_names};
use crate::{Picture, PixelsError};

/// Names of label files that are found in a folder by themselves.
const LABEL_FILES: [&str; 5] = [
    "labels.txt",
    "labels.csv",
    "val.txt",
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
];
/// The devkit's file, whose numbers follow an order of their own.
const DEVKIT_FILE: &str = "ILSVRC2012_validation_ground_truth.txt";

/// Pictures in one folder, sorted by name.
///
/// A label file has a line for each picture: its name (the ending may be left out) and, behind
/// blanks, a tab or a comma, its class; or the classes alone, in the order of the sorted names.
/// What follows the class, and a heading, are passed over. A class is a WordNet identifier of
/// ImageNet's 1000, a number, or any other word. Identifiers, and numbers where the pictures are
/// called `ILSVRC2012_…`, stand for ImageNet's labels and titles.
#[derive(Debug, Clone)]
pub struct FlatFolder {
    root: PathBuf,
    classes: Vec<String>,
    samples: Vec<(usize, String)>,
}

impl FlatFolder {
    /// Lists the pictures in `root`; reads none of them. Without a label file they are all of one
    /// class, which is called as the folder.
    ///
    /// # Errors
    /// [`PixelsError::Read`] for what cannot be read, [`PixelsError::DataSet`] for a folder without
    /// pictures and for labels that do not fit the pictures.
    pub fn open(root: &Path, labels: Option<&Path>) -> Result<Self, PixelsError> {
        let files = picture_names(root)?;
        if files.is_empty() {
            let fix = "it has no sub-folder and no picture; put the pictures into one folder for \
                       each class, or give a pattern such as `FOLDER/*.tar` for tar shards";
            return Err(PixelsError::data_set(root.display(), fix));
        }
        let found = names(root)?;
        let label_file = match labels {
            Some(path) => Some(path.to_path_buf()),
            None => LABEL_FILES
                .iter()
                .find(|file| found.iter().any(|name| name == **file))
                .map(|file| root.join(file)),
        };
        let Some(label_file) = label_file else {
            if found.iter().any(|name| name == DEVKIT_FILE) {
                return Err(devkit(&root.join(DEVKIT_FILE)));
            }
            let full = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
            let class = full.file_name().map_or("pictures".into(), |name| name.to_string_lossy());
            let samples = files.into_iter().map(|file| (0, file)).collect();
            return Ok(Self {
                root: root.to_path_buf(),
                classes: vec![class.into_owned()],
                samples,
            });
        };
        if label_file.file_name().is_some_and(|name| name == DEVKIT_FILE) {
            return Err(devkit(&label_file));
        }
        let text = std::fs::read_to_string(&label_file).map_err(PixelsError::read(&label_file))?;
        let words = label_words(&text, &files)
            .map_err(|problem| PixelsError::data_set(label_file.display(), problem))?;
        let (classes, labels) = number(&words, &files)
            .map_err(|problem| PixelsError::data_set(label_file.display(), problem))?;
        let samples = labels.into_iter().zip(files).collect();
        Ok(Self { root: root.to_path_buf(), classes, samples })
    }
}

fn devkit(path: &Path) -> PixelsError {
    let problem = "its numbers follow the devkit's own order, which is not that of the labels; use \
                   LOC_val_solution.csv, or a file with one WordNet identifier a line";
    PixelsError::data_set(path.display(), problem)
}

/// The class of each file, as the text writes it.
fn label_words<'t>(text: &'t str, files: &[String]) -> Result<Vec<&'t str>, String> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split([',', ' ', '\t']).filter(|word| !word.is_empty()).collect())
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect();
    if lines.len() == files.len() && lines.iter().all(|words| words.len() == 1) {
        return Ok(lines.into_iter().map(|words| words[0]).collect());
    }
    let classes: HashMap<&str, &str> =
        lines.iter().filter_map(|words| Some((*words.first()?, *words.get(1)?))).collect();
    let stem = |file: &str| file.rsplit_once('.').map_or(file.len(), |(stem, _)| stem.len());
    let mut missing = files.iter().filter(|file| {
        !classes.contains_key(&file[..]) && !classes.contains_key(&file[..stem(file)])
    });
    if let Some(file) = missing.next() {
        let others = match missing.count() {
            0 => String::new(),
            count => format!(" and {count} others"),
        };
        return Err(format!(
            "it has no line for {file}{others}; it needs one with name and class for each picture, \
             or exactly {} with the class alone",
            files.len()
        ));
    }
    let class = |file: &String| {
        classes.get(&file[..]).or_else(|| classes.get(&file[..stem(file)])).copied()
    };
    Ok(files.iter().filter_map(class).collect())
}

/// The names of the classes, and the label of each word.
fn number(words: &[&str], files: &[String]) -> Result<(Vec<String>, Vec<usize>), String> {
    let identifiers: HashMap<&str, usize> = imagenet::classes()
        .enumerate()
        .map(|(label, (identifier, _))| (identifier, label))
        .collect();
    let known: Option<Vec<usize>> =
        words.iter().map(|word| identifiers.get(word).copied()).collect();
    if let Some(labels) = known {
        return Ok((imagenet::titles(), labels));
    }
    let numbers: Option<Vec<usize>> = words.iter().map(|word| word.parse().ok()).collect();
    if let Some(labels) = numbers {
        let largest = labels.iter().copied().max().unwrap_or(0);
        if files.iter().all(|file| file.starts_with("ILSVRC2012_")) {
            let titles = imagenet::titles();
            if largest >= titles.len() {
                return Err(format!("class {largest} is out of range: ImageNet's end with 999"));
            }
            return Ok((titles, labels));
        }
        if largest >= super::MAX_CLASSES {
            return Err(format!("class {largest} is out of range: at most {}", super::MAX_CLASSES));
        }
        return Ok(((0..=largest).map(|number| number.to_string()).collect(), labels));
    }
    let classes: BTreeSet<&str> = words.iter().copied().collect();
    let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
    let labels = words
        .iter()
        .map(|word| classes.binary_search_by(|class| class.as_str().cmp(word)))
        .collect::<Result<_, _>>()
        .expect("the classes were gathered from these words");
    Ok((classes, labels))
}

impl DataSet for FlatFolder {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].0
    }

    fn name(&self, index: usize) -> &str {
        &self.samples[index].1
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        Picture::read(self.root.join(&self.samples[index].1))
    }
}
