//! Files that say the classes of pictures in a folder: tables, JSON, or one class a line.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use csv_core::ReadRecordResult;
use serde_json::Value;

use super::{
    captions,
    classes::{Class, NO_CLASS, Numbering, normalized},
    left_out::Ledger,
    rules::{self, Kind},
};
use crate::PixelsError;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// Most columns that are looked at.
const MAX_COLUMNS: usize = 1000;
/// Names of columns with the file's name, in lower case.
const FILES: [&str; 20] = [
    "file",
    "file_name",
    "file_path",
    "filename",
    "filepath",
    "fname",
    "id",
    "image",
    "image_file",
    "image_id",
    "image_name",
    "image_path",
    "imageid",
    "images",
    "img",
    "img_path",
    "key",
    "name",
    "path",
    "picture",
];
/// Names of columns with the class, in lower case, in the order in which they are taken.
const LABELS: [&str; 20] = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "cls",
    "category",
    "target",
    "class_id",
    "label_id",
    "category_id",
    "label_name",
    "category_name",
    "synset",
    "wnid",
    "species",
    "breed",
    "predictionstring",
    "y",
    "tag",
];
const NOT_LISTED: &str = "not in the label file";
const MISSING: &str = "in the label file, but not in the folder";

/// What a label file says of the pictures in a folder.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) classes: Vec<String>,
    /// Of each picture that was given, in the same order; nothing where it has no class.
    pub(crate) labels: Vec<Option<usize>>,
    /// Of each picture; none where the file has none.
    pub(crate) captions: Vec<Vec<String>>,
    /// How the file was read, such as `comma-separated, with a heading`.
    pub(crate) reading: String,
    /// Whether its lines name pictures, and do not only follow their order.
    pub(crate) names_pictures: bool,
}

/// A table of texts.
#[derive(Debug, Default)]
struct Table {
    /// Names of the columns, where the format always has them.
    heading: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
    reading: String,
    /// Whether it is of captions, and a column is of classes only if it is called so.
    is_of_captions: bool,
}

/// Reads the classes of `pictures`, which are paths below `root`. What the file lists and is not
/// there, and what is there and not listed, is noted in `ledger`.
///
/// # Errors
/// [`PixelsError::Read`], or [`PixelsError::DataSet`] for a file that does not fit the pictures or
/// fits them in several ways.
pub(crate) fn read(
    path: &Path,
    root: &Path,
    pictures: &[String],
    ledger: &mut Ledger,
) -> Result<Labels, PixelsError> {
    let problem = |problem: String| PixelsError::data_set(path.display(), problem);
    let size = std::fs::metadata(path).map_err(PixelsError::read(path))?.len();
    if size > MAX_FILE {
        return Err(problem(format!("it has {size} bytes, too many for a file of labels")));
    }
    let bytes = std::fs::read(path).map_err(PixelsError::read(path))?;
    let text = text(&bytes).map_err(problem)?;
    let matcher = Matcher::new(root, pictures);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    let mut table = match ending.as_deref() {
        Some("json" | "jsonl" | "ndjson") => from_json(text).map_err(problem)?,
        _ => from_text(text, &matcher, pictures.len()),
    };
    let name = path.file_name().map(|name| name.to_string_lossy());
    table.is_of_captions = name.is_some_and(|name| captions::is_table(&name));
    assign(table, &matcher, pictures, ledger).map_err(problem)
}

/// Bytes as text without a byte-order mark.
fn text(bytes: &[u8]) -> Result<&str, String> {
    let zeros = |parity: usize| {
        let places = bytes.iter().take(64).skip(parity).step_by(2);
        bytes.len() > 3 && places.clone().all(|&byte| byte == 0) && places.count() > 0
    };
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || zeros(0) || zeros(1)
    {
        return Err("it is UTF-16 text; save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)".to_owned());
    }
    let bytes = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        format!(
            "it is no UTF-8 text from byte {} on; save it as UTF-8 (`iconv -f LATIN1 -t UTF-8`)",
            error.valid_up_to()
        )
    })
}

/// How a path in a label file fits a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Nothing,
    One(Found),
    /// Two of several that fit as well as each other.
    Several(usize, usize),
}

