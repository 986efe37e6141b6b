//! What pictures show, in words.

use std::{borrow::Cow, collections::HashSet, path::Path, sync::Arc};

use rayon::prelude::*;
use serde_json::Value;

use super::{DataSet, Part, left_out::Ledger, rules};
use crate::PixelsError;

/// Names of fields and columns with captions, in the order in which they are taken.
pub(crate) const NAMES: [&str; 6] =
    ["caption", "captions", "text", "texts", "description", "prompt"];
/// Longest text file beside a picture that is read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

pub(crate) const NO_CAPTION: &str = "no caption";

/// The captions among these texts: without blanks around them, and without empty ones.
pub(crate) fn of_texts(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let trimmed = texts.into_iter().map(|text| match text.trim() {
        same if same.len() == text.len() => text,
        shorter => shorter.to_owned(),
    });
    trimmed.filter(|text| !text.is_empty()).collect()
}

/// The captions in a field of JSON: one text, or a list of them.
pub(crate) fn of_json(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Array(items) => of_texts(items.iter().filter_map(text)),
        value => of_texts(text(value)),
    }
}

/// The captions in a cell of a table: a list of texts as JSON writes it, or else one text.
pub(crate) fn of_cell(cell: &str) -> Vec<String> {
    match cell.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(cell)) {
        Some(Ok(texts)) => of_texts(texts),
        _ => of_texts([cell.to_owned()]),
    }
}

/// Whether a file of this name holds captions and no classes.
pub(crate) fn is_table(file: &str) -> bool {
    matches!(
        file,
        "captions.tsv" | "captions.csv" | "captions.txt" | "captions.json" | "captions.jsonl"
    )
}

/// A path without its ending.
fn stem(path: &str) -> &str {
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    path[start..].rfind('.').map_or(path, |dot| &path[..start + dot])
}

/// Takes out of `files` the text files that lie beside a picture of the same name.
pub(crate) fn take_texts(files: &mut Vec<String>) -> Vec<String> {
    let is_picture = |name: &&String| matches!(rules::kind(name), rules::Kind::Picture(_));
    let pictures: HashSet<String> =
        files.iter().filter(is_picture).map(|name| stem(name).to_owned()).collect();
    let is_text = |name: &mut String| {
        rules::ending(name).as_deref() == Some("txt") && pictures.contains(stem(name))
    };
    files.extract_if(.., is_text).collect()
}

/// The captions of `pictures` in the text files beside them that were met when they were listed. A
/// file that cannot be read is noted.
pub(crate) fn beside(root: &Path, pictures: &[String], ledger: &mut Ledger) -> Vec<Vec<String>> {
    let mut texts = ledger.take_texts();
    if texts.is_empty() {
        return vec![Vec::new(); pictures.len()];
    }
    texts.sort_unstable_by(|a, b| stem(a).cmp(stem(b)));
    let read: Vec<Result<Vec<String>, Cow<'static, str>>> =
        texts.par_iter().map(|text| read_text(&root.join(text))).collect();
    let captions = pictures.iter().map(|picture| {
        let place = texts.binary_search_by(|text| stem(text).cmp(stem(picture)));
        place.ok().and_then(|place| read[place].as_ref().ok()).cloned().unwrap_or_default()
    });
    let captions = captions.collect();
    for (text, read) in texts.iter().zip(read) {
        if let Err(reason) = read {
            ledger.pass_over(text, reason);
        }
    }
    captions
}

fn read_text(path: &Path) -> Result<Vec<String>, Cow<'static, str>> {
    let unread = |error: std::io::Error| format!("a caption that cannot be read: {error}");
    if std::fs::metadata(path).map_err(unread)?.len() > MAX_TEXT {
        return Err("a caption that is too long to be read".into());
    }
    let bytes = std::fs::read(path).map_err(unread)?;
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| "a caption that is no UTF-8 text")?;
    Ok(of_texts([text.to_owned()]))
}

/// The samples of a data set that have a caption, in its order and with its classes. Those without one are
/// listed under [`left_out`](DataSet::left_out). `source` is what errors call the data set.
///
/// # Errors
/// [`PixelsError::DataSet`] if no sample has a caption.
pub fn captioned(source: &str, data: Arc<dyn DataSet>) -> Result<Part, PixelsError> {
    let mut ledger = Ledger::of(data.left_out());
    let has_caption = |&index: &usize| {
        let has_caption = !data.captions(index).is_empty();
        if !has_caption {
            ledger.lose(data.name(index), NO_CAPTION);
        }
        has_caption
    };
    let indices: Vec<usize> = (0..data.len()).filter(has_caption).collect();
    if indices.is_empty() {
        let problem = format!(
            "none of its {} pictures has a caption; captions stand in a .txt file beside each \
             picture, in `captions.tsv` or `captions.jsonl` in the folder, in .txt or .json \
             members of tar shards, or in a Parquet column `caption` or `text`",
            data.len()
        );
        return Err(PixelsError::data_set(source, problem));
    }
    let (read_as, left_out) = (data.read_as(), ledger.finish());
    Ok(Part { read_as, left_out, ..Part::of(data, indices) })
}
