//! Finding and opening the model that a command names.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use anyhow::{Context, Result, anyhow, ensure};
use files::Home;
use model::{Model, ModelError, named};

use crate::{
    args::{PromptArgs, ReplaceArgs, StorageName},
    progress,
};

/// The root of bundled things, which is looked for once.
pub(crate) fn home() -> &'static Home {
    static HOME: LazyLock<Home> = LazyLock::new(|| {
        Home::find(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))))
    });
    &HOME
}

/// Reads the configuration of a model: a bundled one, a folder, or a run.
pub(crate) fn open(name: &str) -> Result<Model> {
    Model::named(name, home()).map_err(|error| match near(name) {
        Some(near) if matches!(error, ModelError::NoModel { .. }) && !Path::new(name).exists() => {
            anyhow!("there is no model `{name}`; did you mean `{near}`?")
        }
        _ => error.into(),
    })
}

/// Checks that a model folder may be written: nothing is there, or it may be replaced and holds a model
/// and nothing else.
pub(crate) fn check_out(path: &Path, replace: ReplaceArgs, inputs: &[PathBuf]) -> Result<()> {
    let is_own =
        |name: &Path, _: &Path| name.to_str().is_some_and(|name| model::FILES.contains(&name));
    Ok(files::output::check_folder(path, replace.replace, &is_own, inputs)?)
}

/// The bundled model, or the model or run beside the path, that a person probably meant.
fn near(name: &str) -> Option<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let holds_model = |path: &Path| named::of_run(path).join("config.json").is_file();
    let beside = std::fs::read_dir(here).into_iter().flatten().flatten();
    let beside = beside.filter(|entry| holds_model(&entry.path()));
    let beside = beside.map(|entry| folder.join(entry.file_name()).display().to_string());
    let known: Vec<String> = std::iter::once("mini".to_owned()).chain(beside).collect();
    settings::nearest_name(name, known.iter().map(String::as_str))
}

/// The label of the class that a person names, who is told where the name is not the class's own.
pub(crate) fn class(model: &Model, name: &str) -> Result<usize> {
    let resolved = model.classes.resolve_noted(name)?;
    if let Some(note) = resolved.note {
        progress::note(&note);
    }
    Ok(resolved.label)
}

/// Largest file of prompts, in bytes.
const MOST_PROMPT_BYTES: u64 = 1 << 26;

/// The prompts that a person gave, none if there are none.
pub(crate) fn prompts(args: &PromptArgs) -> Result<Vec<String>> {
    let Some(path) = &args.prompt_file else { return Ok(args.prompt.clone()) };
    let failed = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(failed)?.len();
    ensure!(
        bytes <= MOST_PROMPT_BYTES,
        "{} has {bytes} bytes; a file of prompts has at most {MOST_PROMPT_BYTES}",
        path.display()
    );
    let text = String::from_utf8(std::fs::read(path).with_context(failed)?).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        anyhow!("{}: line {line} is not UTF-8; save the file in UTF-8", path.display())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let prompts: Vec<String> =
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    ensure!(!prompts.is_empty(), "{} has no prompts, one a line", path.display());
    Ok(prompts)
}

impl From<StorageName> for files::safetensors::StorageFormat {
    fn from(name: StorageName) -> Self {
        match name {
            StorageName::F32 => Self::F32,
            StorageName::Bf16 => Self::Bf16,
        }
    }
}
