//! Settings files: training recipes, experiment plans, evaluation protocols.
//!
//! A settings file is TOML. [`read`] takes a bundled one by name or any other by path, and changes
//! single settings in it. A misspelt setting is an error that names the nearest existing one.

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is no such file.
    #[error("no {kind} `{name}`: it is neither a file nor one of {known}{}", suggest(.nearest))]
    Unknown {
        /// What the settings are of.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Names of the bundled ones.
        known: String,
        /// The bundled one that is spelled most alike.
        nearest: Option<String>,
    },
    /// The file cannot be read.
    #[error("{kind} {path}: {source}")]
    Read {
        /// What the settings are of.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{kind} {name}: {problem}")]
    Parse {
        /// What the settings are of.
        kind: &'static str,
        /// Name or path.
        name: String,
        /// What the parser said.
        problem: String,
    },
    /// A setting that does not exist.
    #[error("{kind} {name}: no setting is called `{key}`{}", suggest(.nearest))]
    UnknownKey {
        /// What the settings are of.
        kind: &'static str,
        /// Name or path.
        name: String,
        /// The key.
        key: String,
        /// The setting that is spelled most alike.
        nearest: Option<String>,
    },
    /// An override that is no assignment.
    #[error("`--set {0}`: write it as key=value, for example --set seed=1")]
    Override(String),
}

fn suggest(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// Reads settings of this kind, bundled ones (name and text) by name or a file, and changes single
/// ones: `overrides` are assignments such as `steps=100` or `optimizer.clip=1.0`.
///
/// # Errors
/// If there is no such file, it is damaged, or a setting is unknown.
pub fn read<T: Serialize + DeserializeOwned>(
    kind: &'static str,
    name: &str,
    bundled: &[(&str, &str)],
    overrides: &[String],
) -> Result<T, SettingsError> {
    if let Some((_, text)) = bundled.iter().find(|(known, _)| *known == name) {
        return parse(kind, name, text, overrides);
    }
    let path = Path::new(name);
    if path.is_dir() {
        let problem = "it is a folder; name one of the files in it".into();
        return Err(SettingsError::Parse { kind, name: name.to_owned(), problem });
    }
    let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            let known: Vec<&str> = bundled.iter().map(|(name, _)| *name).collect();
            let nearest = nearest_name(name, known.iter().copied());
            SettingsError::Unknown { kind, name: name.to_owned(), known: known.join(", "), nearest }
        }
        _ => SettingsError::Read { kind, path: path.to_owned(), source },
    })?;
    parse(kind, name, &text, overrides)
}

fn parse<T: Serialize + DeserializeOwned>(
    kind: &'static str,
    name: &str,
    text: &str,
    overrides: &[String],
) -> Result<T, SettingsError> {
    let named = || name.to_owned();
    let problem = |problem: String| SettingsError::Parse { kind, name: named(), problem };
    let mut table: Table = toml::from_str(text).map_err(|error| problem(error.to_string()))?;
    for assignment in overrides {
        set(&mut table, assignment)
            .ok_or_else(|| SettingsError::Override(assignment.to_owned()))?;
    }
    let settings: T = table.clone().try_into().map_err(|error: toml::de::Error| {
        let message = error.to_string();
        match unknown_field(&message) {
            Some((key, nearest)) => SettingsError::UnknownKey { kind, name: named(), key, nearest },
            None => problem(in_plain_words(&message)),
        }
    })?;
    // What is not written back was not understood.
    let understood = to_table(&settings);
    let mut paths = Vec::new();
    collect_paths(&understood, "", &mut paths);
    let mut given = Vec::new();
    collect_paths(&table, "", &mut given);
    if let Some(key) = given.into_iter().find(|key| !paths.contains(key)) {
        let nearest = nearest(&key, paths.into_iter());
        return Err(SettingsError::UnknownKey { kind, name: named(), key, nearest });
    }
    Ok(settings)
}

/// What the parser says, without the names of types.
fn in_plain_words(message: &str) -> String {
    const TYPES: [(&str, &str); 7] = [
        ("expected usize", "expected a whole number of at least 0"),
        ("expected u64", "expected a whole number of at least 0"),
        ("expected u32", "expected a whole number of at least 0"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
    ];
    let mut text = message.trim_end().to_owned();
    for (name, meaning) in TYPES {
        text = text.replace(name, meaning);
    }
    text
}

/// The name that a person probably meant by `name`: whose last part is spelled most like that of a path,
/// without its ending; none where none is near.
pub fn nearest_name<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |path: &str| {
        let stem = Path::new(path).file_stem().unwrap_or_default();
        stem.to_string_lossy().to_lowercase()
    };
    let wanted = last(name);
    let allowed = 1 + wanted.chars().count() / 4;
    known
        .map(|known| (strsim::damerau_levenshtein(&wanted, &last(known)), known))
        .min()
        .filter(|(distance, _)| *distance <= allowed && !wanted.is_empty())
        .map(|(_, known)| known.to_owned())
}

/// The name that is spelled most like `key`, if any is at all alike.
fn nearest(key: &str, names: impl Iterator<Item = String>) -> Option<String> {
    names
        .map(|name| (strsim::damerau_levenshtein(key, &name), name))
        .min()
        .filter(|(distance, _)| *distance <= 1 + key.len() / 2)
        .map(|(_, name)| name)
}

/// The unknown setting of a table that knows its settings, and the nearest of those, out of what
/// the parser says: unknown field `beta1`, expected one of `beta_1`, `beta_2`.
fn unknown_field(message: &str) -> Option<(String, Option<String>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let mut quoted = rest.split('`').step_by(2).map(str::to_owned);
    let key = quoted.next()?;
    let nearest = nearest(&key, quoted);
    Some((key, nearest))
}

/// Carries out an assignment; `None` if it is none.
fn set(table: &mut Table, assignment: &str) -> Option<()> {
    let (path, value) = assignment.split_once('=')?;
    let value = toml::from_str::<Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut keys = path.trim().split('.');
    let last = keys.next_back().filter(|key| !key.is_empty())?;
    let mut place = table;
    for key in keys {
        place = place.entry(key).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
    }
    // A whole number stands for a real one where the setting is real.
    let value = match (place.get(last), value) {
        (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    place.insert(last.to_owned(), value);
    Some(())
}

/// Settings as the table that they are written as.
///
/// # Panics
/// If the type is not one of plain values.
pub fn to_table<T: Serialize>(settings: &T) -> Table {
    Table::try_from(settings).expect("settings are a table of plain values")
}

/// All paths of a table, those of its tables included.
pub fn collect_paths(table: &Table, prefix: &str, paths: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            collect_paths(inner, &path, paths);
        }
        paths.push(path);
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        steps: u64,
        rate: f64,
        flip: bool,
    }

    const TEXT: &str = "steps = 3\nrate = 0.5\nflip = true\n";

    fn told(assignment: &str) -> String {
        let read: Result<Settings, _> =
            super::read("recipe", "small", &[("small", TEXT)], &[assignment.to_owned()]);
        read.expect_err("a wrong value").to_string()
    }

    #[test]
    fn should_say_what_is_expected_without_the_names_of_types() {
        assert!(told("steps=-1").contains("expected a whole number of at least 0"));
        assert!(told("steps=many").contains("expected a whole number of at least 0"));
        assert!(told("rate=fast").contains("expected a number"));
        assert!(told("flip=1").contains("expected true or false"));
        for assignment in ["steps=-1", "rate=fast", "flip=1"] {
            let text = told(assignment);
            assert!(!text.contains("u64") && !text.contains("f64"), "{text}");
            assert_eq!(text.trim_end(), text);
        }
    }
}