/// A picture that a path fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    picture: usize,
    /// How well its folders fit: the larger, the better.
    grade: u8,
    /// Whether the path has the picture's ending.
    is_whole: bool,
}

/// Finds pictures by the paths that a label file has for them.
struct Matcher {
    pictures: Vec<String>,
    /// The folder's own path.
    root: Vec<String>,
    by_name: HashMap<String, Vec<usize>>,
    by_stem: HashMap<String, Vec<usize>>,
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."))
}

impl Matcher {
    fn new(root: &Path, pictures: &[String]) -> Self {
        let root = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let root = parts(&root.to_string_lossy()).map(normalized).collect();
        let pictures: Vec<String> = pictures.iter().map(|path| normalized(path)).collect();
        let (mut by_name, mut by_stem) = (HashMap::new(), HashMap::new());
        for (index, path) in pictures.iter().enumerate() {
            let name = path.rsplit('/').next().unwrap_or(path);
            let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
            by_stem.entry(stem.to_owned()).or_insert_with(Vec::new).push(index);
            by_name.entry(name.to_owned()).or_insert_with(Vec::new).push(index);
        }
        Self { pictures, root, by_name, by_stem }
    }

    /// The picture that a listed path means. It may have more folders in front than the picture has
    /// below the root, or fewer, and may lack the ending.
    fn find(&self, listed: &str) -> Fit {
        let listed = normalized(listed);
        let Some(name) = parts(&listed).next_back() else { return Fit::Nothing };
        let (candidates, is_whole) = match self.by_name.get(name) {
            Some(candidates) => (Some(candidates), true),
            None => (self.by_stem.get(name), false),
        };
        let mut best: Option<Found> = None;
        let mut equal = None;
        for &picture in candidates.into_iter().flatten() {
            let grade = self.grade(&listed, picture);
            match best {
                _ if grade == 0 => {}
                Some(known) if grade == known.grade => equal = Some(picture),
                Some(known) if grade < known.grade => {}
                _ => (best, equal) = (Some(Found { picture, grade, is_whole }), None),
            }
        }
        match (best, equal) {
            (Some(best), Some(other)) => Fit::Several(best.picture, other),
            (Some(best), None) => Fit::One(best),
            (None, _) => Fit::Nothing,
        }
    }

    /// How well the folders of a listed path fit those of a picture: 3 if they are all of those below
    /// the root, and those in front are the root's own; 2 if they are the last of them; 1 if there
    /// are others in front; 0 if they differ.
    fn grade(&self, listed: &str, picture: usize) -> u8 {
        let mut listed = parts(listed).rev().skip(1);
        for folder in parts(&self.pictures[picture]).rev().skip(1) {
            match listed.next() {
                Some(same) if same == folder => {}
                Some(_) => return 0,
                None => return 2,
            }
        }
        let mut root = self.root.iter().rev();
        match listed.all(|part| root.next().is_some_and(|folder| folder == part)) {
            true => 3,
            false => 1,
        }
    }

    /// Whether these cells name a picture: by its whole name 2, without its ending 1.
    fn names_one<'c>(&self, cells: impl Iterator<Item = &'c String>) -> u8 {
        let fit = |cell: &String| match self.find(cell) {
            Fit::Nothing => 0,
            Fit::One(Found { is_whole: false, .. }) => 1,
            Fit::One(_) | Fit::Several(..) => 2,
        };
        cells.map(fit).max().unwrap_or(0)
    }
}

