//! Pictures, or their tokens, on their way to files.

use std::{
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use files::{
    npz,
    output::{self, OutputError},
};
use generator::GenerateError;
use pixels::Picture;
use tokens::CodebookIndex;

use crate::{Decode, Event, PipelineError, TokenFileError, token_file};

/// Why samples were not written.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The name has an ending of which nothing is known.
    #[error(
        "{}: `.{ending}` is not written; name a .png, an .npz, a .safetensors or a folder",
        path.display()
    )]
    Ending {
        /// What was named.
        path: PathBuf,
        /// Its ending.
        ending: String,
    },
    /// The name is nothing but an ending.
    #[error("{}: that is an ending without a name; write NAME{}", path.display(), path.display())]
    NoName {
        /// What was named.
        path: PathBuf,
    },
    /// The folder may not be written to.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Previews were to be written among other results.
    #[error(
        "{} is in the folder of the pictures, {}, which holds pictures alone; name another folder \
         for the previews",
        previews.display(), pictures.display()
    )]
    Previews {
        /// The folder for previews.
        previews: PathBuf,
        /// The folder of pictures.
        pictures: PathBuf,
    },
    /// The folder of the file to write does not exist.
    #[error("{}: there is no such folder", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The operating system refused to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A picture cannot be drawn.
    #[error(transparent)]
    Draw(#[from] GenerateError),
    /// A picture cannot be decoded.
    #[error(transparent)]
    Decode(#[from] PipelineError),
    /// A picture cannot be made or written.
    #[error(transparent)]
    Pixels(#[from] pixels::PixelsError),
    /// Tokens cannot be written.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// A grid cannot be made of the pictures.
    #[error("the grid cannot be made: {0}")]
    Grid(String),
    /// Pictures were asked for without a decoder.
    #[error("pictures need a decoder")]
    NoDecoder,
    /// The drawing ended before all pictures were drawn.
    #[error("fewer pictures were drawn than asked for")]
    TooFew,
}

/// What samples are written to, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// One PNG of all pictures.
    Grid,
    /// A PNG for each picture.
    Folder,
    /// `arr_0` as uint8 `[count, height, width, 3]`, as the ADM evaluator reads.
    Npz,
    /// `tokens` and `labels`.
    Tokens,
}

/// Makes one picture of many, or says why not.
pub type MakeGrid = Box<dyn Fn(&[Picture]) -> Result<Picture, String>>;

/// Writes samples to a `.png` (one grid), an `.npz`, a `.safetensors` (tokens) or a folder (PNG each).
pub struct SampleWriter {
    path: PathBuf,
    format: Format,
    columns: usize,
    count: usize,
    labels: Option<Vec<usize>>,
    grid: Option<MakeGrid>,
}

impl std::fmt::Debug for SampleWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, format, columns, count, .. } = self;
        let mut shown = formatter.debug_struct("SampleWriter");
        shown.field("path", path).field("format", format).field("columns", columns);
        shown.field("count", count).finish_non_exhaustive()
    }
}

/// A picture of the rows so far, in a folder, for each row that is drawn.
pub struct PreviewWriter<'a> {
    folder: PathBuf,
    decoder: &'a dyn Decode,
}

/// Samples that may wait to be decoded and written.
const WAITING: usize = 64;

impl<'a> PreviewWriter<'a> {
    /// Makes the folder. One that holds pictures is emptied first if it is to be replaced.
    ///
    /// # Errors
    /// If it cannot be made, holds something that is not to be replaced, or the decoder cannot decode
    /// the first rows of a picture.
    pub fn new(folder: &Path, decoder: &'a dyn Decode, replace: bool) -> Result<Self, SampleError> {
        if !decoder.decodes_rows() {
            return Err(PipelineError::NoPreviews { kind: decoder.kind() }.into());
        }
        check_pictures(folder, replace, &[])?;
        write_folder(folder, |_| Ok(()))?;
        Ok(Self { folder: folder.to_owned(), decoder })
    }

