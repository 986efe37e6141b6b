//! Reading a model: its configuration, its classes, and its weights by name, from a folder or from
//! the same files in memory.
//!
//! [`Model::named`] opens what a person names, [`Model::read`] a folder, and [`Model::from_bytes`]
//! files that were downloaded; a model from bytes never touches a disk. Weights are read on demand.
//!
//! ```no_run
//! use model::Model;
//!
//! let model = Model::named("mini", &files::Home::find(None))?;
//! println!("{} classes", model.classes.len());
//! for (name, tensor) in model.tokenizer_tensors()? {
//!     println!("{name} {:?}", tensor.shape);
//! }
//! # Ok::<(), model::ModelError>(())
//! ```
//!
//! Without features the crate needs neither Burn nor a network and builds for
//! `wasm32-unknown-unknown`. The feature `reference` loads a model into the modules on Burn, `write`
//! writes model folders. A folder holds:
//!
//! | file | what |
//! | --- | --- |
//! | `config.json` | format version, architectures, sampling defaults: [`ModelConfig`] |
//! | `tokenizer.safetensors` | `encoder.*`, `quantizer.*`, `causal_decoder.*` and / or `bidirectional_decoder.*` |
//! | `generator.safetensors` | the generator, where there is one |
//! | `classes.json` | names of its classes, a list in the order of their labels |
//! | `language.safetensors` | instead of a generator, a language model that reads prompts (names: `language`) |
//! | `image_side.safetensors` | its adaptor and head for codes |
//! | `text_tokenizer.json` | how its prompts become ids: Hugging Face's `tokenizer.json` |
//! | `README.md` | for people |

mod classes;
mod config;
#[cfg(feature = "write")]
mod contents;
mod digest;
mod error;
pub mod named;
#[cfg(feature = "reference")]
mod reference;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use files::{FileError, TensorMap, safetensors::TensorFile};
use generator::GeneratorConfig;
use language::{LanguageConfig, Prompts, TextTokenizer};
use serde::Deserialize;

pub use classes::{ClassNames, Resolved, UnknownClass, composed};
pub use config::{FORMAT, ModelConfig};
#[cfg(feature = "write")]
pub use contents::{ModelContents, TextModelContents, check_free, write_tokenizer};
pub use digest::{tensors_digest, tokenizer_digest};
pub use error::ModelError;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.safetensors";
const GENERATOR: &str = "generator.safetensors";
const CLASSES: &str = "classes.json";
const LANGUAGE: &str = "language.safetensors";
const IMAGE_SIDE: &str = "image_side.safetensors";
const TEXT_TOKENIZER: &str = "text_tokenizer.json";
#[cfg(feature = "write")]
const README: &str = "README.md";
/// Names of the files of a model folder.
#[cfg(feature = "write")]
pub const FILES: [&str; 8] =
    [CONFIG, TOKENIZER, GENERATOR, CLASSES, LANGUAGE, IMAGE_SIDE, TEXT_TOKENIZER, README];

/// A model whose configuration has been read. Weights are read on demand.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    source: Source,
    /// Architectures and sampling defaults.
    pub config: ModelConfig,
    /// Names of the generator's classes; empty without a generator.
    pub classes: ClassNames,
}

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Folder(PathBuf),
    Memory {
        name: PathBuf,
        tokenizer: Arc<[u8]>,
        generator: Option<Arc<[u8]>>,
        text: Option<TextBytes>,
    },
}

/// The files of a model folder, in memory.
#[derive(Debug, Clone)]
pub struct ModelBytes {
    /// What errors call the model.
    pub name: String,
    /// `config.json`.
    pub config: String,
    /// `classes.json`; not used without a generator.
    pub classes: Option<String>,
    /// `tokenizer.safetensors`.
    pub tokenizer: Arc<[u8]>,
    /// `generator.safetensors`, exactly if the model has a generator.
    pub generator: Option<Arc<[u8]>>,
    /// The files of a language model, exactly if the model has one.
    pub text: Option<TextBytes>,
}

