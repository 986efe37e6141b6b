//! Writing one shard.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    CacheError, CacheHeader, FRAME, Footer, HEADER_FILE, Shard, array, file_error, record_checksum,
};
use crate::CodebookIndex;

/// How many bytes of records wait in memory before they are written.
const BUFFER: usize = 1 << 18;

/// A file, and what should still be appended to it.
#[derive(Debug)]
struct Appended {
    file: File,
    path: PathBuf,
    /// Bytes on disk that count.
    size: u64,
    waiting: Vec<u8>,
}

impl Appended {
    /// Cuts the file to the part that counts.
    fn new(file: File, path: PathBuf, size: u64) -> Result<Self, CacheError> {
        file.set_len(size).map_err(file_error(&path))?;
        Ok(Self { file, path, size, waiting: Vec::new() })
    }

    /// Brings what waits to the disk. After an error it can be called again.
    fn flush(&mut self) -> Result<(), CacheError> {
        let mut write = || {
            self.file.seek(SeekFrom::Start(self.size))?;
            self.file.write_all(&self.waiting)?;
            self.file.sync_data()
        };
        write().map_err(file_error(&self.path))?;
        self.size += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Writes the records of one shard, in order.
///
/// Nothing is lost that was [flushed](Self::flush); a shard counts as written only after
/// [`finish`](Self::finish). The shard stays locked while the writer lives.
#[derive(Debug)]
pub struct CacheWriter {
    dir: PathBuf,
    header: CacheHeader,
    shard: Shard,
    records: Appended,
    names: Appended,
    names_checksum: u32,
    len: usize,
}

impl CacheWriter {
    /// Starts a shard, or goes on with one that was not finished: see [`len`](Self::len). The
    /// folder is created where it is missing.
    ///
    /// # Errors
    /// * [`CacheError::Complete`] if the shard is finished,
    /// * [`CacheError::Locked`] if another writer is at work on it,
    /// * [`CacheError::Tokenizer`], [`CacheError::HeaderMismatch`] or [`CacheError::Division`] if
    ///   the folder holds another cache,
    /// * [`CacheError::Header`] if the header makes no sense,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn create_or_resume(
        dir: impl Into<PathBuf>,
        header: CacheHeader,
        shard: Shard,
    ) -> Result<Self, CacheError> {
        let dir = dir.into();
        if let Err(reason) = header.validate() {
            return Err(CacheError::Header { path: dir.join(HEADER_FILE), reason });
        }
        fs::create_dir_all(&dir).map_err(file_error(&dir))?;
        check_header(&dir, &header)?;
        let mut counts = Shard::divisions(&dir)?;
        counts.retain(|&count| count != shard.count);
        if !counts.is_empty() {
            counts.push(shard.count);
            return Err(CacheError::Division { dir, counts });
        }

        // The names file carries the lock, because it is never renamed. The system releases the
        // lock when the process ends, however it ends.
        let names_path = shard.names_file(&dir);
        let names_file = open(&names_path)?;
        match names_file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CacheError::Locked { path: names_path }),
            Err(TryLockError::Error(source)) => {
                return Err(CacheError::File { path: names_path, source });
            }
        }
        let finished = shard.tokens_file(&dir);
        if finished.exists() {
            return Err(CacheError::Complete { path: finished });
        }
        write_header(&dir, &header, shard)?;

