//! A model on disk: a folder that says all about itself.
//!
//! | file | what |
//! | --- | --- |
//! | `config.json` | format version, architectures, sampling defaults: [`ModelConfig`] |
//! | `tokenizer.safetensors` | `encoder.*`, `quantizer.*`, `causal_decoder.*` and / or `bidirectional_decoder.*` |
//! | `generator.safetensors` | the generator, where there is one |
//! | `classes.json` | names of its classes, a list in the order of their labels |
//! | `README.md` | for people |

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use generator::{Generator, GeneratorConfig, SamplingConfig};
use layers::parameters::{HostTensor, ParameterError, TensorMap, load};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokenizer::{Tokenizer, TokenizerConfig};
use tokens::files;

use crate::{
    classes::ClassNames,
    error::FileError,
    released::list,
    safetensors_file::{self, Precision, StringMetadata},
};

/// Version of the format that this crate reads and writes.
pub const FORMAT: u32 = 1;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.safetensors";
const GENERATOR: &str = "generator.safetensors";
const CLASSES: &str = "classes.json";
const README: &str = "README.md";
const FILES: [&str; 5] = [CONFIG, TOKENIZER, GENERATOR, CLASSES, README];

/// The content of `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of the folder's format, [`FORMAT`].
    pub format: u32,
    /// Architecture of the tokenizer.
    pub tokenizer: TokenizerConfig,
    /// Architecture of the generator, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<GeneratorConfig>,
    /// How to sample unless told otherwise.
    #[serde(default)]
    pub sampling: SamplingConfig,
}

impl ModelConfig {
    /// A model of these architectures, sampled as it learned: without guidance.
    pub fn new(tokenizer: TokenizerConfig, generator: Option<GeneratorConfig>) -> Self {
        Self { format: FORMAT, tokenizer, generator, sampling: SamplingConfig::default() }
    }

    /// What contradicts itself in this configuration.
    fn contradiction(&self) -> Option<String> {
        if let Err(error) = self.tokenizer.validate() {
            return Some(format!("tokenizer: {error}"));
        }
        if self.tokenizer.best_decoder().is_none() {
            return Some("the tokenizer has no decoder".to_owned());
        }
        if let Some(generator) = &self.generator {
            if let Err(error) = generator.validate() {
                return Some(error.to_string());
            }
            if generator.layout != self.tokenizer.layout() {
                return Some(format!(
                    "the generator's tokens ({:?}) are not the tokenizer's ({:?})",
                    generator.layout,
                    self.tokenizer.layout()
                ));
            }
            if generator.codes != self.tokenizer.codes {
                return Some(format!(
                    "the generator knows {} codes, the tokenizer {}",
                    generator.codes, self.tokenizer.codes
                ));
            }
        }
        self.sampling.validate().err().map(|error| format!("sampling: {error}"))
    }
}

/// A model folder that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelFolderError {
    /// One of its files could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such folder, or it holds no model.
    #[error(
        "`{}` is no model folder: it has no `{missing}`. A model folder holds {CONFIG}, \
         {TOKENIZER} and, with a generator, {GENERATOR} and {CLASSES}; `alitok import` and \
         `alitok train` make one",
        path.display()
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// The file that is missing.
        missing: &'static str,
    },
    /// A JSON file does not say what it should.
    #[error("`{}`: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tensors are not those of the architecture.
    #[error(
        "`{}` does not hold the weights of the architecture in {CONFIG}: {}",
        path.display(), list(problems)
    )]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Each tensor that does not fit.
        problems: Vec<ParameterError>,
    },
    /// The folder to write to holds something else.
    #[error(
        "`{}` is not a model folder (it holds `{entry}`) and is not overwritten; choose another \
         folder or empty this one",
        path.display()
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// One thing in it that is no part of a model.
        entry: String,
    },
    /// The model to write contradicts itself.
    #[error("this model cannot be written: {0}")]
    Contradiction(String),
    /// The model has no generator.
    #[error("the model `{}` has no generator; import or train one", path.display())]
    NoGenerator {
        /// The folder.
        path: PathBuf,
    },
}

/// A model folder whose configuration has been read. Weights are read on demand.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Architectures and sampling defaults.
    pub config: ModelConfig,
    /// Names of the generator's classes; empty without a generator.
    pub classes: ClassNames,
}

