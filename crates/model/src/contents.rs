//! Writing a model folder, whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use files::{
    FileError, TensorMap,
    safetensors::{self, StorageFormat, StringMetadata},
};
use serde::Serialize;
use tokenizer::TokenizerConfig;

use crate::{
    CLASSES, CONFIG, ClassNames, FILES, GENERATOR, IMAGE_SIDE, LANGUAGE, Model, ModelConfig,
    ModelError, README, TEXT_TOKENIZER, TOKENIZER,
};

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
    pub format: StorageFormat,
    /// Text of the README; `None` for a model card that describes the architecture, or for the README
    /// that somebody has written into an older model at the same place.
    pub readme: Option<&'a str>,
}

/// Writes a model folder that has a tokenizer and no generator yet, in f32.
///
/// # Errors
/// Those of [`ModelContents::write`].
pub fn write_tokenizer(
    config: &TokenizerConfig,
    tensors: &TensorMap,
    path: impl AsRef<Path>,
) -> Result<Model, ModelError> {
    ModelContents {
        config: &ModelConfig::new(config.clone(), None),
        classes: &ClassNames::default(),
        tokenizer: tensors,
        generator: None,
        format: StorageFormat::F32,
        readme: None,
    }
    .write(path)
}

impl ModelContents<'_> {
    /// Writes the folder beside `path`, syncs it and puts it into place; equal contents make equal
    /// bytes, but for a README that somebody wrote, which stays. An older model at `path` is there,
    /// whole, until the new one is.
    ///
    /// # Errors
    /// If `path` holds anything but a model, the contents contradict each other, or the operating
    /// system refuses. Then nothing is left behind and an older model stays.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<Model, ModelError> {
        let path = path.as_ref();
        if let Some(what) = self.contradiction() {
            return Err(ModelError::Contradiction(what));
        }
        check_free(path)?;
        let no_classes = ClassNames::default();
        let classes = if self.generator.is_some() { self.classes } else { &no_classes };
        write_folder(path, self.config, self.readme, |folder| {
            write_tensors(folder, TOKENIZER, self.tokenizer, self.format)?;
            if let Some(generator) = self.generator {
                write_tensors(folder, GENERATOR, generator, self.format)?;
                write_file(folder, CLASSES, |file| write_json(file, classes))?;
            }
            Ok(())
        })?;
        Ok(Model::in_folder(path, self.config.clone(), classes.clone()))
    }

    fn contradiction(&self) -> Option<String> {
        match (&self.config.generator, self.generator) {
            (Some(_), None) => return Some("the generator's weights are missing".to_owned()),
            (None, Some(_)) => return Some("the generator's architecture is missing".to_owned()),
            _ if self.config.language.is_some() => {
                return Some("the language model's weights are missing".to_owned());
            }
            (Some(generator), Some(_)) if generator.classes != self.classes.len() => {
                return Some(format!(
                    "there are {} names for {} classes",
                    self.classes.len(),
                    generator.classes
                ));
            }
            _ => {}
        }
        if let (Some(_), Some((name, [first, second]))) = (self.generator, self.classes.duplicate())
        {
            return Some(format!(
                "classes {first} and {second} are both called `{name}`; rename one of them"
            ));
        }
        self.config.contradiction()
    }
}

/// All that the folder of a model that reads prompts holds, to be written.
#[derive(Debug, Clone)]
pub struct TextModelContents<'a> {
    /// Architectures and sampling defaults.
    pub config: &'a ModelConfig,
    /// The picture tokenizer's parameters under our names, and how they are stored.
    pub tokenizer: (&'a TensorMap, StorageFormat),
    /// The language model's parameters, and how they are stored.
    pub language: (&'a TensorMap, StorageFormat),
    /// The parameters of the image side, which are stored in f32.
    pub image_side: &'a TensorMap,
    /// The content of the text tokenizer's file.
    pub text_tokenizer: &'a str,
    /// Text of the README, see [`ModelContents::readme`].
    pub readme: Option<&'a str>,
}

impl TextModelContents<'_> {
    /// Writes the folder, as [`ModelContents::write`] does.
    ///
    /// # Errors
    /// As [`ModelContents::write`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<Model, ModelError> {
        let path = path.as_ref();
        let missing = "the language model's architecture is missing";
        let missing = self.config.language.is_none().then(|| missing.to_owned());
        if let Some(what) = missing.or_else(|| self.config.contradiction()) {
            return Err(ModelError::Contradiction(what));
        }
        check_free(path)?;
        write_folder(path, self.config, self.readme, |folder| {
            write_tensors(folder, TOKENIZER, self.tokenizer.0, self.tokenizer.1)?;
            write_tensors(folder, LANGUAGE, self.language.0, self.language.1)?;
            write_tensors(folder, IMAGE_SIDE, self.image_side, StorageFormat::F32)?;
            let text = self.text_tokenizer.as_bytes();
            write_file(folder, TEXT_TOKENIZER, |file| file.write_all(text))
        })?;
        Ok(Model::in_folder(path, self.config.clone(), ClassNames::default()))
    }
}