/// The files of a language model, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct TextBytes {
    /// `language.safetensors`.
    pub language: Arc<[u8]>,
    /// `image_side.safetensors`.
    pub image_side: Arc<[u8]>,
    /// `text_tokenizer.json`.
    pub text_tokenizer: Arc<str>,
}

impl Model {
    /// Reads configuration and classes of a model folder and checks that its other files exist.
    ///
    /// # Errors
    /// If a file is missing, `config.json` has an unknown or missing key or contradicts itself,
    /// or the classes are not as many as the generator has.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let text = |file: &'static str| match fs::read_to_string(path.join(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(source) => Err(FileError::Read { path: path.join(file), source }),
            Ok(text) => Ok(Some(text)),
        };
        let exists = |file: &'static str| path.join(file).is_file();
        let (config, classes) = check(path, &text(CONFIG)?, || text(CLASSES), exists)?;
        Ok(Self::in_folder(path, config, classes))
    }

    /// Reads configuration and classes of a model whose files are in memory.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_bytes(bytes: ModelBytes) -> Result<Self, ModelError> {
        let ModelBytes { name, config, classes, tokenizer, generator, text } = bytes;
        let name = PathBuf::from(name);
        let exists = |file: &'static str| match file {
            GENERATOR => generator.is_some(),
            LANGUAGE | IMAGE_SIDE | TEXT_TOKENIZER => text.is_some(),
            _ => true,
        };
        let (config, classes) = check(&name, &Some(config), || Ok(classes), exists)?;
        Ok(Self { source: Source::Memory { name, tokenizer, generator, text }, config, classes })
    }

    pub(crate) fn in_folder(path: &Path, config: ModelConfig, classes: ClassNames) -> Self {
        Self { source: Source::Folder(path.to_owned()), config, classes }
    }

    /// The model's folder, or what it is called if it is in memory.
    pub fn path(&self) -> &Path {
        match &self.source {
            Source::Folder(path) => path,
            Source::Memory { name, .. } => name,
        }
    }

    /// The architecture of the generator.
    ///
    /// # Errors
    /// If the model has none.
    pub fn generator_config(&self) -> Result<&GeneratorConfig, ModelError> {
        let path = || self.path().to_owned();
        match (&self.config.generator, &self.config.language) {
            (Some(generator), _) => Ok(generator),
            (None, Some(_)) => Err(ModelError::NoClasses { path: path() }),
            (None, None) => Err(ModelError::NoGenerator { path: path() }),
        }
    }

    /// The architecture of the language model.
    ///
    /// # Errors
    /// If the model has none.
    pub fn language_config(&self) -> Result<&LanguageConfig, ModelError> {
        self.config.language.as_ref().ok_or_else(|| ModelError::NoPrompts {
            path: self.path().to_owned(),
            has_classes: self.config.generator.is_some(),
        })
    }

    /// Whether the model draws: classes, or what a prompt says.
    pub fn draws(&self) -> bool {
        self.config.generator.is_some() || self.config.language.is_some()
    }

    /// How prompts for the model are written.
    ///
    /// # Errors
    /// If the model reads none, or its text tokenizer is missing, damaged or not that of its language
    /// model.
    pub fn prompts(&self) -> Result<Prompts, ModelError> {
        let config = self.language_config()?;
        let path = self.path().join(TEXT_TOKENIZER);
        let tokenizer = match &self.source {
            Source::Folder(_) => TextTokenizer::read(&path)?,
            Source::Memory { .. } => TextTokenizer::parse(&path, &self.text_tokenizer_json()?)?,
        };
        let (largest, rows) = (tokenizer.largest_id(), config.vocabulary);
        if largest >= rows {
            let what =
                format!("has ids up to {largest}, and the language model's embedding {rows} rows");
            return Err(ModelError::Config { path, what });
        }
        Ok(Prompts::new(Arc::new(tokenizer), config))
    }

    /// The content of the text tokenizer's file.
    ///
    /// # Errors
    /// If the model reads no prompts, or the file cannot be read.
    pub fn text_tokenizer_json(&self) -> Result<Arc<str>, ModelError> {
        self.language_config()?;
        match &self.source {
            Source::Folder(folder) => {
                let path = folder.join(TEXT_TOKENIZER);
                let text = fs::read_to_string(&path);
                Ok(text.map_err(|source| FileError::Read { path, source })?.into())
            }
            Source::Memory { text, .. } => Ok(Arc::clone(&self.text_bytes(text)?.text_tokenizer)),
        }
    }

    /// The file of the language model's weights.
    ///
    /// # Errors
    /// If the model has none, or it cannot be read.
    pub fn language_file(&self) -> Result<TensorFile, ModelError> {
        self.text_file(LANGUAGE, |text| &text.language)
    }

    /// The file of the weights of the language model's image side.
    ///
    /// # Errors
    /// If the model has none, or it cannot be read.
    pub fn image_side_file(&self) -> Result<TensorFile, ModelError> {
        self.text_file(IMAGE_SIDE, |text| &text.image_side)
    }

    fn text_file(
        &self,
        file: &'static str,
        of: impl Fn(&TextBytes) -> &Arc<[u8]>,
    ) -> Result<TensorFile, ModelError> {
        self.language_config()?;
        Ok(match &self.source {
            Source::Folder(folder) => TensorFile::open(folder.join(file))?,
            Source::Memory { name, text, .. } => {
                TensorFile::from_bytes(name.join(file), Arc::clone(of(self.text_bytes(text)?)))
            }
        })
    }

    fn text_bytes<'a>(&self, text: &'a Option<TextBytes>) -> Result<&'a TextBytes, ModelError> {
        let missing = || ModelError::NoPrompts { path: self.path().to_owned(), has_classes: false };
        text.as_ref().ok_or_else(missing)
    }

    /// The file of the tokenizer's weights.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn tokenizer_file(&self) -> Result<TensorFile, ModelError> {
        Ok(match &self.source {
            Source::Folder(path) => TensorFile::open(path.join(TOKENIZER))?,
            Source::Memory { name, tokenizer, .. } => {
                TensorFile::from_bytes(name.join(TOKENIZER), Arc::clone(tokenizer))
            }
        })
    }

    /// The file of the generator's weights.
    ///
    /// # Errors
    /// If the model has none, or it cannot be read.
    pub fn generator_file(&self) -> Result<TensorFile, ModelError> {
        self.generator_config()?;
        Ok(match &self.source {
            Source::Folder(path) => TensorFile::open(path.join(GENERATOR))?,
            Source::Memory { name, generator, .. } => {
                let missing = ModelError::NoGenerator { path: name.clone() };
                let bytes = generator.as_ref().ok_or(missing)?;
                TensorFile::from_bytes(name.join(GENERATOR), Arc::clone(bytes))
            }
        })
    }

    /// Reads the headers of the files of weights, which a file that is cut does not fit.
    ///
    /// # Errors
    /// If a file is missing or damaged.
    pub fn check_files(&self) -> Result<(), ModelError> {
        self.tokenizer_file()?.views()?;
        if self.config.generator.is_some() {
            self.generator_file()?.views()?;
        }
        if self.config.language.is_some() {
            self.language_file()?.views()?;
            self.image_side_file()?.views()?;
            self.prompts()?;
        }
        Ok(())
    }

    /// The tokenizer's parameters by name; whether they are those of the architecture is not checked.
    ///
    /// # Errors
    /// If the file is missing or damaged, or holds a value that is no finite number.
    pub fn tokenizer_tensors(&self) -> Result<TensorMap, ModelError> {
        finite(&self.tokenizer_file()?)
    }

    /// The generator's parameters by name; whether they are those of the architecture is not checked.
    ///
    /// # Errors
    /// If the model has none, or the file is missing or damaged, or holds a value that is no finite
    /// number.
    pub fn generator_tensors(&self) -> Result<TensorMap, ModelError> {
        finite(&self.generator_file()?)
    }
}