impl ModelFolder {
    /// Reads configuration and classes of a model folder and checks that its other files exist.
    ///
    /// # Errors
    /// If a file is missing, `config.json` has an unknown or missing key or contradicts itself,
    /// or the classes are not as many as the generator has.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ModelFolderError> {
        let path = path.as_ref();
        let missing = |missing| ModelFolderError::NoModel { path: path.to_owned(), missing };
        if !path.join(CONFIG).is_file() {
            return Err(missing(CONFIG));
        }
        let wrong =
            |file: &str, what: String| ModelFolderError::Config { path: path.join(file), what };
        let text = read_text(&path.join(CONFIG))?;
        // The version first: other keys may mean something else in another one.
        #[derive(Deserialize)]
        struct Version {
            format: Option<u32>,
        }
        let version: Version =
            serde_json::from_str(&text).map_err(|error| wrong(CONFIG, error.to_string()))?;
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
            serde_json::from_str(&text).map_err(|error| wrong(CONFIG, error.to_string()))?;
        if let Some(what) = config.contradiction() {
            return Err(wrong(CONFIG, what));
        }
        if !path.join(TOKENIZER).is_file() {
            return Err(missing(TOKENIZER));
        }
        let mut classes = ClassNames::default();
        if let Some(generator) = &config.generator {
            for file in [GENERATOR, CLASSES] {
                if !path.join(file).is_file() {
                    return Err(missing(file));
                }
            }
            classes = serde_json::from_str(&read_text(&path.join(CLASSES))?)
                .map_err(|error| wrong(CLASSES, format!("should be a list of names: {error}")))?;
            if classes.len() != generator.classes {
                let (names, known) = (classes.len(), generator.classes);
                return Err(wrong(CLASSES, format!("has {names} names for {known} classes")));
            }
        } else if path.join(GENERATOR).exists() {
            return Err(wrong(
                CONFIG,
                format!("describes no `generator`, but there is a {GENERATOR}; remove it"),
            ));
        }
        Ok(Self { path: path.to_owned(), config, classes })
    }

    /// The tokenizer, with every decoder that the model has.
    ///
    /// # Errors
    /// If the file is damaged, or a tensor is missing, superfluous or mis-shaped.
    pub fn tokenizer(&self, device: &Device) -> Result<Tokenizer, ModelFolderError> {
        let tokenizer = self.config.tokenizer.build(device).map_err(|error| self.wrong(&error))?;
        load(tokenizer, self.tokenizer_tensors()?)
            .map_err(|problems| self.unfit(TOKENIZER, problems))
    }

    /// The generator.
    ///
    /// # Errors
    /// If the model has none, the file is damaged, or a tensor is missing, superfluous or
    /// mis-shaped.
    pub fn generator(&self, device: &Device) -> Result<Generator, ModelFolderError> {
        let config = self.generator_config()?;
        let generator = config.build(device).map_err(|error| self.wrong(&error))?;
        load(generator, self.generator_tensors()?)
            .map_err(|problems| self.unfit(GENERATOR, problems))
    }

    /// The architecture of the generator.
    ///
    /// # Errors
    /// If the model has none.
    pub fn generator_config(&self) -> Result<&GeneratorConfig, ModelFolderError> {
        self.config
            .generator
            .as_ref()
            .ok_or_else(|| ModelFolderError::NoGenerator { path: self.path.clone() })
    }

    /// Where the tokenizer's weights are.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.path.join(TOKENIZER)
    }

    /// Where the generator's weights are, if there is one.
    pub fn generator_path(&self) -> PathBuf {
        self.path.join(GENERATOR)
    }

    /// The tokenizer's parameters by name, unchecked.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub fn tokenizer_tensors(&self) -> Result<TensorMap, ModelFolderError> {
        Ok(safetensors_file::read(self.path.join(TOKENIZER))?)
    }

    /// The generator's parameters by name, unchecked.
    ///
    /// # Errors
    /// If the model has none, or the file is missing or damaged.
    pub fn generator_tensors(&self) -> Result<TensorMap, ModelFolderError> {
        self.generator_config()?;
        Ok(safetensors_file::read(self.path.join(GENERATOR))?)
    }

    fn wrong(&self, error: &dyn std::error::Error) -> ModelFolderError {
        ModelFolderError::Config { path: self.path.join(CONFIG), what: error.to_string() }
    }

    fn unfit(&self, file: &str, problems: Vec<ParameterError>) -> ModelFolderError {
        ModelFolderError::Tensors { path: self.path.join(file), problems }
    }
}

/// All that a model folder holds, to be written.
#[derive(Debug, Clone)]
pub struct ModelContents<'a> {
    /// Architectures and sampling defaults.
    pub config: &'a ModelConfig,
    /// Names of the generator's classes; not used without one.
    pub classes: &'a ClassNames,
    /// The tokenizer's parameters under our names.
    pub tokenizer: &'a TensorMap,
    /// The generator's parameters, exactly if the config has a generator.
    pub generator: Option<&'a TensorMap>,
    /// How weights are stored.
    pub precision: Precision,
    /// Text of the README; `None` for a description of the architecture.
    pub readme: Option<&'a str>,
}