/// Separated values, blank-separated lines, or one class a line: whatever fits most pictures.
fn from_text(text: &str, matcher: &Matcher, pictures: usize) -> Table {
    const DELIMITERS: [(u8, &str); 4] = [
        (b'\t', "tab-separated"),
        (b',', "comma-separated"),
        (b';', "semicolon-separated"),
        (b'|', "separated by `|`"),
    ];
    // Excel's own first line.
    let text = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("sep=") => rest,
        _ => text,
    };
    // Rows that name a picture by its whole name, then those that do so without its ending.
    let mut best: Option<([usize; 2], Table)> = None;
    let mut offer = |table: Table| {
        let mut fits = [0; 2];
        for row in table.rows.iter().filter(|row| row.len() > 1) {
            match matcher.names_one(row.iter()) {
                2 => fits[0] += 1,
                1 => fits[1] += 1,
                _ => {}
            }
        }
        // At equality the first stays.
        if best.as_ref().is_none_or(|(most, _)| fits > *most) {
            best = Some((fits, table));
        }
    };
    for quoting in [true, false] {
        for (delimiter, reading) in DELIMITERS {
            if text.as_bytes().contains(&delimiter) && (quoting || text.contains('"')) {
                let rows = separated(text, delimiter, quoting);
                offer(Table { rows, reading: reading.to_owned(), ..Table::default() });
            }
        }
    }
    let lines = text.split(['\n', '\r']).map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let rows = lines.iter().map(|line| at_blanks(line, matcher)).collect();
    offer(Table { rows, reading: "separated by blanks".to_owned(), ..Table::default() });
    match best {
        Some((fits, table)) if fits != [0; 2] => table,
        best => {
            let rows: Vec<_> = lines.iter().map(|line| vec![(*line).to_owned()]).collect();
            let headed =
                rows.first().is_some_and(|row| heads_classes(row)) && rows.len() == pictures + 1;
            // One class a line, if it could be that, or what the message will speak of.
            if rows.len() == pictures || headed || best.is_none() {
                let reading = "one class a line".to_owned();
                return Table { rows, reading, ..Table::default() };
            }
            best.map(|(_, table)| table).unwrap_or_default()
        }
    }
}

fn separated(text: &str, delimiter: u8, quoting: bool) -> Vec<Vec<String>> {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build();
    let cell = |bytes: &[u8]| {
        // Cells end at signs of one byte, so that they are text as the whole is.
        let cell = String::from_utf8_lossy(bytes);
        let cell = cell.trim();
        // A quote behind a blank is none to the reader.
        let quoted = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
        quoted.unwrap_or(cell).to_owned()
    };
    let mut rows = Vec::new();
    let mut input = text.as_bytes();
    // The cells of a row, one behind the other, and where they end.
    let (mut cells, mut ends) = (vec![0; 1024], vec![0; 32]);
    let (mut filled, mut count) = (0, 0);
    loop {
        let (result, read, written, ended) =
            reader.read_record(input, &mut cells[filled..], &mut ends[count..]);
        input = &input[read..];
        filled += written;
        count += ended;
        match result {
            // The next call, without input, is told that this is the end.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull => cells.resize(2 * cells.len(), 0),
            ReadRecordResult::OutputEndsFull => ends.resize(2 * ends.len(), 0),
            ReadRecordResult::Record => {
                let starts = [0].into_iter().chain(ends[..count].iter().copied());
                let row: Vec<String> =
                    starts.zip(&ends[..count]).map(|(from, &to)| cell(&cells[from..to])).collect();
                if row.iter().any(|cell| !cell.is_empty()) {
                    rows.push(row);
                }
                (filled, count) = (0, 0);
            }
            ReadRecordResult::End => return rows,
        }
    }
}

/// A line of a picture's path and its class with blanks between and, maybe, within them: the longest
/// beginning that is a picture's path, and the rest.
fn at_blanks(line: &str, matcher: &Matcher) -> Vec<String> {
    let blanks = line.char_indices().filter(|(_, sign)| sign.is_whitespace());
    let places: Vec<usize> = blanks.map(|(place, _)| place).take(16).collect();
    let split = |place: usize| [&line[..place], line[place..].trim()].map(str::to_owned).to_vec();
    let is_path = |&&place: &&usize| !matches!(matcher.find(&line[..place]), Fit::Nothing);
    if let Some(&place) = places.iter().rev().find(is_path) {
        return split(place);
    }
    // The class may stand in front.
    if let Some((class, path)) = line.rsplit_once(char::is_whitespace)
        && !matches!(matcher.find(path), Fit::Nothing)
    {
        return vec![class.trim().to_owned(), path.to_owned()];
    }
    places.first().map_or_else(|| vec![line.to_owned()], |&place| split(place))
}

