//! Pictures in Parquet files, as Hugging Face stores image data sets.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::Type as Physical;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rayon::prelude::*;
use serde::Deserialize;

use super::{DataSet, MAX_CLASSES};
use crate::{Picture, PixelsError};

/// Most bytes that the pictures of one row group may take in memory.
const MAX_GROUP: i64 = 1 << 30;
/// Names of the columns that may hold the picture, its class and its caption.
const PICTURES: [&str; 6] = ["image.bytes", "image", "img.bytes", "img", "jpg", "png"];
const PATHS: [&str; 2] = ["image.path", "img.path"];
const LABELS: [&str; 3] = ["label", "labels", "class"];
const CAPTIONS: [&str; 2] = ["caption", "text"];

/// Parquet files with a column of encoded pictures (`image.bytes`, or a binary column `image`,
/// `img`, `jpg` or `png`) and one of classes (`label`, `labels` or `class`, numbers or names).
/// Names of numbered classes are taken from the metadata that Hugging Face writes. A caption may
/// stand in `caption` or `text`; samples are called as in `image.path`, or by file and row.
///
/// Opening reads everything but the pictures. These are read a row group at a time, and the last
/// group is kept, so reading in order is fast and reading at random reads a whole group a picture.
#[derive(Debug)]
pub struct ParquetSet {
    files: Vec<PathBuf>,
    classes: Vec<String>,
    samples: Vec<Entry>,
    last: Mutex<Option<Group>>,
}

/// Pictures of a row group of a file.
#[derive(Debug)]
struct Group {
    file: usize,
    group: usize,
    pictures: Arc<Vec<Option<ByteArray>>>,
}

#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    group: usize,
    row: usize,
    name: String,
    label: usize,
    caption: Option<String>,
}

/// What one file says of its samples.
struct Listed {
    names_of_numbers: Option<Vec<String>>,
    /// Group, row, name, class and caption.
    rows: Vec<(usize, usize, String, Class, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Number(i64),
    Name(String),
}

/// A column's values, row by row.
enum Column {
    Numbers(Vec<Option<i64>>),
    Bytes(Vec<Option<ByteArray>>),
}

impl ParquetSet {
    /// Lists the samples of `files`, in this order.
    ///
    /// # Errors
    /// [`PixelsError::Read`] or [`PixelsError::DataSet`] for a file that is missing, damaged or
    /// lacks a column, a row group that does not fit into memory, and samples without class.
    pub fn open(files: &[PathBuf]) -> Result<Self, PixelsError> {
        let listed: Vec<Listed> =
            files.par_iter().map(|file| list(file)).collect::<Result<_, _>>()?;
        let problem =
            |file: usize, text: String| PixelsError::data_set(files[file].display(), text);

        let mut names = BTreeSet::new();
        let (mut numbers, mut largest) = (false, 0);
        for (file, listed) in listed.iter().enumerate() {
            for (.., class, _) in &listed.rows {
                match class {
                    Class::Name(name) => {
                        names.insert(name.clone());
                    }
                    Class::Number(number) => {
                        numbers = true;
                        let label =
                            usize::try_from(*number).ok().filter(|&label| label < MAX_CLASSES);
                        let label = label.ok_or_else(|| {
                            problem(
                                file,
                                format!("class {number} is out of range: 0 to {MAX_CLASSES}"),
                            )
                        })?;
                        largest = largest.max(label);
                    }
                }
            }
        }
        if numbers && !names.is_empty() {
            return Err(problem(
                0,
                "some classes are numbers and some are names; use one kind".into(),
            ));
        }
        let titles = listed.iter().find_map(|listed| listed.names_of_numbers.clone());
        let classes: Vec<String> = match titles {
            Some(titles) if numbers && largest < titles.len() => titles,
            _ if numbers => (0..=largest).map(|number| number.to_string()).collect(),
            _ => names.into_iter().collect(),
        };
        let mut samples = Vec::new();
        for (file, listed) in listed.into_iter().enumerate() {
            for (group, row, name, class, caption) in listed.rows {
                let label = match class {
                    Class::Number(number) => number as usize,
                    Class::Name(name) => classes
                        .binary_search(&name)
                        .expect("the classes were gathered from these samples"),
                };
                samples.push(Entry { file, group, row, name, label, caption });
            }
        }
        if samples.is_empty() {
            return Err(problem(0, "it has no samples".into()));
        }
        Ok(Self { files: files.to_vec(), classes, samples, last: Mutex::new(None) })
    }