impl ModelContents<'_> {
    /// Writes the folder beside `path`, syncs it and puts it into place; equal contents make equal
    /// bytes. An older model at `path` is there, whole, until the new one is.
    ///
    /// # Errors
    /// If `path` holds anything but a model, the contents contradict each other, or the operating
    /// system refuses. Then nothing is left behind and an older model stays.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<ModelFolder, ModelFolderError> {
        let path = path.as_ref();
        if let Some(what) = self.contradiction() {
            return Err(ModelFolderError::Contradiction(what));
        }
        check_free(path)?;
        let no_classes = ClassNames::default();
        let classes = if self.generator.is_some() { self.classes } else { &no_classes };
        files::replace_folder(path, |folder| {
            let file = |name: &str, write: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
                let mut file = BufWriter::with_capacity(1 << 16, File::create(folder.join(name))?);
                write(&mut file)?;
                file.flush()
            };
            let none = StringMetadata::new();
            file(CONFIG, &|file| write_json(file, self.config))?;
            file(TOKENIZER, &|file| {
                safetensors_file::write_to(file, self.tokenizer, self.precision, &none)
            })?;
            if let Some(generator) = self.generator {
                file(GENERATOR, &|file| {
                    safetensors_file::write_to(file, generator, self.precision, &none)
                })?;
                file(CLASSES, &|file| write_json(file, classes))?;
            }
            let readme = self.readme.map_or_else(|| describe(self.config), str::to_owned);
            file(README, &|file| file.write_all(readme.as_bytes()))
        })
        .map_err(|source: io::Error| FileError::Write { path: path.to_owned(), source })?;
        Ok(ModelFolder {
            path: path.to_owned(),
            config: self.config.clone(),
            classes: classes.clone(),
        })
    }

    fn contradiction(&self) -> Option<String> {
        match (&self.config.generator, self.generator) {
            (Some(_), None) => return Some("the generator's weights are missing".to_owned()),
            (None, Some(_)) => return Some("the generator's architecture is missing".to_owned()),
            (Some(generator), Some(_)) if generator.classes != self.classes.len() => {
                return Some(format!(
                    "there are {} names for {} classes",
                    self.classes.len(),
                    generator.classes
                ));
            }
            _ => {}
        }
        self.config.contradiction()
    }
}

/// Checks that a model may be written to `path`: nothing is there, an empty folder, or a model.
///
/// # Errors
/// If something else is there.
pub fn check_free(path: impl AsRef<Path>) -> Result<(), ModelFolderError> {
    let path = path.as_ref();
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let occupied = |entry: String| ModelFolderError::Occupied { path: path.to_owned(), entry };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read(error).into()),
        Ok(metadata) if !metadata.is_dir() => return Err(occupied("a file".to_owned())),
        Ok(_) => {}
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        names.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    // A folder with anything of someone else's in it is not ours to replace.
    if let Some(foreign) = names.iter().find(|name| !FILES.contains(&name.as_str())) {
        return Err(occupied(foreign.clone()));
    }
    match names.first() {
        Some(first) if !names.iter().any(|name| name == CONFIG) => Err(occupied(first.clone())),
        _ => Ok(()),
    }
}

fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

fn write_json(file: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, value)?;
    file.write_all(b"\n")
}

fn describe(config: &ModelConfig) -> String {
    let tokenizer = &config.tokenizer;
    let layout = tokenizer.layout();
    let mut text = format!(
        "# An AliTok model\n\n\
         Made and read by `alitok`; see `alitok inspect` and `alitok generate --help`.\n\n\
         - pictures of {} × {} pixels\n\
         - {} tokens a picture: {} of the prefix, then {} rows of {}\n\
         - a codebook of {} codes\n",
        tokenizer.image.height,
        tokenizer.image.width,
        layout.len(),
        layout.prefix(),
        layout.rows(),
        layout.columns(),
        tokenizer.codes,
    );
    if let Some(generator) = &config.generator {
        text += &format!(
            "- a generator of {} parameters for {} classes (`{CLASSES}`)\n",
            generator.parameter_count(),
            generator.classes
        );
    }
    text
}

/// SHA-256, in hexadecimal, over what decides which tokens a picture gets: names, shapes and
/// values (as f32) of encoder, latents and codebook. Tokens cached with one decoder serve the
/// other, and bf16 weights have a digest of their own.
pub fn tokenizer_digest(tensors: &TensorMap) -> String {
    let decides = |name: &str| name.starts_with("encoder.") || name.starts_with("quantizer.");
    digest(tensors.iter().filter(|(name, _)| decides(name)))
}

/// SHA-256, in hexadecimal, over names, shapes and values (as f32) of all tensors.
pub fn tensors_digest(tensors: &TensorMap) -> String {
    digest(tensors.iter())
}

fn digest<'a>(tensors: impl Iterator<Item = (&'a String, &'a HostTensor)>) -> String {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        for &extent in &tensor.shape {
            hash.update((extent as u64).to_le_bytes());
        }
        for values in tensor.values.chunks(1 << 14) {
            hash.update(crate::floats::encode_f32(values));
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