fn from_json(text: &str) -> Result<Table, String> {
    let mut objects = Vec::new();
    let whole: Result<Value, _> = serde_json::from_str(text);
    let reading;
    match whole {
        Ok(Value::Array(items)) => {
            reading = "a JSON list";
            objects = items;
        }
        // As StyleGAN's tools write it.
        Ok(Value::Object(map)) if map.get("labels").is_some_and(|labels| !labels.is_string()) => {
            reading = "JSON with `labels`";
            match &map["labels"] {
                Value::Array(items) => objects.clone_from(items),
                Value::Object(pairs) => objects.extend(pairs.iter().map(pair)),
                _ => return Err("its `labels` are neither a list nor an object".to_owned()),
            }
        }
        Ok(Value::Object(map))
            if text.lines().filter(|line| !line.trim().is_empty()).count() == 1
                && map.keys().any(|key| FILES.contains(&key.to_lowercase().as_str())) =>
        {
            reading = "JSON lines";
            objects.push(Value::Object(map));
        }
        Ok(Value::Object(map)) => {
            reading = "a JSON object of pictures";
            objects.extend(map.iter().map(pair));
        }
        Ok(_) => return Err("it is JSON, but neither a list nor an object".to_owned()),
        Err(error) => {
            reading = "JSON lines";
            for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
                let object = serde_json::from_str(line).map_err(|_| {
                    format!(
                        "it is neither JSON ({error}) nor one JSON object a line (line {})",
                        number + 1
                    )
                })?;
                objects.push(object);
            }
        }
    }
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut heading: Vec<String> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut width = 0;
    for object in &objects {
        match object {
            Value::Object(map) => {
                for key in map.keys().filter(|key| !known.contains(*key)).collect::<Vec<_>>() {
                    known.insert(key.clone());
                    heading.push(key.clone());
                }
            }
            Value::Array(items) => width = width.max(items.len()),
            _ => return Err("its entries are neither objects nor lists of file and class".into()),
        }
    }
    // Rows of hostile files could be as wide as the file is long.
    if heading.len() > MAX_COLUMNS || width > MAX_COLUMNS {
        return Err("its entries have too many fields".to_owned());
    }
    let rows = objects.iter().map(|object| match object {
        Value::Object(map) => {
            heading.iter().map(|key| map.get(key).map(cell).unwrap_or_default()).collect()
        }
        Value::Array(items) => items.iter().map(cell).collect(),
        _ => Vec::new(),
    });
    let rows = rows.collect();
    let heading = (!heading.is_empty()).then_some(heading);
    Ok(Table { heading, rows, reading: reading.to_owned(), ..Table::default() })
}

fn pair((file, class): (&String, &Value)) -> Value {
    match class {
        // `{"0.jpg": {"label": "cat"}}`
        Value::Object(map) => {
            let mut map = map.clone();
            map.insert("file_name".to_owned(), Value::String(file.clone()));
            Value::Object(map)
        }
        class => Value::Array(vec![Value::String(file.clone()), class.clone()]),
    }
}

