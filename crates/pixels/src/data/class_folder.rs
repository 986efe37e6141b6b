//! A folder with one sub-folder of pictures for each class, as ImageNet is unpacked.

use std::path::{Path, PathBuf};

use tokens::imagenet;

use super::{DataSet, names, picture_names};
use crate::{Picture, PixelsError};

/// Pictures in folders: the sub-folders, sorted by name, are the classes, and the pictures in
/// them, sorted by name, are the samples. Hidden files and other kinds of file are passed over.
/// Folders that are all called by WordNet identifiers of ImageNet's classes (`n01440764`) give
/// their titles (`tench`) as the names of the classes.
#[derive(Debug, Clone)]
pub struct ClassFolder {
    root: PathBuf,
    classes: Vec<String>,
    samples: Vec<(usize, String)>,
}

impl ClassFolder {
    /// Lists the pictures below `root`; reads none of them.
    ///
    /// # Errors
    /// [`PixelsError::Read`] for a folder that cannot be listed, [`PixelsError::DataSet`] for one
    /// without classes or with a class without pictures.
    pub fn open(root: &Path) -> Result<Self, PixelsError> {
        let problem = |text: String| PixelsError::data_set(root.display(), text);
        let folders: Vec<String> =
            names(root)?.into_iter().filter(|name| root.join(name).is_dir()).collect();
        if folders.is_empty() {
            let fix = "it has no sub-folder; put the pictures into one folder for each class, \
                       or give a pattern such as `FOLDER/*.tar` for tar shards";
            return Err(problem(fix.to_owned()));
        }
        let mut samples = Vec::new();
        for (label, class) in folders.iter().enumerate() {
            let files = picture_names(&root.join(class))?;
            if files.is_empty() {
                let fix = format!(
                    "the class folder `{class}` has no .png, .jpg, .webp or .gif picture; add some or remove it"
                );
                return Err(problem(fix));
            }
            samples.extend(files.into_iter().map(|file| (label, format!("{class}/{file}"))));
        }
        let titles: Option<Vec<String>> = folders
            .iter()
            .map(|identifier| imagenet::title(identifier).map(str::to_owned))
            .collect();
        let classes = titles.unwrap_or(folders);
        Ok(Self { root: root.to_path_buf(), classes, samples })
    }
}

impl DataSet for ClassFolder {
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
