//! Pictures on their way into and out of a model.

use std::{
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use files::npz;
use pixels::{Picture, crop::Crop};
use tokenizer::ImageSize;
use tokens::{CodebookIndex, TokenLayout};

use crate::{
    args::CropArgs,
    compute::{Decoding, Drawn},
    token_file,
};

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
    /// The class of each sample.
    labels: Vec<usize>,
}

/// What is written of pictures while they are drawn.
pub(crate) struct Previews {
    folder: PathBuf,
    decoding: Decoding,
    layout: TokenLayout,
}

impl Previews {
    /// Pictures of the rows so far, for a folder.
    pub(crate) fn new(folder: &Path, decoding: Decoding, layout: TokenLayout) -> Result<Self> {
        make_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), decoding, layout })
    }

    /// Writes the rows of the picture with this number among `count`.
    fn write(&self, index: usize, count: usize, tokens: &[CodebookIndex]) -> Result<()> {
        let rows =
            (1..=self.layout.rows()).find(|&rows| self.layout.len_of_rows(rows) == tokens.len());
        // The prefix alone shows nothing yet.
        let Some(rows) = rows else { return Ok(()) };
        let last = self.layout.rows().to_string().len();
        let name = numbered(&self.folder, index, count).with_extension("");
        let name = format!("{}-{rows:0last$}.png", name.display());
        Ok(self.decoding.picture(tokens)?.write_png(name)?)
    }
}

/// Samples that may wait to be decoded and written.
const WAITING: usize = 64;

impl SampleWriter {
    /// Prepares for samples of these classes, in a grid of `columns` where it is one.
    pub(crate) fn new(path: &Path, labels: Vec<usize>, columns: usize) -> Result<Self> {
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
        Ok(Self { path: path.to_owned(), format, columns, labels })
    }

    /// Whether a decoder is needed at all.
    pub(crate) fn needs_pictures(&self) -> bool {
        !matches!(self.format, Format::Tokens)
    }

    /// Calls `draw` and writes the pictures that it hands on, in order, on a thread beside: the next
    /// ones are drawn while these are decoded. Few wait at a time, so that fifty thousand need no
    /// memory.
    ///
    /// # Errors
    /// If `draw` fails, hands on too few, or they cannot be decoded or written.
    pub(crate) fn write(
        self,
        decoding: Option<&Decoding>,
        previews: Option<&Previews>,
        draw: impl FnOnce(&mut dyn FnMut(Drawn) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let (sender, receiver) = sync_channel(WAITING);
        thread::scope(|scope| {
            let writer = scope.spawn(move || self.receive(&receiver, decoding, previews));
            let drawn =
                draw(&mut |drawn| sender.send(drawn).context("nobody takes samples any more"));
            drop(sender);
            let written = writer.join().unwrap_or_else(|panic| resume_unwind(panic));
            match (drawn, written) {
                // Who writes says what is wrong; but that there was too little to write follows
                // from another error.
                (Err(error), Ok(()) | Err(Stopped::TooFew)) | (_, Err(Stopped::By(error))) => {
                    Err(error)
                }
                (Ok(()), Err(Stopped::TooFew)) => bail!("fewer pictures were drawn than asked for"),
                (Ok(()), Ok(())) => Ok(()),
            }
        })
    }

    fn receive(
        self,
        receiver: &Receiver<Drawn>,
        decoding: Option<&Decoding>,
        previews: Option<&Previews>,
    ) -> Result<(), Stopped> {
        let count = self.labels.len();
        // Every sample, or why there are no more.
        let samples = (0..count).map(|_| {
            loop {
                match receiver.recv() {
                    Ok(Drawn::Picture { index, tokens }) => return Ok((index, tokens)),
                    Ok(Drawn::Row { index, tokens }) => {
                        if let Some(previews) = previews {
                            previews.write(index, count, &tokens)?;
                        }
                    }
                    Err(_) => return Err(Stopped::TooFew),
                }
            }
        });
        let picture =
            |tokens: &[CodebookIndex]| decoding.context("pictures need a decoder")?.picture(tokens);
        match self.format {
            Format::Folder => {
                for sample in samples {
                    let (index, tokens) = sample?;
                    let picture = picture(&tokens)?;
                    make_folder(&self.path)?;
                    picture
                        .write_png(numbered(&self.path, index, count))
                        .map_err(anyhow::Error::from)?;
                }
                Ok(())
            }
            Format::Tokens => {
                let tokens: Vec<_> = samples
                    .map(|sample| sample.map(|(_, tokens)| tokens))
                    .collect::<Result<_, Stopped>>()?;
                Ok(token_file::write(&self.path, &tokens, Some(&self.labels))?)
            }
            Format::Grid => {
                let pictures: Vec<Picture> = samples
                    .map(|sample| Ok(picture(&sample?.1)?))
                    .collect::<Result<_, Stopped>>()?;
                let gap = pictures.first().map_or(0, Picture::width) / 32;
                let grid = Picture::grid(&pictures, self.columns, gap, [255; 3])
                    .map_err(anyhow::Error::from)?;
                Ok(grid.write_png(&self.path).map_err(anyhow::Error::from)?)
            }
            Format::Npz => {
                let image = decoding.context("pictures need a decoder")?.image();
                let shape = [count, image.height, image.width, 3].map(|extent| extent as u64);
                let mut stopped = None;
                let written = npz::write(&self.path, |arrays| {
                    let pieces = samples.map(|sample| {
                        let rgb = sample.and_then(|(_, tokens)| Ok(picture(&tokens)?.into_rgb()));
                        rgb.map_err(|error| {
                            stopped = Some(error);
                            io::Error::other("there are no more samples")
                        })
                    });
                    arrays.add_pieces("arr_0", &shape, pieces)
                });
                match stopped {
                    Some(error) => Err(error),
                    None => {
                        Ok(written
                            .with_context(|| format!("cannot write {}", self.path.display()))?)
                    }
                }
            }
        }
    }
}

/// Why samples were not written.
enum Stopped {
    /// There were fewer than announced.
    TooFew,
    By(anyhow::Error),
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::By(error)
    }
}