/// Gives each picture the class that the table has for it.
fn assign(
    table: Table,
    matcher: &Matcher,
    pictures: &[String],
    ledger: &mut Ledger,
) -> Result<Labels, String> {
    let Table { heading, mut rows, reading, is_of_captions } = table;
    let fits = |cell: &String| matcher.find(cell) != Fit::Nothing;
    let width = rows.iter().map(Vec::len).max().unwrap_or(0).min(MAX_COLUMNS);
    // Most whole names, then most different pictures: a column of numbers may look like names
    // without endings.
    let mut most = (0, 0);
    let mut file_column = 0;
    for column in 0..width {
        let (mut whole, mut different) = (0, HashSet::new());
        for cell in rows.iter().filter_map(|row| row.get(column)) {
            match matcher.find(cell) {
                Fit::Nothing => {}
                Fit::One(found) => {
                    whole += usize::from(found.is_whole);
                    different.insert(found.picture);
                }
                Fit::Several(picture, _) => {
                    different.insert(picture);
                }
            }
        }
        if (whole, different.len()) > most {
            (file_column, most) = (column, (whole, different.len()));
        }
    }
    if most == (0, 0) && is_of_captions {
        return Err(format!("none of its {} lines names one of the pictures", rows.len()));
    }
    if most == (0, 0) {
        return one_class_a_line(rows, &reading, pictures);
    }

    let from_format = heading.is_some();
    let heading = heading.or_else(|| take_heading(&mut rows, file_column, &fits));
    let columns = match is_of_captions {
        true => Columns::of_captions(heading.as_deref(), file_column, width)?,
        false => Columns::find(heading.as_deref(), file_column, width)?,
    };
    let mut reading = match heading.is_some() && !from_format {
        true => format!("{reading}, with a heading"),
        false => reading,
    };
    if let (Some(heading), Some(column)) = (&heading, columns.class) {
        reading += &format!(", classes from `{}`", heading[column]);
    }

    // For each picture the rows that fit it best.
    let mut chosen: Vec<Option<(u8, usize)>> = vec![None; pictures.len()];
    let mut fitting = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        let listed = row.get(file_column).map_or("", String::as_str);
        match matcher.find(listed) {
            Fit::Nothing if listed.is_empty() => {}
            Fit::Nothing => ledger.lose(listed, MISSING),
            Fit::Several(a, b) => {
                return Err(format!(
                    "{listed:?} fits several pictures, {} and {}; write their folders and endings",
                    pictures[a], pictures[b]
                ));
            }
            Fit::One(Found { picture: index, grade, .. }) => {
                if chosen[index].is_none_or(|(known, _)| grade > known) {
                    chosen[index] = Some((grade, number));
                }
                fitting.push((number, index, grade));
            }
        }
    }
    let mut captions = vec![Vec::new(); pictures.len()];
    let class = |row: usize| {
        let cell = columns.class.and_then(|column| rows[row].get(column));
        class_text(cell.map_or("", String::as_str))
    };
    for (number, index, grade) in fitting {
        let Some((best, first)) = chosen[index] else { continue };
        if grade < best {
            // The picture of another folder, for example of the training side.
            ledger.lose(&rows[number][file_column], MISSING);
        } else if number != first && class(number) != class(first) {
            return Err(format!(
                "it gives {} two classes, `{}` and `{}`; a picture has one",
                pictures[index],
                class(first),
                class(number)
            ));
        } else if let Some(cell) = columns.caption.and_then(|column| rows[number].get(column)) {
            captions[index].extend(captions::of_cell(cell));
        }
    }
    if columns.class.is_none() {
        let labels = chosen.iter().map(|row| row.map(|_| 0)).collect();
        note_unlisted(&chosen, pictures, ledger);
        let class = matcher.root.last().cloned().unwrap_or_else(|| "pictures".to_owned());
        return Ok(Labels {
            classes: vec![class],
            labels,
            captions,
            reading,
            names_pictures: true,
        });
    }
    let words: Vec<Option<String>> =
        chosen.iter().map(|row| row.map(|(_, row)| class(row))).collect();
    let (numbering, classes) = number(&words, pictures)?;
    let mut labels = Vec::with_capacity(pictures.len());
    for (class, picture) in classes.into_iter().zip(pictures) {
        labels.push(match class {
            Some(Ok(class)) => Some(numbering.label(&class)),
            Some(Err(reason)) => {
                ledger.lose(picture, reason);
                None
            }
            None => {
                ledger.lose(picture, NOT_LISTED);
                None
            }
        });
    }
    Ok(Labels { classes: numbering.classes, labels, captions, reading, names_pictures: true })
}

fn note_unlisted(chosen: &[Option<(u8, usize)>], pictures: &[String], ledger: &mut Ledger) {
    for (_, picture) in chosen.iter().zip(pictures).filter(|(row, _)| row.is_none()) {
        ledger.lose(picture, NOT_LISTED);
    }
}

/// Whether a row is the heading of a column of classes alone.
fn heads_classes(row: &[String]) -> bool {
    matches!(row, [name] if LABELS.contains(&name.to_lowercase().as_str()))
}

