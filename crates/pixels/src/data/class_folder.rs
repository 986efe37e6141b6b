//! A folder with one sub-folder of pictures for each class, as ImageNet is unpacked.

use std::path::{Path, PathBuf};

use super::{DataSet, is_picture};
use crate::{Picture, PixelsError};

/// Pictures in folders: the sub-folders, sorted by name, are the classes, and the pictures in
/// them, sorted by name, are the samples. Hidden files and other kinds of file are passed over.
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
        let classes: Vec<String> =
            names(root)?.into_iter().filter(|name| root.join(name).is_dir()).collect();
        if classes.is_empty() {
            let fix = "it has no sub-folder; put the pictures into one folder for each class, \
                       or give a pattern such as `FOLDER/*.tar` for tar shards";
            return Err(problem(fix.to_owned()));
        }
        let mut samples = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let before = samples.len();
            for file in names(&root.join(class))? {
                if Path::new(&file).extension().and_then(|e| e.to_str()).is_some_and(is_picture) {
                    samples.push((label, format!("{class}/{file}")));
                }
            }
            if samples.len() == before {
                let fix = format!(
                    "the class folder `{class}` has no .png, .jpg, .webp or .gif picture; add some or remove it"
                );
                return Err(problem(fix));
            }
        }
        Ok(Self { root: root.to_path_buf(), classes, samples })
    }
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