    /// Writes the rows of the picture with this number among `count`.
    fn write(
        &self,
        index: usize,
        count: usize,
        tokens: &[CodebookIndex],
    ) -> Result<(), SampleError> {
        let layout = self.decoder.config().layout();
        let rows = (1..=layout.rows()).find(|&rows| layout.len_of_rows(rows) == tokens.len());
        // The prefix alone shows nothing yet.
        let Some(rows) = rows else { return Ok(()) };
        let digits = layout.rows().to_string().len();
        let name = numbered(&self.folder, index, count).with_extension("");
        let name = format!("{}-{rows:0digits$}.png", name.display());
        Ok(self.decoder.decode(tokens)?.write_png(name)?)
    }
}

impl SampleWriter {
    /// Prepares for `count` samples, with labels where all have one, in a grid of `columns` where it is
    /// one. A folder that holds pictures is replaced as a whole if `replace` says so.
    ///
    /// # Errors
    /// If nothing can be written to a file or folder of this name.
    pub fn new(
        path: &Path,
        count: usize,
        labels: Option<Vec<usize>>,
        columns: usize,
        replace: bool,
    ) -> Result<Self, SampleError> {
        const ENDINGS: [&str; 3] = ["png", "npz", "safetensors"];
        if output::is_bare_ending(path, &ENDINGS) {
            return Err(SampleError::NoName { path: path.to_owned() });
        }
        let format = match &output::ending(path)[..] {
            "" => Format::Folder,
            "png" => Format::Grid,
            "npz" => Format::Npz,
            "safetensors" => Format::Tokens,
            _ if path.is_dir() || path.to_string_lossy().ends_with('/') => Format::Folder,
            other => {
                let ending = other.to_owned();
                return Err(SampleError::Ending { path: path.to_owned(), ending });
            }
        };
        if format == Format::Folder {
            check_pictures(path, replace, &[])?;
        } else if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
            && !parent.is_dir()
        {
            return Err(SampleError::NoFolder { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), format, columns, count, labels, grid: None })
    }

    /// Makes the grid with `grid` in place of [`Picture::grid`].
    #[must_use]
    pub fn with_grid(self, grid: MakeGrid) -> Self {
        Self { grid: Some(grid), ..self }
    }

    /// Whether one grid of all pictures is written.
    pub fn is_grid(&self) -> bool {
        self.format == Format::Grid
    }

    /// Whether a folder of pictures is written.
    pub fn is_folder(&self) -> bool {
        self.format == Format::Folder
    }

    /// Checks that previews would not stand among the pictures, where readers of the folder would take
    /// them for more of these.
    ///
    /// # Errors
    /// If they would.
    pub fn check_previews(&self, previews: &Path) -> Result<(), SampleError> {
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (own, theirs) = (whole(&self.path), whole(previews));
        if self.is_folder() && (theirs.starts_with(&own) || own.starts_with(&theirs)) {
            let (previews, pictures) = (previews.to_owned(), self.path.clone());
            return Err(SampleError::Previews { previews, pictures });
        }
        Ok(())
    }

    /// Whether a decoder is needed at all.
    pub fn needs_pictures(&self) -> bool {
        self.format != Format::Tokens
    }

    /// Pulls the pictures of a drawing, which must give them in order, and writes them. The drawing runs
    /// on a thread beside: the next pictures are drawn while these are decoded. Few wait at a time, so
    /// that fifty thousand need no memory.
    ///
    /// # Errors
    /// If a picture cannot be drawn, decoded or written, or there are fewer than labels.
    pub fn write(
        self,
        decoder: Option<&dyn Decode>,
        previews: Option<&PreviewWriter<'_>>,
        drawing: impl Iterator<Item = Event> + Send,
    ) -> Result<(), SampleError> {
        let (sender, receiver) = sync_channel(WAITING);
        thread::scope(|scope| {
            let drawer = scope.spawn(move || {
                for event in drawing {
                    // Nobody takes samples any more once one could not be written.
                    if sender.send(event).is_err() {
                        break;
                    }
                }
            });
            let written = self.receive(&receiver, decoder, previews);
            drop(receiver);
            drawer.join().unwrap_or_else(|panic| resume_unwind(panic));
            written
        })
    }

