//! Pictures in Parquet files, as Hugging Face stores them.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{
    Compression, ConvertedType, Encoding, LogicalType, Repetition, Type as Physical,
};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use rayon::prelude::*;
use serde_json::Value;

use super::{
    DataSet, captions,
    classes::{Class, NO_CLASS, Numbering, normalized},
    left_out::{Ledger, LeftOut},
};
use crate::{Picture, PixelsError};

/// Most bytes that the pictures of one row group may take in memory.
const MAX_GROUP: i64 = 1 << 30;
/// Names of the columns that may hold the picture, its class and its caption, in the order in which
/// they are taken. A column of the struct that Hugging Face writes is called `image.bytes`.
const PICTURES: [&str; 11] = [
    "image",
    "img",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "picture",
    "photo",
    "pixel_values",
    "content",
    "bytes",
];
const LABELS: [&str; 10] = [
    "label",
    "labels",
    "class",
    "cls",
    "class_name",
    "category",
    "target",
    "fine_label",
    "class_label",
    "species",
];
/// The class of pictures that have captions alone.
const ONE_CLASS: &str = "pictures";

/// Parquet files with a column of encoded pictures (a struct with `bytes`, as Hugging Face writes
/// it, or a binary column, called `image`, `img`, `jpg` and so on, or the only one of its kind) and
/// one of classes (`label`, `labels`, `class` and so on: whole numbers or names). Names of numbered
/// classes are taken from the metadata that Hugging Face writes. Captions may stand in `caption` or
/// `text`, where a list holds several; files with captions and without classes are of one class. Samples are called as in `image.path`, or by file and row.
///
/// Opening reads everything but the pictures. These are read a row group at a time, and the last
/// group is kept, so reading in order is fast and reading at random reads a whole group a picture.
#[derive(Debug)]
pub struct ParquetSet {
    files: Vec<PathBuf>,
    classes: Vec<String>,
    samples: Vec<Entry>,
    left_out: Vec<LeftOut>,
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
    captions: Vec<String>,
}

/// What one file says of its samples.
struct Listed {
    names_of_numbers: Option<Vec<String>>,
    rows: Vec<Row>,
    left_out: Ledger,
}

/// A sample that lacks nothing.
struct Row {
    group: usize,
    row: usize,
    name: String,
    /// Nothing where the file has no column of classes.
    class: Option<Class>,
    captions: Vec<String>,
}

/// A column's values, row by row.
enum Column {
    Numbers(Vec<Option<i64>>),
    Bytes(Vec<Option<ByteArray>>),
    Truths(Vec<Option<bool>>),
}

/// The columns that are read, by their numbers.
struct Columns {
    picture: usize,
    /// Nothing where there are captions alone.
    label: Option<usize>,
    path: Option<usize>,
    caption: Option<usize>,
}

impl ParquetSet {
    /// Lists the samples of `files`, in this order.
    ///
    /// # Errors
    /// [`PixelsError::Read`] or [`PixelsError::DataSet`] for a file that is missing, damaged,
    /// compressed in a way that is not read, or lacks a column, a row group that does not fit into
    /// memory, and files without a complete sample.
    pub fn open(files: &[PathBuf]) -> Result<Self, PixelsError> {
        Self::open_noting(files, Ledger::default())
    }