impl Model {
    /// The language model's parameters by name; whether they are those of the architecture is not checked.
    ///
    /// # Errors
    /// If the model has none, or the file is missing or damaged, or holds a value that is no finite
    /// number.
    pub fn language_tensors(&self) -> Result<TensorMap, ModelError> {
        finite(&self.language_file()?)
    }

    /// The parameters of the image side by name; whether they are those of the architecture is not
    /// checked.
    ///
    /// # Errors
    /// As [`language_tensors`](Self::language_tensors).
    pub fn image_side_tensors(&self) -> Result<TensorMap, ModelError> {
        finite(&self.image_side_file()?)
    }
}

/// All tensors of a file.
///
/// # Errors
/// If it is damaged, or holds a value that is no finite number.
fn finite(file: &TensorFile) -> Result<TensorMap, ModelError> {
    let tensors = file.tensors()?;
    for (name, tensor) in &tensors {
        files::safetensors::check_finite(file.path(), name, &tensor.values)?;
    }
    Ok(tensors)
}

/// Reads configuration and classes, and checks that they fit each other and the files that exist.
fn check(
    path: &Path,
    config: &Option<String>,
    classes: impl FnOnce() -> Result<Option<String>, FileError>,
    exists: impl Fn(&'static str) -> bool,
) -> Result<(ModelConfig, ClassNames), ModelError> {
    let missing = |missing| ModelError::NoModel { path: path.to_owned(), missing };
    let wrong = |file: &str, what: String| ModelError::Config { path: path.join(file), what };
    let text = config.as_ref().ok_or_else(|| missing(CONFIG))?;
    // The version first: other keys may mean something else in another one.
    #[derive(Deserialize)]
    struct Version {
        format: Option<u32>,
    }
    let version: Version =
        serde_json::from_str(text).map_err(|error| wrong(CONFIG, error.to_string()))?;
    match version.format {
        Some(FORMAT) => {}
        Some(format) => {
            return Err(wrong(
                CONFIG,
                format!("`format` is {format}, this version of alitok reads {FORMAT}"),
            ));
        }
        None => return Err(wrong(CONFIG, format!("`format` is missing (now {FORMAT})"))),
    }
    let config: ModelConfig =
        serde_json::from_str(text).map_err(|error| wrong(CONFIG, error.to_string()))?;
    if let Some(what) = config.contradiction() {
        return Err(wrong(CONFIG, what));
    }
    if !exists(TOKENIZER) {
        return Err(missing(TOKENIZER));
    }
    match config.language {
        Some(_) => {
            if let Some(file) =
                [LANGUAGE, IMAGE_SIDE, TEXT_TOKENIZER].into_iter().find(|&file| !exists(file))
            {
                return Err(missing(file));
            }
        }
        None if exists(LANGUAGE) => {
            return Err(wrong(
                CONFIG,
                format!("describes no `language`, but there is a {LANGUAGE}; remove it"),
            ));
        }
        None => {}
    }
    let Some(generator) = &config.generator else {
        if exists(GENERATOR) {
            return Err(wrong(
                CONFIG,
                format!("describes no `generator`, but there is a {GENERATOR}; remove it"),
            ));
        }
        return Ok((config, ClassNames::default()));
    };
    if !exists(GENERATOR) {
        return Err(missing(GENERATOR));
    }
    let classes = classes()?.ok_or_else(|| missing(CLASSES))?;
    let classes: ClassNames = serde_json::from_str(&classes)
        .map_err(|error| wrong(CLASSES, format!("should be a list of names: {error}")))?;
    if classes.len() != generator.classes {
        let (names, known) = (classes.len(), generator.classes);
        return Err(wrong(CLASSES, format!("has {names} names for {known} classes")));
    }
    Ok((config, classes))
}