        let path = shard.partial_file(&dir);
        let file = open(&path)?;
        let preamble = header.preamble(shard);
        let records = whole_records(&file, &preamble, &header).map_err(file_error(&path))?;
        let names = whole_names(&names_file, records).map_err(file_error(&names_path))?;
        let size = FRAME as u64 + names.count * header.record_size() as u64;
        let mut records = Appended::new(file, path, size)?;
        records.file.seek(SeekFrom::Start(0)).map_err(file_error(&records.path))?;
        records.file.write_all(&preamble).map_err(file_error(&records.path))?;
        records.file.sync_data().map_err(file_error(&records.path))?;
        sync_folder(&dir)?;
        Ok(Self {
            names: Appended::new(names_file, names_path, names.size)?,
            names_checksum: names.checksum,
            len: usize::try_from(names.count).unwrap_or(usize::MAX),
            dir,
            header,
            shard,
            records,
        })
    }

    /// How many records the shard has; a resumed writer goes on with the sample of this number.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the shard has no records yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The shard that is written.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Appends a sample: its class, its name in the data set, and the tokens of its views one
    /// after the other.
    ///
    /// # Errors
    /// * [`CacheError::Sample`] if a number is out of the header's range or the name holds a line
    ///   break; nothing is stored then,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn append(
        &mut self,
        label: usize,
        name: &str,
        tokens: &[CodebookIndex],
    ) -> Result<(), CacheError> {
        let CacheHeader { codes, classes, views, layout, .. } = &self.header;
        let reason = if label >= classes.len() {
            Some(format!("class {label} of {}", classes.len()))
        } else if tokens.len() != self.header.tokens() {
            let length = layout.len();
            Some(format!("{} tokens instead of {views} views of {length}", tokens.len()))
        } else if let Some(token) = tokens.iter().find(|&&token| usize::from(token) >= *codes) {
            Some(format!("token {token} of a codebook of {codes}"))
        } else if name.contains(['\n', '\r']) {
            Some("its name holds a line break".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(CacheError::Sample { name: name.to_owned(), reason });
        }
        let label = u32::try_from(label).map_err(|_| CacheError::Sample {
            name: name.to_owned(),
            reason: format!("class {label} needs more than 32 bits"),
        })?;

        let waiting = &mut self.records.waiting;
        let start = waiting.len();
        waiting.extend(label.to_le_bytes());
        waiting.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        let checksum = record_checksum(self.len as u64, &waiting[start..]);
        waiting.extend(checksum.to_le_bytes());
        let line = self.names.waiting.len();
        self.names.waiting.extend(name.bytes().chain([b'\n']));
        self.names_checksum =
            crc32c::crc32c_append(self.names_checksum, &self.names.waiting[line..]);
        self.len += 1;
        if self.records.waiting.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Brings all samples so far to the disk; worth a call after each batch of the encoder.
    ///
    /// # Errors
    /// If the operating system fails; it may be called again.
    pub fn flush(&mut self) -> Result<(), CacheError> {
        if self.records.waiting.is_empty() {
            return Ok(());
        }
        // In this order: a record on the disk is the promise that its name is there too.
        self.names.flush()?;
        self.records.flush()
    }

    /// Completes the shard.
    ///
    /// # Errors
    /// If the operating system fails.
    pub fn finish(mut self) -> Result<(), CacheError> {
        self.flush()?;
        let footer = Footer {
            records: self.len as u64,
            names_size: self.names.size,
            names_checksum: self.names_checksum,
        };
        self.records.waiting.extend(footer.to_bytes());
        self.records.flush()?;
        let finished = self.shard.tokens_file(&self.dir);
        fs::rename(&self.records.path, &finished).map_err(file_error(&finished))?;
        sync_folder(&self.dir)
    }
}

fn open(path: &Path) -> Result<File, CacheError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(file_error(path))
}

/// Makes new and renamed files of a folder survive a power failure.
fn sync_folder(dir: &Path) -> Result<(), CacheError> {
    // Other systems cannot open a folder as a file, and do it by themselves.
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(file_error(dir))?;
    }
    Ok(())
}

/// Checks that the folder has no other cache's header.
fn check_header(dir: &Path, header: &CacheHeader) -> Result<(), CacheError> {
    let path = dir.join(HEADER_FILE);
    if !path.exists() {
        return Ok(());
    }
    let found = CacheHeader::read(dir)?;
    found.check_tokenizer(dir, &header.tokenizer)?;
    let differences = [
        ("layout", found.layout != header.layout),
        ("codebook's size", found.codes != header.codes),
        ("list of classes", found.classes != header.classes),
        ("number of views", found.views != header.views),
        ("augmentation", found.augmentation != header.augmentation),
    ];
    match differences.into_iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(CacheError::HeaderMismatch { path, field }),
        None => Ok(()),
    }
}

fn write_header(dir: &Path, header: &CacheHeader, shard: Shard) -> Result<(), CacheError> {
    let path = dir.join(HEADER_FILE);
    // Writers of several shards may get here at once, each with the same content.
    let partial = dir.join(format!("{HEADER_FILE}.{}.partial", shard.suffix()));
    if path.exists() {
        // One that a killed writer left behind.
        return if partial.exists() {
            fs::remove_file(&partial).map_err(file_error(&partial))
        } else {
            Ok(())
        };
    }
    File::create(&partial)
        .and_then(|mut file| {
            file.write_all(header.to_json().as_bytes())?;
            file.sync_all()
        })
        .map_err(file_error(&partial))?;
    fs::rename(&partial, &path).map_err(file_error(&path))
}

/// How many records stand whole behind the preamble.
fn whole_records(file: &File, preamble: &[u8; FRAME], header: &CacheHeader) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut found = [0; FRAME];
    if !read_whole(&mut reader, &mut found)? || found != *preamble {
        return Ok(0);
    }
    let mut record = vec![0; header.record_size()];
    let mut count = 0;
    while read_whole(&mut reader, &mut record)? {
        let (content, checksum) = record.split_at(record.len() - size_of::<u32>());
        if record_checksum(count, content) != u32::from_le_bytes(array(checksum)) {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// Fills the buffer, unless the file ends before.
fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The names that count.
#[derive(Debug, Default)]
struct WholeNames {
    count: u64,
    size: u64,
    checksum: u32,
}

/// The first whole lines, at most `count`.
fn whole_names(file: &File, count: u64) -> io::Result<WholeNames> {
    let mut reader = BufReader::new(file);
    let mut names = WholeNames::default();
    let mut line = Vec::new();
    while names.count < count {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        names.count += 1;
        names.size += line.len() as u64;
        names.checksum = crc32c::crc32c_append(names.checksum, &line);
    }
    Ok(names)
}