/// Classes without names, in the order of the sorted pictures.
fn one_class_a_line(
    mut rows: Vec<Vec<String>>,
    reading: &str,
    pictures: &[String],
) -> Result<Labels, String> {
    let is_single = |rows: &[Vec<String>]| rows.iter().all(|row| row.len() == 1);
    if is_single(&rows) && rows.len() == pictures.len() + 1 && heads_classes(&rows[0]) {
        rows.remove(0);
    }
    if !is_single(&rows) || rows.len() != pictures.len() || rows.is_empty() {
        let first = rows.first().map(|row| row.join(" ")).unwrap_or_default();
        let shown: String = first.chars().take(80).collect();
        return Err(format!(
            "none of its {} lines ({reading}) names one of the {} pictures, such as {}; the first is \
             {shown:?}. It needs a line with name and class for each picture, or exactly {} with the \
             class alone",
            rows.len(),
            pictures.len(),
            pictures.first().map_or("", String::as_str),
            pictures.len(),
        ));
    }
    let looks_like_a_file = |row: &Vec<String>| matches!(rules::kind(&row[0]), Kind::Picture(_));
    if rows.iter().any(looks_like_a_file) {
        return Err("it lists files without classes, and none of them is in the folder".to_owned());
    }
    let words: Vec<Option<String>> = rows.iter().map(|row| Some(class_text(&row[0]))).collect();
    let (numbering, classes) = number(&words, pictures)?;
    let labels = classes
        .into_iter()
        .zip(1..)
        .map(|(class, line)| match class {
            Some(Ok(class)) => Ok(Some(numbering.label(&class))),
            _ => Err(format!("line {line} has no class")),
        })
        .collect::<Result<_, _>>()?;
    let reading = "one class a line, in the order of the sorted pictures".to_owned();
    let captions = vec![Vec::new(); pictures.len()];
    Ok(Labels { classes: numbering.classes, labels, captions, reading, names_pictures: false })
}

/// A class as ImageNet's files have it: without the boxes behind it.
fn class_text(cell: &str) -> String {
    let cell = cell.trim();
    let mut words = cell.split_whitespace();
    let first = words.next().unwrap_or("");
    let digits = first.strip_prefix('n').unwrap_or(first);
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_box = |word: &str| word.parse::<f64>().is_ok() || word == first || is_wordnet(word);
    if is_number && words.all(is_box) { first.to_owned() } else { cell.to_owned() }
}

