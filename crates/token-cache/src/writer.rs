//! Writing one shard.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use tokens::CodebookIndex;

use crate::{
    CacheError, CacheHeader, FRAME, Footer, LEFT_OUT, LeftOut, Preamble, Shard, Stored,
    captions::{Summary, Tables},
    file_error,
};

/// Most bytes of a caption.
const MAX_CAPTION: usize = 1 << 24;
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
    captions: Option<Captions>,
    left_out: Vec<LeftOut>,
    len: usize,
}

/// The captions of a shard that has some.
#[derive(Debug)]
struct Captions {
    texts: Appended,
    /// CRC-32C of the texts so far.
    checksum: u32,
    tables: Tables,
}

impl CacheWriter {
    /// Starts a shard of a cache without captions, or goes on with one that was not finished: see
    /// [`create_or_resume_captioned`](Self::create_or_resume_captioned).
    ///
    /// # Errors
    /// As there.
    pub fn create_or_resume<N: AsRef<str>>(
        dir: impl Into<PathBuf>,
        header: CacheHeader,
        shard: Shard,
        expected: impl Fn(usize) -> (usize, N),
    ) -> Result<Self, CacheError> {
        Self::create_or_resume_captioned(dir, header, shard, expected, |_| Vec::new())
    }

    /// Starts a shard, or goes on with one that was not finished: see [`len`](Self::len). The
    /// folder is created where it is missing. `expected` tells label and name of each picture of
    /// the data set, `captions` its captions, if the header says that there are some. Of what an
    /// earlier writer left, the first pictures are kept whose records are whole and whose labels,
    /// names and captions are these; the rest is cut off.
    ///
    /// # Errors
    /// * [`CacheError::Complete`] if the shard is finished,
    /// * [`CacheError::Locked`] if another writer is at work on it,
    /// * [`CacheError::Tokenizer`], [`CacheError::HeaderMismatch`] or [`CacheError::Division`] if
    ///   the folder holds shards of another cache,
    /// * [`CacheError::Header`] if the header makes no sense,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn create_or_resume_captioned<N: AsRef<str>>(
        dir: impl Into<PathBuf>,
        header: CacheHeader,
        shard: Shard,
        expected: impl Fn(usize) -> (usize, N),
        captions: impl Fn(usize) -> Vec<String>,
    ) -> Result<Self, CacheError> {
        let dir = dir.into();
        if let Err(reason) = header.validate() {
            return Err(CacheError::Header { path: dir, reason });
        }
        fs::create_dir_all(&dir).map_err(file_error(&dir))?;
        let mut counts = Shard::divisions(&dir)?;
        counts.retain(|&count| count != shard.count);
        if !counts.is_empty() {
            counts.push(shard.count);
            return Err(CacheError::Division { dir, counts });
        }
        for index in 0..shard.count {
            check_shard(&dir, Shard::new(index, shard.count)?, &header)?;
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

        let path = shard.partial_file(&dir);
        let file = open(&path)?;
        let beginning = header.beginning(shard);
        let first = shard.range(header.pictures).start;
        let expected = |index: usize| expected(first + index);
        let label = |index: usize| expected(index).0;
        let room = shard.range(header.pictures).len();
        let whole = whole_pictures(&file, &beginning, &header, first..first + room, label)
            .map_err(file_error(&path))?;
        let name = |index: usize| expected(index).1;
        let (whole, mut left_out) = whole;
        let mut names = whole_names(&names_file, whole, name).map_err(file_error(&names_path))?;
        let captions = match header.captions {
            None => None,
            Some(_) => {
                let path = shard.captions_file(&dir);
                let file = open(&path)?;
                let found = whole_captions(&file, first, names.count, captions);
                let found = found.map_err(file_error(&path))?;
                // Those of fewer pictures: then no more names count either.
                names = whole_names(&names_file, found.tables.len(), name)
                    .map_err(file_error(&names_path))?;
                let WholeCaptions { tables, size, checksum } = found;
                Some(Captions { texts: Appended::new(file, path, size)?, checksum, tables })
            }
        };
        left_out.retain(|left: &LeftOut| left.picture < first + names.count);
        let kept = names.count * header.views * header.record_size();
        let mut records = Appended::new(file, path, (beginning.len() + kept) as u64)?;
        records.file.seek(SeekFrom::Start(0)).map_err(file_error(&records.path))?;
        records.file.write_all(&beginning).map_err(file_error(&records.path))?;
        records.file.sync_data().map_err(file_error(&records.path))?;
        sync_folder(&dir)?;
        Ok(Self {
            names: Appended::new(names_file, names_path, names.size)?,
            names_checksum: names.checksum,
            captions,
            left_out,
            len: names.count,
            dir,
            header,
            shard,
            records,
        })
    }

    /// How many pictures the shard has; a resumed writer goes on with the one of this number.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the shard has no pictures yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The shard that is written.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Appends a sample without captions: its class, its name in the data set, and the tokens of its
    /// views one after the other.
    ///
    /// # Errors
    /// Those of [`append_captioned`](Self::append_captioned).
    pub fn append(
        &mut self,
        label: usize,
        name: &str,
        tokens: &[CodebookIndex],
    ) -> Result<(), CacheError> {
        self.append_captioned(label, name, &[], tokens)
    }

    /// Appends a sample: its class, its name in the data set, its captions, and the tokens of its
    /// views one after the other.
    ///
    /// # Errors
    /// * [`CacheError::Sample`] if a number is out of the header's range, the name holds a line
    ///   break, or there are captions in a cache whose header says that there are none; nothing is
    ///   stored then,
    /// * [`CacheError::File`] if the operating system fails.
    pub fn append_captioned(
        &mut self,
        label: usize,
        name: &str,
        captions: &[String],
        tokens: &[CodebookIndex],
    ) -> Result<(), CacheError> {
        let CacheHeader { codes, views, layout, .. } = &self.header;
        let length = layout.len();
        let reason = if tokens.len() != views * length {
            Some(format!("{} tokens instead of {views} views of {length}", tokens.len()))
        } else {
            let large = tokens.iter().find(|&&token| usize::from(token) >= *codes);
            large.map(|token| format!("token {token} of a codebook of {codes}"))
        };
        if let Some(reason) = reason {
            return Err(CacheError::Sample { name: name.to_owned(), reason });
        }
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let size = length * size_of::<CodebookIndex>();
        self.add(label, name, captions, 0, |view| &bytes[view * size..][..size])
    }

    /// Appends a sample without captions that cannot be read: see
    /// [`leave_out_captioned`](Self::leave_out_captioned).
    ///
    /// # Errors
    /// Those of [`append_captioned`](Self::append_captioned).
    pub fn leave_out(&mut self, label: usize, name: &str, reason: &str) -> Result<(), CacheError> {
        self.leave_out_captioned(label, name, &[], reason)
    }

    /// Appends a sample that cannot be read: its class, its name in the data set, its captions, and
    /// why. It keeps its place and its captions, and readers are told that it has no tokens.
    ///
    /// # Errors
    /// Those of [`append_captioned`](Self::append_captioned).
    pub fn leave_out_captioned(
        &mut self,
        label: usize,
        name: &str,
        captions: &[String],
        reason: &str,
    ) -> Result<(), CacheError> {
        let size = self.header.layout.len() * size_of::<CodebookIndex>();
        // Zeros fill up the room, so none may stand in the text.
        let reason = reason.replace('\0', " ");
        let reason = &reason[..reason.floor_char_boundary(size)];
        let mut bytes = vec![0; size];
        bytes[..reason.len()].copy_from_slice(reason.as_bytes());
        let picture = self.shard.range(self.header.pictures).start + self.len;
        self.add(label, name, captions, LEFT_OUT, |_| &bytes)?;
        self.left_out.push(LeftOut { picture, reason: reason.to_owned() });
        Ok(())
    }

    /// The samples of the shard that were left out so far, earlier writers' included.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Appends the records of a sample; `mark` is added to their views.
    fn add<'a>(
        &mut self,
        label: usize,
        name: &str,
        captions: &[String],
        mark: u16,
        content: impl Fn(usize) -> &'a [u8],
    ) -> Result<(), CacheError> {
        let CacheHeader { classes, views, pictures, .. } = &self.header;
        let range = self.shard.range(*pictures);
        let reason = if self.len == range.len() {
            Some(format!("the shard has all its {} pictures", range.len()))
        } else if label >= classes.len() {
            Some(format!("class {label} of {}", classes.len()))
        } else if name.contains(['\n', '\r']) {
            Some("its name holds a line break".to_owned())
        } else if !captions.is_empty() && self.captions.is_none() {
            Some("it has captions, and the cache was begun without".to_owned())
        } else if captions.iter().any(|caption| caption.len() > MAX_CAPTION) {
            Some(format!("one of its captions is longer than {MAX_CAPTION} bytes"))
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(CacheError::Sample { name: name.to_owned(), reason });
        }

        let number = |value: usize| u32::try_from(value).expect("the header bounds it");
        let waiting = &mut self.records.waiting;
        for view in 0..*views {
            let start = waiting.len();
            waiting.extend(number(range.start + self.len).to_le_bytes());
            waiting.extend(number(label).to_le_bytes());
            let marked = mark | u16::try_from(view).expect("the header bounds it");
            waiting.extend(marked.to_le_bytes());
            waiting.extend(content(view));
            let checksum = crc32c::crc32c(&waiting[start..]);
            waiting.extend(checksum.to_le_bytes());
        }
        let line = self.names.waiting.len();
        self.names.waiting.extend(name.bytes().chain([b'\n']));
        self.names_checksum =
            crc32c::crc32c_append(self.names_checksum, &self.names.waiting[line..]);
        if let Some(Captions { texts, checksum, tables }) = &mut self.captions {
            for caption in captions {
                texts.waiting.extend(caption.as_bytes());
                *checksum = crc32c::crc32c_append(*checksum, caption.as_bytes());
            }
            tables.add(range.start + self.len, captions);
        }
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
        // In this order: a record on the disk is the promise that its name and captions are there.
        self.names.flush()?;
        if let Some(captions) = &mut self.captions {
            captions.texts.flush()?;
        }
        self.records.flush()
    }

    /// Completes the shard.
    ///
    /// # Errors
    /// [`CacheError::Short`] if pictures are missing; [`CacheError::File`] if the operating system
    /// fails.
    pub fn finish(mut self) -> Result<(), CacheError> {
        self.flush()?;
        let (got, expected) = (self.len, self.shard.range(self.header.pictures).len());
        if got < expected {
            let path = self.records.path;
            return Err(CacheError::Short { path, got, expected });
        }
        let footer = Footer {
            records: (self.len * self.header.views) as u64,
            names_size: self.names.size,
            names_checksum: self.names_checksum,
        };
        if let Some(Captions { texts, checksum, tables }) = &mut self.captions {
            let bytes = tables.to_bytes();
            let checksum = crc32c::crc32c_append(*checksum, &bytes);
            texts.waiting.extend(bytes);
            texts.flush()?;
            let summary = Summary { captions: tables.captions(), size: texts.size, checksum };
            self.records.waiting.extend(summary.to_bytes());
        }
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

/// Checks that what is there of a shard, finished or not, belongs to the cache with this header.
fn check_shard(dir: &Path, shard: Shard, header: &CacheHeader) -> Result<(), CacheError> {
    for path in [shard.tokens_file(dir), shard.partial_file(dir)] {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CacheError::File { path, source }),
        };
        let mut preamble = [0; FRAME];
        if !read_whole(&mut file, &mut preamble).map_err(file_error(&path))? {
            continue;
        }
        // A damaged beginning is written anew, or found when the cache is opened.
        let Some(preamble) = Preamble::read(&path, &preamble)? else { continue };
        let mut json = Vec::new();
        let size = preamble.header_size as u64;
        file.take(size).read_to_end(&mut json).map_err(file_error(&path))?;
        if crc32c::crc32c(&json) == preamble.header_checksum
            && let Ok(found) = CacheHeader::from_json(&json)
        {
            found.check_same(&path, header)?;
        }
    }
    Ok(())
}