/// Writes a folder beside `path`, with configuration, README and what `write` adds, and puts it into
/// place.
fn write_folder(
    path: &Path,
    config: &ModelConfig,
    readme: Option<&str>,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), ModelError> {
    files::replace_folder(path, |folder| {
        write_file(folder, CONFIG, |file| write_json(file, config))?;
        write(folder)?;
        let readme = readme.map(str::to_owned).or_else(|| written_by_hand(path));
        let readme = readme.unwrap_or_else(|| card(config));
        write_file(folder, README, |file| file.write_all(readme.as_bytes()))
    })
    .map_err(|source: io::Error| FileError::Write { path: path.to_owned(), source }.into())
}

fn write_file(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 16, File::create(folder.join(name))?);
    write(&mut file)?;
    file.flush()
}

fn write_tensors(
    folder: &Path,
    name: &str,
    tensors: &TensorMap,
    format: StorageFormat,
) -> io::Result<()> {
    write_file(folder, name, |file| {
        safetensors::write_to(file, tensors, format, &StringMetadata::new())
    })
}

/// Checks that a model may be written to `path`: nothing is there, an empty folder, or a model.
///
/// # Errors
/// If something else is there.
pub fn check_free(path: impl AsRef<Path>) -> Result<(), ModelError> {
    let path = path.as_ref();
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let occupied = |entry: String| ModelError::Occupied { path: path.to_owned(), entry };
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

fn write_json(file: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *file, value)?;
    file.write_all(b"\n")
}

/// The README of the model at `path`, unless it is the one that [`card`] makes of its configuration.
fn written_by_hand(path: &Path) -> Option<String> {
    let readme = fs::read_to_string(path.join(README)).ok()?;
    let config = fs::read_to_string(path.join(CONFIG)).ok()?;
    let config: Option<ModelConfig> = serde_json::from_str(&config).ok();
    // Older cards lack the front matter.
    let is_ours = config.is_some_and(|config| card(&config).ends_with(&readme));
    (!is_ours).then_some(readme)
}

/// A model card as Hugging Face reads it: front matter, then what people read. What cannot be known
/// from the architecture, such as the licence, is left to whoever publishes the model.
fn card(config: &ModelConfig) -> String {
    let mut front = String::from("---\n# Before you publish it: add `license` and `datasets`.\n");
    front += "library_name: alitok\n";
    if config.generator.is_some() {
        front += "pipeline_tag: unconditional-image-generation\n";
    } else if config.language.is_some() {
        front += "pipeline_tag: text-to-image\n";
    }
    front += "tags:\n- alitok\n- image-tokenizer\n";
    if config.generator.is_some() {
        front += "- autoregressive\n- class-conditional-image-generation\n";
    } else if config.language.is_some() {
        front += "- autoregressive\n- text-to-image\n";
    }
    front + "---\n\n" + &describe(config)
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
    if let Some(language) = &config.language {
        text += &format!(
            "- a language model of {} parameters that reads prompts, and an image side of {}\n",
            language.language_parameters(),
            language.image_side_parameters()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the bundled model again, and gives the README.
    fn write(out: &Path, readme: Option<&str>) -> String {
        let model = Model::read(fixtures::home().path("models/mini").unwrap()).unwrap();
        ModelContents {
            config: &model.config,
            classes: &model.classes,
            tokenizer: &model.tokenizer_tensors().unwrap(),
            generator: Some(&model.generator_tensors().unwrap()),
            format: StorageFormat::Bf16,
            readme,
        }
        .write(out)
        .unwrap();
        fs::read_to_string(out.join(README)).unwrap()
    }

    #[test]
    fn should_write_a_card_with_front_matter_and_leave_out_what_is_not_there() {
        let mut config = Model::read(fixtures::home().path("models/mini").unwrap()).unwrap().config;
        let whole = card(&config);
        let (front, text) = whole.strip_prefix("---\n").unwrap().split_once("\n---\n\n").unwrap();
        assert!(front.contains("\nlibrary_name: alitok\n"), "{front}");
        assert!(front.contains("\npipeline_tag: unconditional-image-generation\n"), "{front}");
        // Nobody but the author knows it.
        assert!(front.lines().all(|line| !line.starts_with("license:")), "{front}");
        assert!(
            text.starts_with("# An AliTok model\n") && text.contains("64 × 64 pixels"),
            "{text}"
        );
        config.generator = None;
        let tokenizer = card(&config);
        assert!(!tokenizer.contains("pipeline_tag") && !tokenizer.contains("generation"));
    }

    #[test]
    fn should_keep_a_readme_that_somebody_wrote_and_renew_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let made = write(&out, None);
        assert!(made.starts_with("---\n"));
        fs::write(out.join(README), "Trained on my photographs.\n").unwrap();
        assert_eq!(write(&out, None), "Trained on my photographs.\n");
        assert_eq!(write(&out, Some("Said anew.\n")), "Said anew.\n");
        // As it was before there was front matter.
        let (_, text) = made.rsplit_once("---\n\n").unwrap();
        fs::write(out.join(README), text).unwrap();
        assert_eq!(write(&out, None), made);
    }
}
