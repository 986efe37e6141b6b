//! Pictures on their way into and out of a model.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use pixels::{Picture, crop::Crop};
use tokenizer::ImageSize;
use tokens::{CodebookIndex, npz};

use crate::{args::CropArgs, compute::Decoding, progress::Progress, token_file};

/// Reads a picture at a tokenizer's size.
pub(crate) fn read(path: &Path, image: ImageSize, crop: &CropArgs) -> Result<Picture> {
    let crop = if crop.no_crop { Crop::Never } else { Crop::Center };
    Ok(crop.fit(Picture::read(path)?, image.width, image.height, &path.display().to_string())?)
}

/// Makes the folder that pictures are written to.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// The name of the picture with this number among `count`.
pub(crate) fn numbered(folder: &Path, index: usize, count: usize) -> PathBuf {
    let digits = count.saturating_sub(1).to_string().len().max(4);
    folder.join(format!("{index:0digits$}.png"))
}

/// What samples are written to, by the ending of its name.
enum Format {
    Grid,
    Folder,
    Npz,
    Tokens,
}

/// Samples on their way to a file or folder.
pub(crate) struct SampleWriter {
    path: PathBuf,
    format: Format,
    columns: usize,
    count: usize,
    labels: Vec<usize>,
    /// Of pictures that are not written yet; these become pictures only then, so that fifty
    /// thousand of them need no memory.
    tokens: Vec<Vec<CodebookIndex>>,
}

impl SampleWriter {
    /// Prepares for `count` samples, in a grid of `columns` where it is one.
    pub(crate) fn new(path: &Path, count: usize, columns: usize) -> Result<Self> {
        let format = match path.extension().map(|ending| ending.to_string_lossy().to_lowercase()) {
            None => Format::Folder,
            Some(ending) => match ending.as_str() {
                "png" => Format::Grid,
                "npz" => Format::Npz,
                "safetensors" => Format::Tokens,
                _ if path.is_dir() || path.to_string_lossy().ends_with('/') => Format::Folder,
                other => bail!(
                    "--out {}: `.{other}` is not written; name a .png, an .npz, a .safetensors or \
                     a folder",
                    path.display()
                ),
            },
        };
        if matches!(format, Format::Folder) {
            ensure!(!path.is_file(), "--out {}: a file is called so", path.display());
        } else if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            ensure!(parent.is_dir(), "--out {}: there is no such folder", path.display());
        }
        let path = path.to_owned();
        Ok(Self { path, format, columns, count, labels: Vec::new(), tokens: Vec::new() })
    }

    /// Whether a decoder is needed at all.
    pub(crate) fn needs_pictures(&self) -> bool {
        !matches!(self.format, Format::Tokens)
    }

    /// Takes the next sample.
    pub(crate) fn add(
        &mut self,
        label: usize,
        tokens: Vec<CodebookIndex>,
        decoding: Option<&Decoding>,
    ) -> Result<()> {
        let index = self.labels.len();
        self.labels.push(label);
        match (&self.format, decoding) {
            (Format::Folder, Some(decoding)) => {
                let picture = decoding.picture(&tokens)?;
                make_folder(&self.path)?;
                picture.write_png(numbered(&self.path, index, self.count))?;
            }
            _ => self.tokens.push(tokens),
        }
        Ok(())
    }

    /// Writes what is not written yet.
    pub(crate) fn finish(self, decoding: Option<&Decoding>) -> Result<()> {
        let picture = |tokens: &Vec<CodebookIndex>| {
            decoding.context("pictures need a decoder")?.picture(tokens)
        };
        match self.format {
            Format::Folder => Ok(()),
            Format::Tokens => token_file::write(&self.path, &self.tokens, Some(&self.labels)),
            Format::Grid => {
                let pictures: Vec<Picture> =
                    self.tokens.iter().map(picture).collect::<Result<_>>()?;
                let white = [255; 3];
                let gap = pictures.first().map_or(0, Picture::width) / 32;
                let grid = Picture::grid(&pictures, self.columns, gap, white)?;
                Ok(grid.write_png(&self.path)?)
            }
            Format::Npz => {
                let mut progress = Progress::new("decoding", self.tokens.len() as u64);
                let mut pictures = self.tokens.iter().enumerate().map(|(index, tokens)| {
                    progress.set(index as u64 + 1);
                    picture(tokens)
                });
                let first = pictures.next().context("there is nothing to write")??;
                let shape =
                    [self.count, first.height(), first.width(), 3].map(|extent| extent as u64);
                let values = std::iter::once(Ok(first)).chain(pictures);
                npz::write(&self.path, |arrays| {
                    let pieces = values.map(|picture| {
                        picture.map(|picture| picture.rgb().to_vec()).map_err(io::Error::other)
                    });
                    arrays.add_pieces("arr_0", &shape, pieces)
                })
                .with_context(|| format!("cannot write {}", self.path.display()))
            }
        }
    }
}