    /// The same, with what is already noted.
    pub(crate) fn open_noting(files: &[PathBuf], mut ledger: Ledger) -> Result<Self, PixelsError> {
        let mut listed: Vec<Listed> =
            files.par_iter().map(|file| list(file)).collect::<Result<_, _>>()?;
        let set = match files {
            [file] => file.display().to_string(),
            _ => format!("{} Parquet files", files.len()),
        };
        let problem = |problem: String| PixelsError::data_set(&set, problem);

        let titles = listed.iter().find_map(|listed| listed.names_of_numbers.clone());
        for (listed, file) in listed.iter().zip(files) {
            if listed.names_of_numbers.is_some() && listed.names_of_numbers != titles {
                let problem = "it names its classes otherwise than the files before it";
                return Err(PixelsError::data_set(file.display(), problem));
            }
        }
        let found = listed.iter().flat_map(|listed| &listed.rows);
        // Files without a column of classes have one of captions.
        let lacking = found.clone().filter(|row| row.class.is_none()).count();
        if lacking > 0 && lacking < found.clone().count() {
            let text = "some of its files have a column of classes and some have captions alone";
            return Err(problem(text.to_owned()));
        }
        let found = found.filter_map(|row| row.class.as_ref());
        let numbering = Numbering::new(found.clone()).map_err(problem)?;
        let numbers = found.clone().any(|class| matches!(class, Class::Number(_)));
        let classes = match titles {
            Some(titles) if numbers && numbering.classes.len() <= titles.len() => titles,
            Some(titles) if numbers => {
                return Err(problem(format!(
                    "it names {} classes and has the number {}",
                    titles.len(),
                    numbering.classes.len() - 1
                )));
            }
            _ if lacking > 0 => vec![ONE_CLASS.to_owned()],
            _ => numbering.classes.clone(),
        };
        let mut samples = Vec::new();
        for (file, listed) in listed.iter_mut().enumerate() {
            ledger.append(std::mem::take(&mut listed.left_out));
            for Row { group, row, name, class, captions } in std::mem::take(&mut listed.rows) {
                let label = class.map_or(0, |class| numbering.label(&class));
                samples.push(Entry { file, group, row, name, label, captions });
            }
        }
        if samples.is_empty() {
            return Err(problem(match ledger.losses() {
                lost if lost.is_empty() => "it has no samples".to_owned(),
                lost => format!("it has no samples that are complete: {lost}"),
            }));
        }
        let (left_out, last) = (ledger.finish(), Mutex::new(None));
        Ok(Self { files: files.to_vec(), classes, samples, left_out, last })
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
        let column = columns(path, reader.metadata())?.picture;
        let pictures = match read_column(path, &reader, group, column)? {
            Column::Bytes(pictures) => Arc::new(pictures),
            _ => return Err(no_pictures(path, reader.metadata())),
        };
        *kept = Some(Group { file, group, pictures: pictures.clone() });
        Ok(pictures)
    }
}

fn damaged(path: &Path) -> impl FnOnce(ParquetError) -> PixelsError + '_ {
    move |error| {
        let start = super::start(path).unwrap_or_default();
        let problem = match &start[..] {
            [b'P', b'A', b'R', b'E', ..] => {
                "it is encrypted; write it without encryption".to_owned()
            }
            [b'P', b'A', b'R', b'1', ..] => format!("it is damaged ({error}); get it again"),
            _ => match super::rules::known_by_content(&start, &path.display().to_string()) {
                Some(known) => known,
                None => format!("it is no Parquet file ({error}); get it again"),
            },
        };
        PixelsError::data_set(path.display(), problem)
    }
}

fn reader(path: &Path) -> Result<SerializedFileReader<File>, PixelsError> {
    let file = File::open(path).map_err(PixelsError::read(path))?;
    guarded(|| SerializedFileReader::new(file)).map_err(damaged(path))
}

/// The result, or an error where the Parquet crate panics, as it does on some damage.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    // What was half read is dropped.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(ParquetError::General(said.to_owned()))
    })
}