fn is_wordnet(word: &str) -> bool {
    word.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The first row, if it is a heading.
fn take_heading(
    rows: &mut Vec<Vec<String>>,
    file_column: usize,
    fits: &impl Fn(&String) -> bool,
) -> Option<Vec<String>> {
    let first = rows.first()?;
    if first.get(file_column).is_some_and(fits) {
        return None;
    }
    let is_known = |cell: &String| {
        let cell = cell.to_lowercase();
        let cell = cell.as_str();
        FILES.contains(&cell) || LABELS.contains(&cell) || captions::NAMES.contains(&cell)
    };
    let is_file = |row: &Vec<String>| {
        row.get(file_column)
            .is_some_and(|cell| matches!(rules::kind(cell), Kind::Picture(_)) && fits(cell))
    };
    let file = first.get(file_column).map_or("", String::as_str);
    let has_ending = matches!(rules::kind(file), Kind::Picture(_) | Kind::OtherPicture);
    let is_heading = !has_ending && (first.iter().any(is_known) || rows.iter().any(is_file));
    is_heading.then(|| rows.remove(0))
}

/// Which column holds what besides the files.
struct Columns {
    class: Option<usize>,
    caption: Option<usize>,
}

impl Columns {
    /// Those of a table of captions, whose column may have any name.
    fn of_captions(
        heading: Option<&[String]>,
        file_column: usize,
        width: usize,
    ) -> Result<Self, String> {
        let Some(heading) = heading else {
            let caption = Some(file_column + 1).filter(|&column| column < width);
            let caption = caption.ok_or("it lists pictures without captions behind them")?;
            return Ok(Self { class: None, caption: Some(caption) });
        };
        let called = |names: &[&str], column: &usize| {
            names.contains(&heading[*column].trim().to_lowercase().as_str())
        };
        let others = || (0..heading.len()).filter(|&column| column != file_column);
        let class = others().find(|column| called(&LABELS, column));
        let named =
            captions::NAMES.iter().find_map(|name| others().find(|column| called(&[name], column)));
        let caption = named.or_else(|| {
            let mut unknown =
                others().filter(|column| Some(*column) != class && !called(&FILES, column));
            unknown.next().filter(|_| unknown.next().is_none())
        });
        let problem = "it has no column `caption` or `text`";
        Ok(Self { class, caption: Some(caption.ok_or(problem)?) })
    }

    fn find(heading: Option<&[String]>, file_column: usize, width: usize) -> Result<Self, String> {
        let Some(heading) = heading else {
            // The column behind the file's; before it, if there is none behind.
            let class = match file_column + 1 < width {
                true => Some(file_column + 1),
                false => file_column.checked_sub(1),
            };
            let problem = "it lists pictures without classes";
            return Ok(Self { class: Some(class.ok_or(problem)?), caption: None });
        };
        let find = |names: &[&str]| {
            names.iter().find_map(|name| {
                let mut columns = (0..heading.len()).filter(|&column| column != file_column);
                columns.find(|&column| heading[column].trim().to_lowercase() == **name)
            })
        };
        let (class, caption) = (find(&LABELS), find(&captions::NAMES));
        if class.is_some() {
            return Ok(Self { class, caption });
        }
        let others: Vec<usize> = (0..heading.len())
            .filter(|&column| column != file_column && Some(column) != caption)
            // Columns without a name number the rows.
            .filter(|&column| {
                let name = heading[column].trim();
                !name.is_empty() && !name.starts_with("Unnamed:")
            })
            .filter(|&column| !FILES.contains(&heading[column].trim().to_lowercase().as_str()))
            .collect();
        match others[..] {
            [] if caption.is_some() => Ok(Self { class: None, caption }),
            [] => Err("it lists pictures without classes: it has no column `label`".to_owned()),
            [class] => Ok(Self { class: Some(class), caption }),
            _ => {
                let names: Vec<String> =
                    others.iter().map(|&column| format!("`{}`", heading[column])).collect();
                Err(format!(
                    "its columns {} may all hold the class; call the right one `label`",
                    names.join(", ")
                ))
            }
        }
    }
}

/// A class, or why there is none; nothing where the file says nothing.
type Said = Option<Result<Class, &'static str>>;

/// The classes of the words, and their numbering. Words that are all numbers are numbers; of
/// ImageNet's pictures these are ImageNet's own.
fn number(words: &[Option<String>], pictures: &[String]) -> Result<(Numbering, Vec<Said>), String> {
    let mut classes: Vec<Said> =
        words.iter().map(|word| word.as_ref().map(|word| Class::word(word))).collect();
    let is_name = |class: &Said| matches!(class, Some(Ok(Class::Name(_))));
    if classes.iter().any(is_name) {
        // Then what looks like a number is a name, too.
        classes = words.iter().map(|word| word.as_ref().map(|word| Class::name(word))).collect();
    }
    let is_imagenet =
        |path: &String| path.rsplit('/').next().is_some_and(|name| name.starts_with("ILSVRC2012_"));
    if pictures.iter().all(is_imagenet) {
        let identifiers: Vec<&str> =
            tokens::imagenet::classes().map(|(identifier, _)| identifier).collect();
        for class in &mut classes {
            if let Some(Ok(Class::Number(number))) = class {
                let identifier = identifiers.get(*number).ok_or_else(|| {
                    format!("class {number} is out of range: ImageNet's end with 999")
                })?;
                *class = Some(Class::name(identifier));
            }
        }
    }
    let found = classes.iter().filter_map(|class| class.as_ref().and_then(|c| c.as_ref().ok()));
    let numbering = Numbering::new(found)?;
    if numbering.classes.is_empty() {
        let reason = classes.iter().flatten().find_map(|class| class.as_ref().err());
        return Err(format!("no picture has a class: {}", reason.unwrap_or(&NO_CLASS)));
    }
    Ok((numbering, classes))
}
