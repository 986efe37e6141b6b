//! Tokens in a safetensors file: `tokens [N, L]` and, of drawn pictures, `labels [N]`, both i64. Of
//! pictures that had names the metadata has them, as a list in JSON under `names`.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
};
#[cfg(feature = "write")]
use std::{collections::HashMap, io::Write};

use files::{kind, output};
#[cfg(feature = "write")]
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tokens::{CodebookIndex, Vocabulary, VocabularyError};

/// Tokens that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The name does not end as it should.
    #[error("{}: tokens are written to a .safetensors file", path.display())]
    Ending {
        /// What was named.
        path: PathBuf,
    },
    /// The name is nothing but an ending.
    #[error("{}: that is an ending without a name; write NAME.safetensors", path.display())]
    NoName {
        /// What was named.
        path: PathBuf,
    },
    /// The folder of the file to write does not exist.
    #[error("{}: there is no such folder", path.display())]
    NoFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The operating system refused to read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused to write.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no safetensors file: it {found}; `alitok encode` writes one", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        found: String,
    },
    /// The file holds no tokens.
    #[error("{} holds no tensor `tokens`; `alitok encode` writes one", path.display())]
    NoTokens {
        /// The file.
        path: PathBuf,
    },
    /// The tokens are not those of one model's pictures.
    #[error("{}: `tokens` {what}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        what: String,
    },
    /// A token is no code of the model.
    #[error("cannot decode {}: {source}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Which token.
        source: VocabularyError,
    },
}

/// Checks, before any work, that tokens can be written to this name.
///
/// # Errors
/// If it has another ending, or its folder does not exist.
pub fn check_name(path: &Path) -> Result<(), TokenFileError> {
    if output::is_bare_ending(path, &["safetensors"]) {
        return Err(TokenFileError::NoName { path: path.to_owned() });
    }
    let ending = output::ending(path);
    if ending != "safetensors" {
        return Err(TokenFileError::Ending { path: path.to_owned() });
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => Err(TokenFileError::NoFolder { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Writes tokens, and labels where there are some; whole or not at all.
///
/// # Errors
/// If the operating system refuses.
#[cfg(feature = "write")]
pub fn write(
    path: &Path,
    tokens: &[Vec<CodebookIndex>],
    labels: Option<&[usize]>,
) -> Result<(), TokenFileError> {
    write_named(path, tokens, labels, None)
}

/// As [`write()`], with the names of the pictures, as many as there are.
///
/// # Errors
/// As there.
#[cfg(feature = "write")]
pub fn write_named(
    path: &Path,
    tokens: &[Vec<CodebookIndex>],
    labels: Option<&[usize]>,
    names: Option<&[String]>,
) -> Result<(), TokenFileError> {
    let metadata = match names.map(serde_json::to_string).transpose() {
        Ok(names) => names.map(|names| HashMap::from([(NAMES.to_owned(), names)])),
        Err(error) => {
            let source = io::Error::other(error);
            return Err(TokenFileError::Write { path: path.to_owned(), source });
        }
    };
    let bytes = |values: &mut dyn Iterator<Item = i64>| -> Vec<u8> {
        values.flat_map(i64::to_le_bytes).collect()
    };
    let length = tokens.first().map_or(0, Vec::len);
    let values = bytes(&mut tokens.iter().flatten().map(|&token| i64::from(token)));
    let labels = labels.map(|labels| bytes(&mut labels.iter().map(|&label| label as i64)));
    let content = || {
        let mut tensors = Vec::new();
        if let Some(labels) = &labels {
            tensors.push(("labels", TensorView::new(Dtype::I64, vec![tokens.len()], labels)?));
        }
        let shape = vec![tokens.len(), length];
        tensors.push(("tokens", TensorView::new(Dtype::I64, shape, &values)?));
        safetensors::serialize(tensors, metadata.clone())
    };
    content()
        .map_err(io::Error::other)
        .and_then(|content| files::write_file(path, |file| file.write_all(&content)))
        .map_err(|source| TokenFileError::Write { path: path.to_owned(), source })
}

/// The metadata's key of the pictures' names.
const NAMES: &str = "names";

/// Tokens of pictures, and their names where they had some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    /// The tokens of each picture.
    pub tokens: Vec<Vec<CodebookIndex>>,
    /// The name of each picture, a path below some folder without an ending. All different.
    pub names: Option<Vec<String>>,
}

/// As [`read`], with the names of the pictures. Names that point out of a folder, or of which two are
/// equal, are none.
///
/// # Errors
/// As there.
pub fn read_named(
    path: &Path,
    length: usize,
    vocabulary: Vocabulary,
) -> Result<TokenFile, TokenFileError> {
    let tokens = read(path, length, vocabulary)?;
    let names = files::safetensors::read_metadata(path)
        .ok()
        .and_then(|mut metadata| metadata.remove(NAMES))
        .and_then(|names| serde_json::from_str::<Vec<String>>(&names).ok());
    let inside = |name: &String| {
        !name.is_empty()
            && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
    };
    let names = names.filter(|names| {
        let different: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        names.len() == tokens.len() && different.len() == names.len() && names.iter().all(inside)
    });
    Ok(TokenFile { tokens, names })
}

/// Reads tokens of pictures of `length` tokens that a model with this vocabulary can decode.
///
/// # Errors
/// If the file cannot be read, is something else, or holds other tokens.
pub fn read(
    path: &Path,
    length: usize,
    vocabulary: Vocabulary,
) -> Result<Vec<Vec<CodebookIndex>>, TokenFileError> {
    let read = |source| TokenFileError::Read { path: path.to_owned(), source };
    parse(&fs::read(path).map_err(read)?, path, length, vocabulary)
}

/// [`read`] of a file that is in memory; `path` is what errors call it.
///
/// # Errors
/// If it is something else than safetensors, or holds other tokens.
pub fn parse(
    content: &[u8],
    path: &Path,
    length: usize,
    vocabulary: Vocabulary,
) -> Result<Vec<Vec<CodebookIndex>>, TokenFileError> {
    let own = || path.to_owned();
    let file =
        SafeTensors::deserialize(content).map_err(|source| TokenFileError::NotSafetensors {
            path: own(),
            found: kind::describe_start(content)
                .map_or_else(|| format!("is damaged or cut ({source})"), str::to_owned),
        })?;
    let tensor = file.tensor("tokens").map_err(|_| TokenFileError::NoTokens { path: own() })?;
    let wrong = |what| TokenFileError::Tokens { path: own(), what };
    let [count, found] = tensor.shape() else {
        let shape = tensor.shape();
        return Err(wrong(format!("has shape {shape:?}, expected [N, {length}]")));
    };
    if *found != length {
        return Err(wrong(format!(
            "has {found} tokens a picture; this model's pictures have {length}"
        )));
    }
    let values: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => tensor.data().as_chunks().0.iter().map(|&b| i64::from_le_bytes(b)).collect(),
        Dtype::I32 => {
            tensor.data().as_chunks().0.iter().map(|&b| i32::from_le_bytes(b).into()).collect()
        }
        other => return Err(wrong(format!("has type {other:?}, expected I64"))),
    };
    let tokens: Vec<CodebookIndex> = values
        .into_iter()
        .map(|value| vocabulary.token(value))
        .collect::<Result<_, _>>()
        .map_err(|source| TokenFileError::Vocabulary { path: own(), source })?;
    Ok(tokens.chunks(length).take(*count).map(<[_]>::to_vec).collect())
}