    /// The pictures of a row group.
    fn group(&self, file: usize, group: usize) -> Result<Arc<Vec<Option<ByteArray>>>, PixelsError> {
        let last = |last: &Option<Group>| {
            let last = last.as_ref().filter(|last| (last.file, last.group) == (file, group));
            last.map(|last| last.pictures.clone())
        };
        // Held while it is read: threads that go through a group together read it once.
        let mut kept = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pictures) = last(&kept) {
            return Ok(pictures);
        }
        *kept = None;
        let path = &self.files[file];
        let reader = reader(path)?;
        let column = picture_column(path, reader.metadata())?;
        let pictures = match read_column(&reader, group, column).map_err(damaged(path))? {
            Column::Bytes(pictures) => Arc::new(pictures),
            Column::Numbers(_) => return Err(PixelsError::data_set(path.display(), NO_PICTURES)),
        };
        *kept = Some(Group { file, group, pictures: pictures.clone() });
        Ok(pictures)
    }
}

const NO_PICTURES: &str =
    "it has no binary column `image`, `image.bytes`, `img`, `img.bytes`, `jpg` or `png`";

fn damaged(path: &Path) -> impl FnOnce(ParquetError) -> PixelsError + '_ {
    move |error| {
        let problem = format!("it is damaged or no Parquet file ({error}); get it again");
        PixelsError::data_set(path.display(), problem)
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>, PixelsError> {
    let file = File::open(path).map_err(PixelsError::read(path))?;
    SerializedFileReader::new(file).map_err(damaged(path))
}

/// The first of these columns that the file has.
fn find(metadata: &ParquetMetaData, wanted: &[&str]) -> Option<usize> {
    let columns = metadata.file_metadata().schema_descr();
    wanted.iter().find_map(|wanted| {
        (0..columns.num_columns()).find(|&index| columns.column(index).path().string() == **wanted)
    })
}

fn picture_column(path: &Path, metadata: &ParquetMetaData) -> Result<usize, PixelsError> {
    let columns = metadata.file_metadata().schema_descr();
    find(metadata, &PICTURES)
        .filter(|&column| columns.column(column).physical_type() == Physical::BYTE_ARRAY)
        .ok_or_else(|| PixelsError::data_set(path.display(), NO_PICTURES))
}

/// All values of a column in a row group.
fn read_column(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Column, ParquetError> {
    let description = reader.metadata().file_metadata().schema_descr().column(column);
    let full = description.max_def_level();
    if description.max_rep_level() > 0 {
        return Err(ParquetError::General("a needed column holds lists".to_owned()));
    }
    let group = reader.get_row_group(group)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let mut levels = Vec::new();
    macro_rules! read {
        ($column:expr) => {{
            let mut values = Vec::new();
            loop {
                let remaining = rows - levels.len().min(rows);
                let before = levels.len() + if full == 0 { values.len() } else { 0 };
                if remaining == 0 || full == 0 && values.len() >= rows {
                    break;
                }
                let levels = (full > 0).then_some(&mut levels);
                let (records, ..) = $column.read_records(remaining, levels, None, &mut values)?;
                if records == 0 {
                    let problem = format!("row {before} of {rows} is missing");
                    return Err(ParquetError::General(problem));
                }
            }
            let mut values = values.into_iter();
            let is_there = |row: usize| full == 0 || levels[row] == full;
            (0..rows).map(|row| if is_there(row) { values.next() } else { None }).collect()
        }};
    }
    Ok(match group.get_column_reader(column)? {
        ColumnReader::ByteArrayColumnReader(mut column) => Column::Bytes(read!(column)),
        ColumnReader::Int64ColumnReader(mut column) => Column::Numbers(read!(column)),
        ColumnReader::Int32ColumnReader(mut column) => {
            let values: Vec<Option<i32>> = read!(column);
            Column::Numbers(values.into_iter().map(|value| value.map(i64::from)).collect())
        }
        _ => return Err(ParquetError::General("a needed column is of an unusual type".to_owned())),
    })
}

fn text(bytes: &ByteArray) -> Option<String> {
    bytes.as_utf8().ok().map(str::to_owned)
}

fn list(path: &Path) -> Result<Listed, PixelsError> {
    let problem = |text: String| PixelsError::data_set(path.display(), text);
    let reader = reader(path)?;
    let metadata = reader.metadata();
    let pictures = picture_column(path, metadata)?;
    let labels = find(metadata, &LABELS)
        .ok_or_else(|| problem("it has no column `label`, `labels` or `class`".to_owned()))?;
    let (paths, captions) = (find(metadata, &PATHS), find(metadata, &CAPTIONS));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();

    let mut rows = Vec::new();
    for group in 0..metadata.num_row_groups() {
        let size = metadata.row_group(group).column(pictures).uncompressed_size();
        if size > MAX_GROUP {
            return Err(problem(format!(
                "row group {group} holds {size} bytes of pictures, too many to be read at once; \
                 write it again with row groups of a hundred pictures"
            )));
        }
        let texts = |column: Option<usize>| -> Result<Option<Vec<Option<ByteArray>>>, PixelsError> {
            let Some(column) = column else { return Ok(None) };
            match read_column(&reader, group, column).map_err(damaged(path))? {
                Column::Bytes(values) => Ok(Some(values)),
                Column::Numbers(_) => Ok(None),
            }
        };
        let (paths, captions) = (texts(paths)?, texts(captions)?);
        let classes = read_column(&reader, group, labels).map_err(damaged(path))?;
        let classes: Vec<Option<Class>> = match classes {
            Column::Numbers(numbers) => {
                numbers.into_iter().map(|number| number.map(Class::Number)).collect()
            }
            Column::Bytes(names) => {
                names.iter().map(|name| name.as_ref().and_then(text).map(Class::Name)).collect()
            }
        };
        for (row, class) in classes.into_iter().enumerate() {
            let number = rows.len();
            let class = class.ok_or_else(|| problem(format!("row {number} has no class")))?;
            let of = |texts: &Option<Vec<Option<ByteArray>>>| {
                texts.as_ref().and_then(|texts| texts[row].as_ref().and_then(text))
            };
            // A name is a line in a token cache.
            let name = of(&paths).filter(|name| !name.is_empty() && !name.contains('\n'));
            let name = name.unwrap_or_else(|| format!("{stem}/{number}"));
            rows.push((group, row, name, class, of(&captions)));
        }
    }
    Ok(Listed { names_of_numbers: names_of_numbers(metadata), rows })
}

/// The names of the classes in the metadata that Hugging Face's library writes.
fn names_of_numbers(metadata: &ParquetMetaData) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct HuggingFace {
        info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        features: std::collections::BTreeMap<String, serde_json::Value>,
    }
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let description: HuggingFace = serde_json::from_str(text).ok()?;
    let feature = LABELS.iter().find_map(|label| description.info.features.get(*label))?;
    serde_json::from_value(feature.get("names")?.clone()).ok()
}

impl DataSet for ParquetSet {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].label
    }

    fn name(&self, index: usize) -> &str {
        &self.samples[index].name
    }

    fn caption(&self, index: usize) -> Option<&str> {
        self.samples[index].caption.as_deref()
    }

    fn picture(&self, index: usize) -> Result<Picture, PixelsError> {
        let entry = &self.samples[index];
        let path = &self.files[entry.file];
        let name = || format!("{} in {}", entry.name, path.display());
        let pictures = self.group(entry.file, entry.group)?;
        match pictures.get(entry.row) {
            Some(Some(bytes)) => Picture::decode(bytes.data(), &name()),
            _ => Err(PixelsError::Damaged { name: name(), reason: "it has no bytes".to_owned() }),
        }
    }
}
