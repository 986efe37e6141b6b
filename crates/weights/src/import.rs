//! Released checkpoints into a model folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use files::safetensors::{StorageFormat, check_finite};
use generator::{GeneratorConfig, SamplingConfig, presets};
use model::{ClassNames, Model, ModelConfig, ModelContents, ModelError, check_free};

use crate::{
    checkpoint::Checkpoint,
    error::CheckpointError,
    released::{ReleasedError, import_generator, import_tokenizer},
    wrappers::WeightsChoice,
};

/// An import that failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// A file holds something else than the released model.
    #[error("`{}`: {source}", path.display())]
    Released {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReleasedError,
    },
    /// The two files do not belong together, or the folder could not be written.
    #[error(transparent)]
    Folder(#[from] ModelError),
}

/// How to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// How weights are stored.
    pub format: StorageFormat,
    /// Which weights to take of files that hold two sets of them.
    pub weights: Option<WeightsChoice>,
}

/// A model that was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The model, in its folder.
    pub model: Model,
    /// What a person should know about what was taken of the files, a sentence each.
    pub notes: Vec<String>,
}

/// Reads a released tokenizer and, if given, a released generator for its tokens, and writes them
/// as a model folder at `out`. Architectures are inferred from the shapes. 1000 classes get the
/// names of ImageNet.
///
/// # Errors
/// If a file is no released checkpoint, the two do not belong together, weights are no finite numbers,
/// or `out` is taken.
pub fn import(
    tokenizer: &Path,
    generator: Option<&Path>,
    out: &Path,
    options: ImportOptions,
) -> Result<Imported, ImportError> {
    // Before minutes of reading.
    check_free(out)?;
    let mut notes = Vec::new();
    let mut read = |path: &Path| {
        let checkpoint = Checkpoint::read_weights(path, options.weights)?;
        notes.extend(checkpoint.notes.iter().map(|note| format!("{}: {note}", path.display())));
        for (name, tensor) in &checkpoint.tensors {
            check_finite(path, name, &tensor.values).map_err(CheckpointError::File)?;
        }
        Ok::<_, CheckpointError>(checkpoint)
    };
    let released = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Released { path, source }
    };
    let checkpoint = read(tokenizer)?;
    let left_out = checkpoint.others.clone();
    let read_tokenizer = import_tokenizer(checkpoint).map_err(released(tokenizer))?;
    let mut others = vec![(tokenizer, left_out)];
    let layout = read_tokenizer.config.layout();
    let read_generator = match generator {
        None => None,
        Some(path) => {
            let checkpoint = read(path)?;
            others.push((path, checkpoint.others.clone()));
            Some(import_generator(checkpoint, layout).map_err(released(path))?)
        }
    };
    for (path, others) in others {
        notes.extend(left_out_note(&others).map(|note| format!("{}: {note}", path.display())));
    }
    let (generator_config, generator_tensors) = read_generator.unzip();
    let mut config = ModelConfig::new(read_tokenizer.config, generator_config);
    let mut classes = ClassNames::default();
    if let Some(generator) = &config.generator {
        config.sampling = published_sampling(generator).unwrap_or_default();
        classes = ClassNames::of_count(generator.classes);
    }
    let contents = ModelContents {
        config: &config,
        classes: &classes,
        tokenizer: &read_tokenizer.tensors,
        generator: generator_tensors.as_ref(),
        format: options.format,
        readme: None,
    };
    Ok(Imported { model: contents.write(out)?, notes })
}

/// What stands in a state dict and is no weight.
fn left_out_note(others: &BTreeMap<String, String>) -> Option<String> {
    const SHOWN: usize = 3;
    if others.is_empty() {
        return None;
    }
    let shown: Vec<String> =
        others.iter().take(SHOWN).map(|(name, kind)| format!("`{name}` ({kind})")).collect();
    let more = others.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "left out {}{more}, which {} no weights",
        shown.join(", "),
        match others.len() {
            1 => "is",
            _ => "are",
        }
    ))
}

/// The guidance that was published for this architecture.
///
/// In the paper's layout that is Table 9. In the released layout, whose prefix has one token more,
/// it is what the released configuration files say: they belong to the released weights, which are
/// older than the paper's last version.
pub fn published_sampling(config: &GeneratorConfig) -> Option<SamplingConfig> {
    let GeneratorConfig { layout, codes, classes, .. } = *config;
    let released = match layout.prefix().checked_sub(layout.columns())? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let table = [
        (presets::b(layout, codes, classes), [(11.0, 1.3), (16.0, 1.8)]),
        (presets::l(layout, codes, classes), [(5.0, 0.6), (6.0, 0.7)]),
        (presets::xl(layout, codes, classes), [(8.0, 1.4), (13.0, 1.4)]),
    ];
    let (_, values) = table.into_iter().find(|(preset, _)| preset == config)?;
    let (guidance, guidance_power) = values[usize::from(released)];
    Some(SamplingConfig { guidance, guidance_power, ..SamplingConfig::default() })
}

#[cfg(test)]
mod tests {
    use tokens::TokenLayout;

    use super::*;

    #[test]
    fn should_know_the_published_guidance() {
        let of = |prefix, preset: fn(TokenLayout, usize, usize) -> GeneratorConfig| {
            published_sampling(&preset(TokenLayout::new(prefix, 16, 16), 4096, 1000))
                .map(|sampling| (sampling.guidance, sampling.guidance_power))
        };
        assert_eq!(of(16, presets::b), Some((11.0, 1.3)));
        assert_eq!(of(17, presets::b), Some((16.0, 1.8)));
        assert_eq!(of(17, presets::l), Some((6.0, 0.7)));
        assert_eq!(of(17, presets::xl), Some((13.0, 1.4)));
        assert_eq!(of(0, presets::b), None);
        assert_eq!(of(17, presets::mini), None);
    }
}