    fn receive(
        &self,
        receiver: &Receiver<Event>,
        decoder: Option<&dyn Decode>,
        previews: Option<&PreviewWriter<'_>>,
    ) -> Result<(), SampleError> {
        let count = self.count;
        let samples = (0..count).map(|_| {
            loop {
                match receiver.recv().map_err(|_| SampleError::TooFew)? {
                    Event::Finished { picture, tokens } => return Ok((picture, tokens)),
                    Event::Failed { error, .. } => return Err(error.into()),
                    Event::Row { picture, tokens } => {
                        if let Some(previews) = previews {
                            previews.write(picture, count, &tokens)?;
                        }
                    }
                    Event::Preview { .. } => {}
                }
            }
        });
        let decode = |tokens: &[CodebookIndex]| -> Result<Picture, SampleError> {
            Ok(decoder.ok_or(SampleError::NoDecoder)?.decode(tokens)?)
        };
        match self.format {
            Format::Folder => write_folder(&self.path, |folder| {
                for sample in samples {
                    let (index, tokens) = sample?;
                    decode(&tokens)?.write_png(numbered(folder, index, count))?;
                }
                Ok(())
            }),
            Format::Tokens => {
                let tokens: Vec<_> = samples
                    .map(|sample| sample.map(|(_, tokens)| tokens))
                    .collect::<Result<_, SampleError>>()?;
                Ok(token_file::write(&self.path, &tokens, self.labels.as_deref())?)
            }
            Format::Grid => {
                let pictures: Vec<Picture> =
                    samples.map(|sample| decode(&sample?.1)).collect::<Result<_, SampleError>>()?;
                let gap = pictures.first().map_or(0, Picture::width) / 32;
                let grid = match &self.grid {
                    Some(make) => make(&pictures).map_err(SampleError::Grid)?,
                    None => Picture::grid(&pictures, self.columns, gap, [255; 3])?,
                };
                Ok(grid.write_png(&self.path)?)
            }
            Format::Npz => {
                let image = decoder.ok_or(SampleError::NoDecoder)?.config().image;
                let shape = [count, image.height, image.width, 3].map(|extent| extent as u64);
                let mut stopped = None;
                let written = npz::write(&self.path, |arrays| {
                    let pieces = samples.map(|sample| {
                        let rgb = sample.and_then(|(_, tokens)| Ok(decode(&tokens)?.into_rgb()));
                        rgb.map_err(|error| {
                            stopped = Some(error);
                            io::Error::other("there are no more samples")
                        })
                    });
                    arrays.add_pieces("arr_0", &shape, pieces)
                });
                let write = |source| SampleError::Write { path: self.path.clone(), source };
                stopped.map_or_else(|| written.map_err(write), Err)
            }
        }
    }
}

/// Checks that a folder of pictures may be written: nothing is there, or an empty folder, or, if it is
/// to be replaced, one of pictures of this program without any of the `inputs`.
///
/// # Errors
/// If not.
pub fn check_pictures(folder: &Path, replace: bool, inputs: &[PathBuf]) -> Result<(), SampleError> {
    Ok(output::check_folder(folder, replace, &output::is_of_pictures, inputs)?)
}

/// Fills a folder beside its place and puts it there when it is whole, in the place of whatever is
/// there.
///
/// # Errors
/// Those of `fill`, and if the operating system refuses; then nothing is left behind, and an older
/// folder stays.
pub fn write_folder(
    folder: &Path,
    fill: impl FnOnce(&Path) -> Result<(), SampleError>,
) -> Result<(), SampleError> {
    /// Errors of the folder itself come without its name.
    struct Filling(SampleError);

    impl From<io::Error> for Filling {
        fn from(source: io::Error) -> Self {
            Self(SampleError::Write { path: PathBuf::new(), source })
        }
    }

    let filled = files::replace_folder(folder, |new| fill(new).map_err(Filling));
    filled.map_err(|Filling(error)| match error {
        SampleError::Write { path, source } if path.as_os_str().is_empty() => {
            SampleError::Write { path: folder.to_owned(), source }
        }
        error => error,
    })
}

/// Makes the folder that pictures are written to.
///
/// # Errors
/// If the operating system refuses.
pub fn make_folder(folder: &Path) -> Result<(), SampleError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| SampleError::Write { path: folder.to_owned(), source })
}

/// The file of the picture with this number among `count`, in a folder of pictures.
pub fn numbered(folder: &Path, index: usize, count: usize) -> PathBuf {
    let digits = count.saturating_sub(1).to_string().len().max(4);
    folder.join(format!("{index:0digits$}.png"))
}