/// The pages of a column. A page that names entries of a dictionary is refused unless the dictionary came
/// before it, because the Parquet crate would panic.
struct CheckedPages {
    pages: Box<dyn PageReader>,
    has_dictionary: bool,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        let needs_dictionary = |encoding: &Encoding| match encoding {
            Encoding::RLE_DICTIONARY => true,
            #[allow(deprecated)] // older files have it
            Encoding::PLAIN_DICTIONARY => true,
            _ => false,
        };
        match &page {
            Some(Page::DictionaryPage { .. }) => self.has_dictionary = true,
            Some(Page::DataPage { encoding, .. } | Page::DataPageV2 { encoding, .. })
                if needs_dictionary(encoding) && !self.has_dictionary =>
            {
                let problem = "a page needs a dictionary that is not there";
                return Err(ParquetError::General(problem.to_owned()));
            }
            _ => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// The names of all columns, for messages.
fn column_names(metadata: &ParquetMetaData) -> String {
    let columns = metadata.file_metadata().schema_descr();
    let shown = columns.columns().iter().take(20);
    let names: Vec<String> = shown.map(|column| format!("`{}`", column.path().string())).collect();
    match columns.num_columns().saturating_sub(20) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn no_pictures(path: &Path, metadata: &ParquetMetaData) -> PixelsError {
    let problem = format!(
        "it has no column of encoded pictures (binary, called `image`, `image.bytes`, `img`, `jpg` \
         or `png`); its columns are {}",
        column_names(metadata)
    );
    PixelsError::data_set(path.display(), problem)
}

/// Finds the columns by name, or the column of pictures by its type if there is but one.
fn columns(path: &Path, metadata: &ParquetMetaData) -> Result<Columns, PixelsError> {
    let problem = |text: String| PixelsError::data_set(path.display(), text);
    let schema = metadata.file_metadata().schema_descr();
    let all = || (0..schema.num_columns()).map(|index| (index, schema.column(index)));
    let named = |name: &str| {
        all().find(|(_, column)| column.path().string() == name).map(|(index, _)| index)
    };
    let is_binary = |column: &ColumnDescriptor| {
        column.physical_type() == Physical::BYTE_ARRAY && column.max_rep_level() == 0
    };
    let is_text = |column: &ColumnDescriptor| {
        column.converted_type() == ConvertedType::UTF8
            || matches!(column.logical_type_ref(), Some(LogicalType::String))
    };

    let mut names = PICTURES.iter().flat_map(|name| [format!("{name}.bytes"), (*name).to_owned()]);
    let by_name = names.find_map(|name| named(&name).filter(|&at| is_binary(&schema.column(at))));
    let picture = by_name.or_else(|| {
        let mut binary = all().filter(|(_, column)| is_binary(column) && !is_text(column));
        match (binary.next(), binary.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    });
    let picture = picture.ok_or_else(|| no_pictures(path, metadata))?;
    let picture_path = schema.column(picture).path().string();
    let parent = picture_path.strip_suffix(".bytes");

    let fields = schema.root_schema().get_fields();
    // Where Hugging Face's metadata says which column holds the classes, that goes first.
    let declared = class_label(metadata).map(|(name, _)| name);
    let wanted = declared.iter().map(String::as_str).chain(LABELS);
    let label = wanted.into_iter().find_map(|name| fields.iter().find(|f| f.name() == name));
    let path = parent.map(|parent| format!("{parent}.path"));
    let path = path
        .as_deref()
        .and_then(|path| named(path).filter(|&at| at != picture && is_binary(&schema.column(at))));
    let is_caption = |name: &str, at: usize, label: Option<usize>| {
        let column = schema.column(at);
        let is_flat_or_list = match column.max_rep_level() {
            0 => column.path().string() == name,
            levels => levels == 1 && column.path().parts().first().is_some_and(|part| part == name),
        };
        let is_bytes = column.physical_type() == Physical::BYTE_ARRAY;
        at != picture && Some(at) != label && is_flat_or_list && is_bytes
    };
    let caption = |label: Option<usize>| {
        let mut names = captions::NAMES.iter();
        names.find_map(|name| (0..schema.num_columns()).find(|&at| is_caption(name, at, label)))
    };
    let Some(label) = label else {
        let caption = caption(None);
        let Some(caption) = caption else {
            return Err(problem(format!(
                "it has neither a column of classes (`label`, `labels` or `class`) nor one of \
                 captions (`caption` or `text`); its columns are {}",
                column_names(metadata)
            )));
        };
        return Ok(Columns { picture, label: None, path, caption: Some(caption) });
    };
    let odd = |what: &str| {
        problem(format!(
            "its column `{}` holds {what}, and a class is a whole number or a name; convert it",
            label.name()
        ))
    };
    if !label.is_primitive() {
        return Err(odd(match label.get_basic_info().logical_type_ref() {
            Some(LogicalType::List) => "lists",
            Some(LogicalType::Map) => "maps",
            _ => "lists or structs",
        }));
    }
    if label.get_basic_info().has_repetition()
        && label.get_basic_info().repetition() == Repetition::REPEATED
    {
        return Err(odd("lists"));
    }
    let label = named(label.name()).ok_or_else(|| odd("structs"))?;
    if let Some(what) = odd_label(&schema.column(label)) {
        return Err(odd(&what));
    }
    let (label, path) = (Some(label), path.filter(|&path| path != label));
    Ok(Columns { picture, label, path, caption: caption(label) })
}

/// What a column of classes holds that is none.
fn odd_label(column: &ColumnDescriptor) -> Option<String> {
    let whole = |what: &str| Some(what.to_owned());
    match column.physical_type() {
        Physical::FLOAT | Physical::DOUBLE => return whole("fractions (floating-point numbers)"),
        Physical::INT96 => return whole("times"),
        Physical::FIXED_LEN_BYTE_ARRAY => return whole("bytes of fixed length"),
        Physical::BOOLEAN | Physical::INT32 | Physical::INT64 | Physical::BYTE_ARRAY => {}
    }
    match column.logical_type_ref() {
        Some(LogicalType::Decimal { .. }) => whole("decimal fractions"),
        Some(LogicalType::Date) => whole("dates"),
        Some(LogicalType::Time { .. } | LogicalType::Timestamp { .. }) => whole("times"),
        None | Some(LogicalType::Integer { .. } | LogicalType::String | LogicalType::Enum) => None,
        Some(other) => Some(format!("values of the type {other:?}")),
    }
}

/// All values of a column in a row group.
fn read_column(
    path: &Path,
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Column, PixelsError> {
    let compression = reader.metadata().row_group(group).column(column).compression();
    if compression == Compression::LZO {
        let problem = "it is compressed by LZO, which is not read; write it again with \
                       `compression=\"zstd\"` or another";
        return Err(PixelsError::data_set(path.display(), problem));
    }
    guarded(|| values(reader, group, column)).map_err(damaged(path))
}

fn values(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Column, ParquetError> {
    let description = reader.metadata().file_metadata().schema_descr().column(column);
    let full = description.max_def_level();
    if description.max_rep_level() > 0 {
        return Err(ParquetError::General("a needed column holds lists".to_owned()));
    }
    let is_unsigned = match description.logical_type_ref() {
        Some(LogicalType::Integer(kind)) => !kind.is_signed,
        _ => matches!(
            description.converted_type(),
            ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        ),
    };
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
    let pages = group.get_column_page_reader(column)?;
    let pages = Box::new(CheckedPages { pages, has_dictionary: false });
    Ok(match get_column_reader(description, pages) {
        ColumnReader::ByteArrayColumnReader(mut column) => Column::Bytes(read!(column)),
        ColumnReader::Int64ColumnReader(mut column) => {
            let values: Vec<Option<i64>> = read!(column);
            let number = |value: i64| match is_unsigned && value < 0 {
                true => i64::MAX,
                false => value,
            };
            Column::Numbers(values.into_iter().map(|value| value.map(number)).collect())
        }
        ColumnReader::Int32ColumnReader(mut column) => {
            let values: Vec<Option<i32>> = read!(column);
            // A number without sign has the same bits as one with.
            let number = |value: i32| match is_unsigned {
                true => i64::from(value as u32),
                false => i64::from(value),
            };
            Column::Numbers(values.into_iter().map(|value| value.map(number)).collect())
        }
        ColumnReader::BoolColumnReader(mut column) => Column::Truths(read!(column)),
        _ => return Err(ParquetError::General("a needed column is of an unusual type".to_owned())),
    })
}

/// The texts of a column in a row group, row by row: one, or those of a list.
fn read_captions(
    path: &Path,
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Vec<Vec<String>>, PixelsError> {
    let description = reader.metadata().file_metadata().schema_descr().column(column);
    if description.max_rep_level() == 0 {
        return Ok(match read_column(path, reader, group, column)? {
            Column::Bytes(texts) => {
                let captions =
                    |bytes: Option<ByteArray>| captions::of_texts(bytes.as_ref().and_then(text));
                texts.into_iter().map(captions).collect()
            }
            _ => Vec::new(),
        });
    }
    guarded(|| lists(reader, group, column)).map_err(damaged(path))
}

/// The texts of a column of lists.
fn lists(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Vec<Vec<String>>, ParquetError> {
    let description = reader.metadata().file_metadata().schema_descr().column(column);
    let full = description.max_def_level();
    let group = reader.get_row_group(group)?;
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let pages = group.get_column_page_reader(column)?;
    let pages = Box::new(CheckedPages { pages, has_dictionary: false });
    let ColumnReader::ByteArrayColumnReader(mut reader) = get_column_reader(description, pages)
    else {
        return Err(ParquetError::General("a column of captions holds no texts".to_owned()));
    };
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, ..) = reader.read_records(
            rows - read,
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )?;
        if records == 0 {
            return Err(ParquetError::General(format!("row {read} of {rows} is missing")));
        }
        read += records;
    }
    let mut values = values.iter();
    let mut lists: Vec<Vec<String>> = Vec::new();
    for (definition, repetition) in definitions.into_iter().zip(repetitions) {
        if repetition == 0 {
            lists.push(Vec::new());
        }
        // Less than full is an empty list, or a missing one or entry.
        if definition == full
            && let (Some(list), Some(value)) = (lists.last_mut(), values.next())
        {
            list.extend(captions::of_texts(text(value)));
        }
    }
    Ok(lists)
}

fn text(bytes: &ByteArray) -> Option<String> {
    bytes.as_utf8().ok().map(str::to_owned)
}

/// Which rows of a row group have no picture; nothing where all have one, or where the file does not
/// say so.
fn without_picture(
    path: &Path,
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
) -> Result<Option<Vec<bool>>, PixelsError> {
    let statistics = reader.metadata().row_group(group).column(column).statistics();
    match statistics.and_then(|statistics| statistics.null_count_opt()) {
        Some(1..) => {}
        _ => return Ok(None),
    }
    // All pictures of the group, but only where some are missing.
    match read_column(path, reader, group, column)? {
        Column::Bytes(pictures) => {
            let is_missing = |picture: &Option<ByteArray>| picture.is_none();
            Ok(Some(pictures.iter().map(is_missing).collect()))
        }
        _ => Ok(None),
    }
}

fn list(path: &Path) -> Result<Listed, PixelsError> {
    let problem = |text: String| PixelsError::data_set(path.display(), text);
    let reader = reader(path)?;
    let metadata = reader.metadata();
    let Columns { picture, label, path: paths, caption } = columns(path, metadata)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();

    let (mut rows, mut left_out, mut number) = (Vec::new(), Ledger::default(), 0);
    for group in 0..metadata.num_row_groups() {
        let size = metadata.row_group(group).column(picture).uncompressed_size();
        if size > MAX_GROUP {
            return Err(problem(format!(
                "row group {group} holds {size} bytes of pictures, too many to be read at once; \
                 write it again with row groups of a hundred pictures"
            )));
        }
        let texts = |column: Option<usize>| -> Result<Option<Vec<Option<ByteArray>>>, PixelsError> {
            let Some(column) = column else { return Ok(None) };
            match read_column(path, &reader, group, column)? {
                Column::Bytes(values) => Ok(Some(values)),
                _ => Ok(None),
            }
        };
        let names = texts(paths)?;
        let mut captions = match caption {
            Some(column) => read_captions(path, &reader, group, column)?,
            None => Vec::new(),
        };
        let missing = without_picture(path, &reader, group, picture)?;
        let class_of = |number: Option<i64>| number.map_or(Err(NO_CLASS), Class::number);
        let column = match label {
            Some(label) => Some(read_column(path, &reader, group, label)?),
            None => None,
        };
        let rows_here = metadata.row_group(group).num_rows().max(0) as usize;
        let classes: Vec<Result<Option<Class>, &'static str>> = match column {
            // Each row needs a caption or a class.
            None => (0..rows_here)
                .map(|row| match captions.get(row).is_some_and(|captions| !captions.is_empty()) {
                    true => Ok(None),
                    false => Err(captions::NO_CAPTION),
                })
                .collect(),
            Some(column) => match column {
                Column::Numbers(numbers) => numbers.into_iter().map(class_of).collect(),
                Column::Bytes(names) => names
                    .iter()
                    .map(|name| match name {
                        None => Err(NO_CLASS),
                        Some(name) => {
                            let name = name.as_utf8().map_err(|_| "its class is no UTF-8 text");
                            name.and_then(Class::name)
                        }
                    })
                    .collect(),
                Column::Truths(truths) => truths
                    .into_iter()
                    .map(|truth| {
                        let name = truth.map(|truth| if truth { "true" } else { "false" });
                        name.map_or(Err(NO_CLASS), Class::name)
                    })
                    .collect::<Vec<Result<Class, &'static str>>>(),
            }
            .into_iter()
            .map(|class| class.map(Some))
            .collect(),
        };
        for (row, class) in classes.into_iter().enumerate() {
            let of = |texts: &Option<Vec<Option<ByteArray>>>| {
                texts.as_ref().and_then(|texts| texts.get(row)?.as_ref().and_then(text))
            };
            // A name is a line in a token cache.
            let name = of(&names).filter(|name| !name.is_empty() && !name.contains('\n'));
            let name = name.unwrap_or_else(|| format!("{stem}/{number}"));
            number += 1;
            let is_missing = missing.as_ref().and_then(|missing| missing.get(row));
            match class {
                _ if is_missing == Some(&true) => left_out.lose(&name, "no picture"),
                Err(reason) => left_out.lose(&name, reason),
                Ok(class) => {
                    let captions = captions.get_mut(row).map(std::mem::take).unwrap_or_default();
                    rows.push(Row { group, row, name, class, captions });
                }
            }
        }
    }
    let names_of_numbers = class_label(metadata).map(|(_, names)| names);
    Ok(Listed { names_of_numbers, rows, left_out })
}

/// The column of classes and their names in the metadata that Hugging Face's library writes. Of
/// several columns that whose name is preferred.
fn class_label(metadata: &ParquetMetaData) -> Option<(String, Vec<String>)> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let description: Value = serde_json::from_str(text).ok()?;
    let features = description.get("info")?.get("features")?.as_object()?;
    let names = |feature: &Value| -> Option<Vec<String>> {
        let names = serde_json::from_value::<Vec<String>>(feature.get("names")?.clone()).ok()?;
        Some(names.iter().map(|name| normalized(name)).collect())
    };
    let preferred =
        LABELS.iter().find_map(|&label| Some((label.to_owned(), names(features.get(label)?)?)));
    preferred.or_else(|| {
        let mut labels = features
            .iter()
            .filter(|(_, feature)| feature.get("_type").is_some_and(|kind| kind == "ClassLabel"))
            .filter_map(|(label, feature)| Some((label.clone(), names(feature)?)));
        labels.next()
    })
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

    fn captions(&self, index: usize) -> &[String] {
        &self.samples[index].captions
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

    fn read_as(&self) -> String {
        let files = match self.files.len() {
            1 => "1 Parquet file".to_owned(),
            count => format!("{count} Parquet files"),
        };
        format!("{files}, {}", super::counted(self.classes.len()))
    }

    fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }
}
