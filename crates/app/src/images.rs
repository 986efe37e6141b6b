//! Pictures on their way into and out of a model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use pixels::{Picture, crop::Crop};
use tokenizer::{FrozenEncoder, ImageSize, TokenizerConfig};
use tokens::CodebookIndex;

use crate::{args::CropArgs, model::Decoding, npz, token_file};

/// Reads a picture at a tokenizer's size.
pub(crate) fn read(path: &Path, image: ImageSize, crop: &CropArgs) -> Result<Picture> {
    let crop = if crop.no_crop { Crop::Never } else { Crop::Center };
    Ok(crop.fit(Picture::read(path)?, image.width, image.height, &path.display().to_string())?)
}

/// The tokens of a picture at the tokenizer's size.
pub(crate) fn encode(encoder: &FrozenEncoder, picture: &Picture) -> Vec<CodebookIndex> {
    encoder.encode_picture(picture.to_unit_planes())
}

impl Decoding {
    /// The picture of tokens.
    pub(crate) fn picture(&self, tokens: &[CodebookIndex]) -> Result<Picture> {
        let ImageSize { height, width } = self.tokenizer.config().image;
        let planes = self.tokenizer.decode_picture(tokens, self.kind)?;
        Ok(Picture::from_unit_planes(width, height, &planes)?)
    }
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
    pictures: Vec<Picture>,
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
        Ok(Self {
            path: path.to_owned(),
            format,
            columns,
            count,
            labels: Vec::new(),
            pictures: Vec::new(),
            tokens: Vec::new(),
        })
    }

    /// Takes the next sample.
    pub(crate) fn add(
        &mut self,
        label: usize,
        tokens: Vec<CodebookIndex>,
        decoding: &Decoding,
    ) -> Result<()> {
        let index = self.labels.len();
        self.labels.push(label);
        match self.format {
            Format::Tokens => self.tokens.push(tokens),
            Format::Grid | Format::Npz => self.pictures.push(decoding.picture(&tokens)?),
            Format::Folder => {
                let picture = decoding.picture(&tokens)?;
                make_folder(&self.path)?;
                picture.write_png(numbered(&self.path, index, self.count))?;
            }
        }
        Ok(())
    }

    /// Writes what is not written yet.
    pub(crate) fn finish(self, config: &TokenizerConfig) -> Result<()> {
        match self.format {
            Format::Folder => Ok(()),
            Format::Tokens => token_file::write(&self.path, &self.tokens, Some(&self.labels)),
            Format::Grid => {
                let white = [255; 3];
                let gap = config.image.width / 32;
                let grid = Picture::grid(&self.pictures, self.columns, gap, white)?;
                Ok(grid.write_png(&self.path)?)
            }
            Format::Npz => {
                let ImageSize { height, width } = config.image;
                let shape = [self.pictures.len(), height, width, 3].map(|extent| extent as u64);
                let values = self.pictures.iter().flat_map(|picture| picture.rgb()).copied();
                npz::write(&self.path, |arrays| arrays.add("arr_0", &shape, values))
            }
        }
    }
}