/// How many of the pictures stand whole, in order and with their labels behind the beginning, and
/// which of them were left out; labels are asked for by the picture's number in the shard.
fn whole_pictures(
    file: &File,
    beginning: &[u8],
    header: &CacheHeader,
    pictures: Range<usize>,
    label: impl Fn(usize) -> usize,
) -> io::Result<(usize, Vec<LeftOut>)> {
    let mut left_out = Vec::new();
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut found = vec![0; beginning.len()];
    if !read_whole(&mut reader, &mut found)? || found != *beginning {
        return Ok((0, left_out));
    }
    let mut bytes = vec![0; header.record_size()];
    for (count, picture) in pictures.clone().enumerate() {
        for view in 0..header.views {
            let whole = read_whole(&mut reader, &mut bytes)?;
            let stored = header.parse(&bytes, picture, view).filter(|_| whole);
            match stored.filter(|stored| stored.label() == label(count)) {
                None => return Ok((count, left_out)),
                Some(Stored::LeftOut { reason, .. }) if view == 0 => {
                    left_out.push(LeftOut { picture, reason: reason.to_owned() });
                }
                Some(_) => {}
            }
        }
    }
    Ok((pictures.len(), left_out))
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
    count: usize,
    size: u64,
    checksum: u32,
}

/// The first lines that are whole and right, at most `count`.
fn whole_names<N: AsRef<str>>(
    file: &File,
    count: usize,
    name: impl Fn(usize) -> N,
) -> io::Result<WholeNames> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut names = WholeNames::default();
    let mut line = Vec::new();
    while names.count < count {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if line.strip_suffix(b"\n") != Some(name(names.count).as_ref().as_bytes()) {
            break;
        }
        names.count += 1;
        names.size += line.len() as u64;
        names.checksum = crc32c::crc32c_append(names.checksum, &line);
    }
    Ok(names)
}

/// The captions that count.
#[derive(Debug, Default)]
struct WholeCaptions {
    tables: Tables,
    size: u64,
    checksum: u32,
}

/// The captions of the first pictures, at most `count`, whose texts are whole and right; `first` is
/// the number of the first one in the data set.
fn whole_captions(
    file: &File,
    first: usize,
    count: usize,
    captions: impl Fn(usize) -> Vec<String>,
) -> io::Result<WholeCaptions> {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut whole = WholeCaptions::default();
    let mut found = Vec::new();
    for picture in first..first + count {
        let captions = captions(picture);
        let texts = captions.concat();
        found.resize(texts.len(), 0);
        if !read_whole(&mut reader, &mut found)? || found != texts.as_bytes() {
            break;
        }
        whole.tables.add(picture, &captions);
        whole.size += texts.len() as u64;
        whole.checksum = crc32c::crc32c_append(whole.checksum, &found);
    }
    Ok(whole)
}
